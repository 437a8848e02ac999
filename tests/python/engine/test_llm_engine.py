"""LLMEngine step by step: streams, aborts, several sequences. Layer: whole engine, tiny models."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from tiny_fixtures import LLMFactory, assert_idle, picture
from tiny_models import token_ids

from mmcore import LLM, LLMEngine, RequestOutput, SamplingParams
from mmcore.errors import (
    EngineDeadError,
    EngineOverloadedError,
    InternalError,
    RequestTimeoutError,
    ValidationError,
)
from mmcore.sampling_params import RequestOutputKind

GREEDY = SamplingParams(temperature=0.0, max_tokens=10, ignore_eos=True)
KIND = RequestOutputKind


@pytest.fixture
def engine(llama: LLM) -> Iterator[LLMEngine]:
    yield llama.llm_engine
    assert_idle(llama)


def drain(engine: LLMEngine) -> dict[str, list[RequestOutput]]:
    outputs: dict[str, list[RequestOutput]] = {}
    for _ in range(10_000):
        if not engine.has_unfinished_requests():
            return outputs
        for output in engine.step():
            outputs.setdefault(output.request_id, []).append(output)
    raise AssertionError("the engine does not come to an end")


def of_kind(kind: RequestOutputKind, **changes: Any) -> SamplingParams:
    options = {"temperature": 0.0, "max_tokens": 10, "ignore_eos": True, **changes}
    return SamplingParams(output_kind=kind, **options)


# What a stream holds.


def test_the_three_output_kinds_tell_the_same(engine: LLMEngine) -> None:
    for kind in KIND:
        engine.add_request(kind.name, "hello", of_kind(kind, logprobs=1))
    outputs = drain(engine)
    [final] = outputs["FINAL_ONLY"]
    cumulative, delta = outputs["CUMULATIVE"], outputs["DELTA"]
    assert len(cumulative) == len(delta) == 10
    whole = final.outputs[0]
    assert cumulative[-1].outputs[0] == whole
    assert "".join(o.outputs[0].text for o in delta) == whole.text
    assert [t for o in delta for t in o.outputs[0].token_ids] == list(whole.token_ids)
    assert whole.logprobs is not None
    assert [row for o in delta for row in o.outputs[0].logprobs or ()] == whole.logprobs
    for i, output in enumerate(cumulative):
        assert list(output.outputs[0].token_ids) == list(whole.token_ids[: i + 1])
        assert whole.text.startswith(output.outputs[0].text.rstrip("\N{REPLACEMENT CHARACTER}"))
        assert output.finished == (i == 9)


def test_outputs_of_earlier_steps_do_not_change(engine: LLMEngine) -> None:
    engine.add_request("r", "hello", of_kind(KIND.CUMULATIVE))
    first = engine.step()[0]
    assert len(first.outputs[0].token_ids) == 1
    drain(engine)
    assert len(first.outputs[0].token_ids) == 1


@pytest.mark.parametrize("kind", [KIND.CUMULATIVE, KIND.DELTA])
def test_a_stream_never_shows_what_a_stop_string_takes_away(
    engine: LLMEngine, kind: RequestOutputKind
) -> None:
    engine.add_request("free", "hello", of_kind(KIND.FINAL_ONLY, max_tokens=40))
    text = drain(engine)["free"][0].outputs[0].text
    stop = text[9:14]
    kept = text[: text.index(stop)]
    engine.add_request("r", "hello", of_kind(kind, max_tokens=40, stop=[stop]))
    shown = ""
    for output in drain(engine)["r"]:
        piece = output.outputs[0].text
        shown = shown + piece if kind is KIND.DELTA else piece
        assert kept.startswith(shown)
    assert shown == kept
    assert output.outputs[0].stop_reason == stop


def test_several_sequences_in_one_output(engine: LLMEngine) -> None:
    params = SamplingParams(n=3, temperature=1.0, max_tokens=5, ignore_eos=True, seed=1)
    params.output_kind = KIND.DELTA
    engine.add_request("r", "hello", params)
    tokens: dict[int, list[int]] = {}
    outputs = drain(engine)["r"]
    for output in outputs:
        for completion in output.outputs:
            tokens.setdefault(completion.index, []).extend(completion.token_ids)
    assert sorted(tokens) == [0, 1, 2]
    assert all(len(t) == 5 for t in tokens.values())
    assert [o.finished for o in outputs] == [False] * (len(outputs) - 1) + [True]
    assert {c.finish_reason for c in outputs[-1].outputs if c.finish_reason} == {"length"}


# Aborts.


def test_an_aborted_request_says_so_once(engine: LLMEngine) -> None:
    engine.add_request("a", "hello", GREEDY)
    engine.add_request("b", "world", GREEDY)
    engine.step()
    engine.abort_request("a")
    engine.abort_request(["a", "unknown"])
    outputs = drain(engine)
    [aborted] = outputs["a"]
    assert aborted.finished
    assert aborted.error is None
    assert aborted.outputs[0].finish_reason == "abort"
    assert len(aborted.outputs[0].token_ids) == 1
    assert outputs["b"][-1].outputs[0].finish_reason == "length"


def test_an_id_is_free_again_after_an_abort(engine: LLMEngine) -> None:
    engine.add_request("a", "hello", GREEDY)
    with pytest.raises(ValidationError, match="unique"):
        engine.add_request("a", "world", GREEDY)
    engine.abort_request("a")
    engine.add_request("a", "world", GREEDY)
    outputs = drain(engine)["a"]
    assert [o.outputs[0].finish_reason for o in outputs if o.finished] == ["abort", "length"]


def test_aborting_one_of_several_sequences_before_the_others_started(engine: LLMEngine) -> None:
    params = SamplingParams(n=4, temperature=1.0, max_tokens=5)
    engine.add_request("r", "hello", params)
    engine.abort_request("r")
    [output] = drain(engine)["r"]
    assert [c.finish_reason for c in output.outputs] == ["abort"] * 4


@pytest.mark.parametrize("seed", [0, 1])
def test_random_aborts_leave_nothing_behind(make_llava: LLMFactory, seed: int) -> None:
    """200 requests of all kinds; some are aborted at random times."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    llm = make_llava(
        limit_mm_per_prompt={"image": 2}, num_gpu_blocks_override=40, block_size=4,
        max_num_batched_tokens=rng.choice([16, 64]), max_num_seqs=12, encoder_cache_rows=24,
        encoder_budget=12,
    )  # fmt: skip
    engine = llm.llm_engine
    waiting = [f"r{i}" for i in range(200)]
    alive: set[str] = set()
    finished: dict[str, RequestOutput] = {}
    while waiting or engine.has_unfinished_requests():
        while waiting and rng.random() < 0.6:
            name = waiting.pop()
            engine.add_request(name, random_prompt(rng), random_params(rng))
            alive.add(name)
        if alive and rng.random() < 0.3:
            engine.abort_request(rng.choice(sorted(alive)))
        for output in engine.step():
            assert output.error is None
            if output.finished:
                assert output.request_id not in finished
                finished[output.request_id] = output
                alive.discard(output.request_id)
        if rng.random() < 0.05:
            assert engine.check_invariants() == []
    assert len(finished) == 200
    reasons = {c.finish_reason for o in finished.values() for c in o.outputs}
    assert {"abort", "length"} <= reasons
    assert engine.metrics()["requests_aborted"] > 10
    assert_idle(llm)


