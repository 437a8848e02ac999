"""Unit: defaults, refusals with their exact texts, and what is derived."""

from __future__ import annotations

import dataclasses
import logging
import pickle
from typing import Any

import numpy as np
import pytest

from mmcore.errors import ValidationError
from mmcore.sampling_params import (
    GuidedDecodingParams,
    RequestOutputKind,
    SamplingParams,
    SamplingType,
)


def test_defaults() -> None:
    params = SamplingParams()
    assert dataclasses.asdict(params) | {"stop": None, "stop_token_ids": None} == {
        "n": 1,
        "best_of": None,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "seed": None,
        "stop": None,
        "stop_token_ids": None,
        "ignore_eos": False,
        "max_tokens": 16,
        "min_tokens": 0,
        "logprobs": None,
        "prompt_logprobs": None,
        "detokenize": True,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "logits_processors": None,
        "include_stop_str_in_output": False,
        "truncate_prompt_tokens": None,
        "output_kind": RequestOutputKind.CUMULATIVE,
        "guided_decoding": None,
        "logit_bias": None,
        "allowed_token_ids": None,
        "output_text_buffer_length": 0,
        "_real_n": None,
    }
    assert params.stop == []
    assert params.stop_token_ids == []


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0."),
        ({"n": -1}, "n must be at least 1, got -1."),
        ({"presence_penalty": -2.5}, "presence_penalty must be in [-2, 2], got -2.5."),
        ({"frequency_penalty": 3}, "frequency_penalty must be in [-2, 2], got 3.0."),
        ({"repetition_penalty": 0}, "repetition_penalty must be in (0, 2], got 0.0."),
        ({"repetition_penalty": -1}, "repetition_penalty must be in (0, 2], got -1.0."),
        ({"temperature": -1}, "temperature must be non-negative, got -1.0."),
        ({"temperature": 1e9}, "temperature must be at most 1000, got 1000000000.0."),
        ({"top_p": 0}, "top_p must be in (0, 1], got 0.0."),
        ({"top_p": 1.1}, "top_p must be in (0, 1], got 1.1."),
        ({"top_k": 0}, "top_k must be -1 (disable), or at least 1, got 0."),
        ({"top_k": -2}, "top_k must be -1 (disable), or at least 1, got -2."),
        ({"top_k": 2**40}, "top_k must be below 2**31, got 1099511627776."),
        ({"min_p": 2}, "min_p must be in [0, 1], got 2.0."),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0."),
        ({"max_tokens": 2**63}, "max_tokens must be below 2**31, got 9223372036854775808."),
        ({"min_tokens": -1}, "min_tokens must be greater than or equal to 0, got -1."),
        (
            {"min_tokens": 5, "max_tokens": 4},
            "min_tokens must be less than or equal to max_tokens=4, got 5.",
        ),
        ({"logprobs": -1}, "logprobs must be non-negative, got -1."),
        ({"prompt_logprobs": -1}, "prompt_logprobs must be non-negative, got -1."),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens must be >= 1, got 0"),
        ({"stop": ["a", ""]}, "stop cannot contain an empty string."),
        (
            {"stop": "a", "detokenize": False},
            "stop strings are only supported when detokenize is True. "
            "Set detokenize=True to use stop.",
        ),
        ({"n": 2, "temperature": 0}, "n must be 1 when using greedy sampling, got 2."),
        (
            {"n": 3, "best_of": 2},
            "best_of must be greater than or equal to n, got n=3 and best_of=2.",
        ),
        (
            {"best_of": 2, "output_kind": RequestOutputKind.DELTA},
            "best_of must equal n to use output_kind=DELTA",
        ),
        ({"seed": 2**64}, f"seed must be -1 (none) or in [0, 2**64), got {2**64}."),
        ({"seed": -2}, "seed must be -1 (none) or in [0, 2**64), got -2."),
        ({"stop_token_ids": [-1]}, "stop_token_ids must be in [0, 2**31), got -1."),
        ({"logit_bias": {-1: 0.0}}, "logit_bias keys must be in [0, 2**31), got -1."),
        ({"logit_bias": {"a": 0.0}}, "logit_bias keys must be token ids, got 'a'."),
        ({"logit_bias": {5: float("nan")}}, "logit_bias[5] must be finite, got nan."),
        (
            {"allowed_token_ids": [2**31]},
            "allowed_token_ids must be in [0, 2**31), got 2147483648.",
        ),
    ],
    ids=str,
)
def test_refused_with_text(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SamplingParams(**kwargs)
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)


