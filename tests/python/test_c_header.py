"""The structs of c_api.h have the fields of the C++ structs that they stand for. Layer: text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

INCLUDE = Path(__file__).resolve().parents[2] / "cpp" / "include" / "mmcore"
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
# `std::vector<std::pair<TokenId, float>> logit_bias;`, `int32_t top_k = -1;`, `const int32_t* x;`
FIELD = re.compile(r"[\w>*]\s+(\w+)\s*(?:=[^;]*|\{\}|\[\d+\])?;")
BORDER_ONLY = {"struct_size", "reserved0"}


def fields(header: str, struct: str) -> set[str]:
    """Return the names of a struct's fields."""
    text = COMMENT.sub("", (INCLUDE / header).read_text(encoding="utf-8"))
    match = re.search(rf"struct {struct} \{{(.*?)\n\}}", text, re.DOTALL)
    assert match is not None, f"no struct {struct} in {header}"
    return {name for line in match[1].split(";") for name in FIELD.findall(line.strip() + ";")}


def without_counts(names: set[str], arrays: set[str]) -> set[str]:
    """Leave out what only C needs: sizes of structs, lengths of arrays, padding."""
    counts = {f"num_{name}" for name in arrays} | {f"{name}_length" for name in arrays}
    return names - counts - BORDER_ONLY


# (C struct, header and struct of C++, in C++ only, in C only, arrays)
MIRRORS = [
    (
        "mmcore_config",
        [("config.h", "EngineConfig"), ("engine_loop.h", "EngineLoopOptions")],
        {"custom_policy", "clock_us"},
        set(),
        {"eos_token_ids"},
    ),
    ("mmcore_metrics", [("engine.h", "EngineMetrics")], set(), set(), set()),
    (
        "mmcore_sampling",
        [("sampling.h", "SamplingParams")],
        set(),
        set(),
        {"stop_token_ids", "logit_bias", "allowed_token_ids"},
    ),
    (
        "mmcore_submission",
        [("request.h", "Request")],
        set(),
        {"place_timeout_us"},
        {"prompt_token_ids", "media", "cache_salt"},
    ),
    (
        "mmcore_step",
        [("model_runner.h", "StepPlan")],
        set(),
        {"num_sequences", "num_tokens", "num_sample_rows", "num_prompt_logprob_rows"},
        {"host_saves", "host_loads", "block_copies", "encode", "embeddings", "evict"},
    ),
    ("mmcore_sequence", [("model_runner.h", "ScheduledSequence")], set(), set(), set()),
    ("mmcore_encode_item", [("model_runner.h", "EncodeItem")], set(), set(), set()),
    ("mmcore_embedding_copy", [("model_runner.h", "EmbeddingCopy")], set(), set(), set()),
    ("mmcore_host_copy", [("model_runner.h", "HostCopy")], set(), set(), set()),
    (
        "mmcore_sample_row",
        [("sampling.h", "SampleRow")],
        set(),
        set(),
        {"prompt_tokens", "output_tokens", "logit_bias", "allowed_tokens", "banned_tokens"},
    ),
]


@pytest.mark.parametrize("mirror", MIRRORS, ids=lambda mirror: mirror[0])
def test_c_has_the_fields_of_cpp(
    mirror: tuple[str, list[tuple[str, str]], set[str], set[str], set[str]],
) -> None:
    c_struct, cpp_structs, only_cpp, only_c, arrays = mirror
    cpp = set().union(*(fields(header, struct) for header, struct in cpp_structs))
    assert only_cpp <= cpp
    assert arrays <= cpp
    c = without_counts(fields("c_api.h", c_struct), arrays)
    assert c - only_c == cpp - only_cpp