def random_prompt(rng: random.Random) -> Any:
    words = "".join(rng.choice("abc xyz") for _ in range(rng.randint(1, 60)))
    count = rng.choice([0, 0, 1, 2])
    if not count:
        return words
    images = [picture(rng.randrange(6)) for _ in range(count)]
    return {
        "prompt": "<image>".join([words[:20], "and", words[20:]][: count + 1]),
        "multi_modal_data": {"image": images},
    }


def random_params(rng: random.Random) -> SamplingParams:
    return SamplingParams(
        n=rng.choice([1, 1, 1, 2]),
        temperature=0.8,
        max_tokens=rng.randint(1, 20),
        stop=rng.choice([None, ["a"], ["xyz", "b"]]),
        output_kind=rng.choice(list(KIND)),
    )


# Refusals and failures.


def test_a_refused_request_leaves_nothing(engine: LLMEngine) -> None:
    with pytest.raises(ValidationError) as caught:
        engine.add_request("r", "x", SamplingParams(logprobs=1000))
    assert caught.value.request_id == "r"
    assert not engine.has_unfinished_requests()
    with pytest.raises(ValidationError, match="SamplingParams"):
        engine.add_request("r", "x", {"temperature": 1})  # type: ignore[arg-type]


def test_a_full_queue(make_llama: LLMFactory) -> None:
    llm = make_llama(max_queued_requests=2)
    engine = llm.llm_engine
    engine.add_request("a", "x", GREEDY)
    engine.add_request("b", "x", GREEDY)
    with pytest.raises(EngineOverloadedError):
        engine.add_request("c", "x", GREEDY)
    engine.step()
    engine.add_request("c", "x", GREEDY)
    assert len(drain(engine)) == 3
    assert_idle(llm)