FLOATS = [
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "min_p",
]
INTS = ["n", "best_of", "top_k", "seed", "max_tokens", "min_tokens", "truncate_prompt_tokens"]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "1", True, None, []])
def test_numbers_must_be_finite_numbers(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"{name} must be"):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("name", INTS)
@pytest.mark.parametrize("value", [True, "2", 1.5, [1]])
def test_counts_must_be_integers(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"{name} must be an integer, got"):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("name", ["ignore_eos", "detokenize", "include_stop_str_in_output"])
def test_switches_must_be_bools(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} must be a bool, got 1"):
        SamplingParams(**{name: 1})


@pytest.mark.parametrize(
    "kwargs",
    [
        {"stop": 5},
        {"stop": [5]},
        {"stop_token_ids": 5},
        {"stop_token_ids": "ab"},
        {"stop_token_ids": [True]},
        {"logit_bias": [1]},
        {"output_kind": 1},
    ],
    ids=str,
)
def test_wrong_types_are_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(kwargs))):
        SamplingParams(**kwargs)


def test_numpy_numbers_become_plain_ones() -> None:
    params = SamplingParams(n=np.int64(2), top_p=np.float32(0.5))
    assert type(params.n) is int
    assert type(params.top_p) is float


def test_greedy_ignores_the_cut_offs() -> None:
    params = SamplingParams(temperature=0, top_p=0.5, top_k=3, min_p=0.1)
    assert (params.top_p, params.top_k, params.min_p) == (1.0, -1, 0.0)
    assert params.sampling_type is SamplingType.GREEDY


def test_tiny_temperature_is_raised_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        params = SamplingParams(temperature=1e-7)
    assert params.temperature == 0.01
    assert params.sampling_type is SamplingType.RANDOM
    assert "temperature 1e-07" in caplog.text


def test_seed_minus_one_is_none() -> None:
    assert SamplingParams(seed=-1).seed is None
    assert SamplingParams(seed=0).sampling_type is SamplingType.RANDOM_SEED
    assert SamplingParams(seed=2**64 - 1).seed == 2**64 - 1


def test_true_logprobs_mean_one() -> None:
    params = SamplingParams(logprobs=True, prompt_logprobs=False)
    assert (params.logprobs, params.prompt_logprobs) == (1, None)
    assert type(params.logprobs) is int


@pytest.mark.parametrize(
    ("stop", "included", "expected"),
    [(None, False, 0), ("abc", False, 2), (["a", "abcd"], False, 3), ("abc", True, 0)],
)
def test_held_back_characters(stop: Any, included: bool, expected: int) -> None:
    params = SamplingParams(stop=stop, include_stop_str_in_output=included)
    assert params.output_text_buffer_length == expected


def test_best_of_generates_more_than_it_returns() -> None:
    params = SamplingParams(n=2, best_of=5)
    assert (params.n, params.real_n) == (5, 2)
    assert SamplingParams(n=3).real_n == 3


def test_from_optional_takes_none_for_defaults() -> None:
    params = SamplingParams.from_optional(
        n=None, temperature=None, top_p=None, top_k=None, min_p=None, logit_bias={"7": 2}
    )
    assert params == SamplingParams(logit_bias={7: 2.0})


def test_clone_is_deep_but_shares_logits_processors() -> None:
    class Processor:
        def __call__(self, ids: Any, logits: Any) -> Any:
            return logits

    processor = Processor()
    params = SamplingParams(stop=["x"], logits_processors=[processor], n=2, best_of=4)
    copy = params.clone()
    assert copy == params
    assert copy.real_n == 2
    assert copy.stop is not params.stop
    assert copy.logits_processors is not None
    assert copy.logits_processors[0] is processor


def test_pickling_keeps_everything() -> None:
    params = SamplingParams(n=2, best_of=3, stop="ab", seed=5, logit_bias={1: 2.0})
    again = pickle.loads(pickle.dumps(params))
    assert again == params
    assert again.real_n == 2


def test_one_kind_of_guided_decoding() -> None:
    GuidedDecodingParams(regex="a+", json_object=False)
    with pytest.raises(
        ValidationError,
        match="You can only use one kind of guided decoding but multiple are specified: ",
    ):
        GuidedDecodingParams(regex="a+", choice=["a"])
