"""The table of mutations: what is broken, which test notices, and what the test calls it."""

from __future__ import annotations

from dataclasses import dataclass

CORE = "mmcore_core_tests"
PROOF = "mmcore_proof_tests"
SIMULATION = "*SimulationTest*"
OPERATIONS = "KvProof.random_operations_keep_every_invariant"


@dataclass(frozen=True)
class Mutation:
    """A mistake and the test that catches it.

    Parameters
    ----------
    name
        What the mistake is.
    file
        The source that is edited.
    edits
        (old, new) texts; each old one must be there exactly once.
    binary, filter
        The test program, and the tests of it that run.
    invariant
        A regular expression, which the output of the failing test must match.
    """

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    binary: str
    filter: str
    invariant: str


MUTATIONS = (
    Mutation(
        "an abort forgets to give the blocks back",
        "cpp/src/sched/scheduler.cpp",
        (
            (
                "  drop_reservation(*sequence);\n"
                "  if (sequence->in_flight == 0) free(*sequence);\n}",
                "  drop_reservation(*sequence);\n}",
            ),
        ),
        CORE,
        "Engine.abort_and_finish_work_in_every_state_and_once:" + SIMULATION,
        r"kv\.refcount: block \d+ has 1 references",
    ),
    Mutation(
        "a block is used again while a reader holds it",
        "cpp/src/kv/block_pool.cpp",
        (("  if (--state.refs > 0) return;\n", "  --state.refs;\n"),),
        PROOF,
        OPERATIONS,
        r"I[123]: ",
    ),
    Mutation(
        "a prefix hit compares the hash only",
        "cpp/src/kv/prefix_index.cpp",
        (
            (
                "    if (stored.hash == wanted.hash && stored.parent == wanted.parent &&\n"
                "        std::ranges::equal(stored.tokens, wanted.tokens) &&\n"
                "        std::ranges::equal(stored.extra, wanted.extra))\n",
                "    if (stored.hash == wanted.hash)\n",
            ),
        ),
        PROOF,
        OPERATIONS,
        r"I8: block \d+ is a hit but holds other content",
    ),
    Mutation(
        "the place of an image is left out of the key",
        "cpp/src/kv/block_key.cpp",
        (
            ("  words.push_back(static_cast<uint64_t>(from - begin));\n", ""),
            ("  words.push_back(static_cast<uint64_t>(to - begin));\n", ""),
        ),
        PROOF,
        OPERATIONS,
        r"I9: block \d+ of documents .* differ and have one key",
    ),
    Mutation(
        "the salt is left out of the key",
        "cpp/src/kv/block_key.cpp",
        (
            (
                "  append_bytes(extra_, {reinterpret_cast<const uint8_t*>(salt_.data()), "
                "salt_.size()});\n",
                "",
            ),
        ),
        PROOF,
        OPERATIONS,
        r"I8: \d+ tokens of a block hit, of 0|I9: block \d+ of documents .* differ",
    ),
    Mutation(
        "the salt is left out where the beginning of a block is hit",
        "cpp/src/kv/prefix_index.cpp",
        (
            (
                "std::ranges::equal(stored.extra, extra)) {\n",
                "(std::ranges::equal(stored.extra, extra) || !extra.empty())) {\n",
            ),
        ),
        PROOF,
        OPERATIONS,
        r"I8: \d+ tokens of a block hit, of \d+",
    ),
    Mutation(
        "a pinned encoder entry is evicted",
        "cpp/src/media/encoder_cache.cpp",
        (
            (
                "erase(idle_.begin()->second);\n    it = entries_.emplace",
                "erase(by_slot_.begin()->second);\n    it = entries_.emplace",
            ),
        ),
        CORE,
        SIMULATION,
        r"encoder\.pin: slot \d+ is pinned but does not exist|in use was evicted \(encoder\.pin\)",
    ),
    Mutation(
        "a sequence without tokens is scheduled",
        "cpp/src/sched/scheduler.cpp",
        (
            (
                "    step_.tokens_closed |= media.limit == Resources::MediaLimit::kNone;\n"
                "    return;\n",
                "    step_.tokens_closed |= media.limit == Resources::MediaLimit::kNone;\n",
            ),
        ),
        CORE,
        SIMULATION,
        r"step\.entries: a sequence without tokens",
    ),
    Mutation(
        "a failed step is not rolled back",
        "cpp/src/engine/engine_impl.cpp",
        (("  scheduler_.rollback();\n", ""),),
        CORE,
        SIMULATION,
        r"kv\.table: .* ends the table|step\.overlap: request \d+ miscounts",
    ),
    Mutation(
        "a shared tail is written to without a copy",
        "cpp/src/sched/resources.cpp",
        (
            (
                "  const auto whole = static_cast<size_t>("
                "std::min(tokens / kv_.block_size(), on_device));\n",
                "  const auto whole = static_cast<size_t>("
                "std::min<int64_t>(kv_.blocks_for(tokens), on_device));\n",
            ),
            ("  else if (partly)\n", "  else if (false)\n"),
        ),
        CORE,
        SIMULATION,
        r"kv\.write: .* will be written but is shared or cached",
    ),
    Mutation(
        "a later arrival overtakes",
        "cpp/src/sched/waiting_queue.h",
        (("return sequences_.begin()->second;", "return sequences_.rbegin()->second;"),),
        CORE,
        SIMULATION,
        r"sched\.fcfs: .* was overtaken by",
    ),
    Mutation(
        "a place in the batch keeps the penalties of the sequence before",
        "cpp/src/sched/step_builder.cpp",
        (
            (
                "  if (sampling_owners_[row] != sequence.order.id) {\n",
                "  if (sampling_owners_[row] == 0) {\n",
            ),
        ),
        CORE,
        SIMULATION,
        r"step\.sampling: request \d+ is sampled with the parameters of another",
    ),
)