def test_siblings_need_no_place_in_the_queue(make_llama: LLMFactory) -> None:
    llm = make_llama(max_queued_requests=1, max_num_seqs=1)
    engine = llm.llm_engine
    engine.add_request("r", "x", SamplingParams(n=4, temperature=1.0, max_tokens=3))
    [*_, last] = drain(engine)["r"]
    assert last.error is None
    assert [c.finish_reason for c in last.outputs] == ["length"] * 4
    assert_idle(llm)


def test_the_queue_holds_so_many_tokens(make_llama: LLMFactory) -> None:
    engine = make_llama(max_queued_tokens=12).llm_engine
    engine.add_request("a", {"prompt_token_ids": [5] * 10}, GREEDY)
    with pytest.raises(EngineOverloadedError, match="max_queued_tokens"):
        engine.add_request("b", {"prompt_token_ids": [5] * 3}, GREEDY)
    assert engine.metrics()["waiting_tokens"] == 10
    assert list(drain(engine)) == ["a"]


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_sequences_share_the_prompt(make_llama: LLMFactory, enable_prefix_caching: bool) -> None:
    llm = make_llama(enable_prefix_caching=enable_prefix_caching)
    engine = llm.llm_engine
    params = SamplingParams(n=3, temperature=1.0, max_tokens=4, ignore_eos=True, seed=11)
    engine.add_request("r", {"prompt_token_ids": [7] * 21}, params)
    [*_, last] = drain(engine)["r"]
    metrics = engine.metrics()
    assert metrics["tokens_forked"] == 2 * 20
    assert metrics["tokens_planned"] == 21 + 2 + 3 * 3
    assert len({tuple(c.token_ids) for c in last.outputs}) > 1
    assert_idle(llm)


def test_a_deadline_ends_a_request_with_an_error(make_llama: LLMFactory) -> None:
    llm = make_llama()
    engine = llm.llm_engine
    params = SamplingParams(n=2, temperature=1.0, max_tokens=40, ignore_eos=True)
    engine.add_request("late", "hello", params, timeout=1e-9)
    engine.add_request("queued", "hello", GREEDY, queue_timeout=1e-9)
    engine.add_request("patient", "hello", GREEDY, timeout=1e9, queue_timeout=1e9)
    outputs = drain(engine)
    for name in ("late", "queued"):
        error = outputs[name][-1].error
        assert isinstance(error, RequestTimeoutError)
        assert error.code == "request_timeout"
        assert error.request_id == name
    assert outputs["patient"][-1].error is None
    assert engine.metrics()["requests_timed_out"] == 2
    with pytest.raises(ValidationError, match="timeout must be more than 0"):
        engine.add_request("r", "hello", GREEDY, timeout=0)
    assert_idle(llm)


def test_the_watchdog_counts_slow_steps(make_llama: LLMFactory) -> None:
    for seconds, counts in ((1e-6, True), (1e6, False)):
        engine = make_llama(step_watchdog=seconds).llm_engine
        engine.add_request("r", "hello", GREEDY)
        drain(engine)
        metrics = engine.metrics()
        assert metrics["steps_slow"] == (metrics["steps"] if counts else 0)
        assert metrics["slowest_step_us"] > 0


@pytest.mark.parametrize("policy", ["fcfs", "priority", "longest_prefix"])
@pytest.mark.parametrize("max_preemptions", [0, 4])
def test_policies_change_no_token(
    make_llama: LLMFactory, policy: str, max_preemptions: int
) -> None:
    prompts = [{"prompt_token_ids": [3 + i % 3] * (4 + i)} for i in range(8)]
    expected = [o.outputs[0].token_ids for o in make_llama().generate(prompts, GREEDY)]
    llm = make_llama(
        scheduling_policy=policy, max_preemptions=max_preemptions, max_num_seqs=2,
        block_size=1, num_gpu_blocks_override=40,
    )  # fmt: skip
    assert [o.outputs[0].token_ids for o in llm.generate(prompts, GREEDY)] == expected
    assert_idle(llm)


def test_a_failed_sequence_fails_its_request_as_a_whole(make_llama: LLMFactory) -> None:
    llm = make_llama()
    engine = llm.llm_engine

    def fails_on_the_second(generated: list[int], logits: Any) -> Any:
        if len(generated) == 2:
            raise ValueError("enough")
        return logits

    params = SamplingParams(
        n=3, temperature=1.0, max_tokens=8, logits_processors=[fails_on_the_second]
    )
    engine.add_request("bad", "hello", params)
    engine.add_request("good", "hello", GREEDY)
    outputs = drain(engine)
    last = outputs["bad"][-1]
    assert isinstance(last.error, InternalError)
    assert last.error.request_id == "bad"
    assert {c.finish_reason for c in last.outputs} == {"error"}
    assert sum(o.finished for o in outputs["bad"]) == 1
    assert outputs["good"][-1].error is None
    assert_idle(llm)


def test_a_broken_core_is_dead_for_good(make_llama: LLMFactory) -> None:
    engine = make_llama().llm_engine
    core: Any = engine._core

    class Broken:
        def step(self) -> None:
            raise InternalError("kv: a block is on two lists")

        def __getattr__(self, name: str) -> Any:
            return getattr(core, name)

    engine._core = Broken()  # type: ignore[assignment]
    engine.add_request("r", "x", GREEDY)
    for call in (engine.step, engine.step, engine.check_health):
        with pytest.raises(EngineDeadError, match="two lists"):
            call()
    with pytest.raises(EngineDeadError):
        engine.add_request("s", "x", GREEDY)


# What an engine tells.


def test_what_it_tells(engine: LLMEngine) -> None:
    assert engine.get_model_config().max_model_len == 512
    assert engine.get_cache_config().block_size == 16
    assert engine.get_scheduler_config().max_num_seqs == 256
    assert engine.max_servable_tokens() == 199 * 16
    assert engine.get_tokenizer().encode("a") == token_ids("a")
    engine.check_health()
    assert engine.get_num_unfinished_requests() == 0
    engine.add_request("r", "x", GREEDY)
    assert engine.get_num_unfinished_requests() == 1
    assert engine.metrics()["num_waiting"] == 1
    drain(engine)


def test_preprocessing_apart_from_adding(engine: LLMEngine) -> None:
    prompt = engine.preprocess("hello", GREEDY)
    engine.add_request("r", prompt, GREEDY)
    engine.add_request("s", "hello", GREEDY)
    outputs = drain(engine)
    assert outputs["r"][-1].outputs == outputs["s"][-1].outputs


def test_salts_separate_caches(make_llama: LLMFactory) -> None:
    engine = make_llama(block_size=4).llm_engine
    for salt, expected in (("", 0), ("one", 0), ("two", 0), ("one", 1)):
        before = engine.metrics()["prefix_tokens_hit"]
        engine.add_request("r", "hello world hello", GREEDY, cache_salt=salt)
        drain(engine)
        hit = engine.metrics()["prefix_tokens_hit"] - before
        assert (hit > 0) == bool(expected), salt


def test_preemptions_are_reported(make_llama: LLMFactory) -> None:
    engine = make_llama(
        block_size=1, num_gpu_blocks_override=30, enable_prefix_caching=False, headroom=0
    ).llm_engine
    for name in "abcd":
        engine.add_request(name, name * 5, GREEDY)
    outputs = drain(engine)
    reported = [o[-1].metrics.num_preemptions for o in outputs.values() if o[-1].metrics]
    assert sum(reported) == engine.metrics()["preemptions"] > 0
