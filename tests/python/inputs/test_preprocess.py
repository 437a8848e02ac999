"""Unit: from any prompt to token ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmcore.errors import ValidationError
from mmcore.inputs import check_token_ids, to_token_inputs


def encode(text: str) -> list[int]:
    return [ord(c) for c in text]


def test_text_is_encoded_and_kept() -> None:
    assert to_token_inputs("ab", encode) == {
        "type": "token",
        "prompt": "ab",
        "prompt_token_ids": [97, 98],
    }


def test_media_and_options_are_passed_on() -> None:
    image = object()
    inputs = to_token_inputs(
        {"prompt": "a", "multi_modal_data": {"image": image}, "mm_processor_kwargs": {"k": 1}},
        encode,
    )
    assert inputs["multi_modal_data"] == {"image": image}
    assert inputs["mm_processor_kwargs"] == {"k": 1}


def test_token_ids_win_over_text_and_are_copied() -> None:
    ids = [5, 6]
    inputs = to_token_inputs({"prompt": "ab", "prompt_token_ids": ids}, encode)  # type: ignore[typeddict-item]
    assert inputs["prompt_token_ids"] == [5, 6]
    assert inputs["prompt_token_ids"] is not ids
    assert inputs["prompt"] == "ab"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "Prompt cannot be empty"),
        ({"prompt_token_ids": []}, "Prompt cannot be empty"),
        (
            {"encoder_prompt": "a", "decoder_prompt": "b"},
            "Cannot pass encoder-decoder prompt to decoder-only models",
        ),
        (
            {"prompt": "a", "multi_modal_data": [1]},
            "`multi_modal_data` must be a dictionary, got list",
        ),
        (
            {"prompt": "a", "mm_processor_kwargs": "x"},
            "`mm_processor_kwargs` must be a dictionary, got str",
        ),
        ({"prompt_token_ids": "ab"}, "prompt_token_ids must be a list of integers, got str"),
        ({"prompt_token_ids": 5}, "prompt_token_ids must be a list of integers, got int"),
    ],
    ids=str,
)
def test_refused(prompt: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        to_token_inputs(prompt, encode)
    assert message in str(caught.value)


@pytest.mark.parametrize("prompt", [{"prompt": 5}, None, 3])
def test_no_prompt(prompt: Any) -> None:
    with pytest.raises(TypeError, match="inputs must be a string, TextPrompt, or TokensPrompt"):
        to_token_inputs(prompt, encode)


def test_text_without_a_tokenizer() -> None:
    with pytest.raises(ValueError) as caught:
        to_token_inputs("a", None)
    assert str(caught.value) == "You cannot pass text prompts when `skip_tokenizer_init` is True"
    assert to_token_inputs({"prompt_token_ids": [1]}, None)["prompt_token_ids"] == [1]


@pytest.mark.parametrize("bad", [-1, 100, 2**31, 2**40])
def test_ids_outside_the_vocabulary(bad: int) -> None:
    with pytest.raises(ValidationError, match=rf"prompt_token_ids\[1\] is {bad}; .* \[0, 100\)"):
        check_token_ids([1, bad], vocab_size=100)


@pytest.mark.parametrize("bad", [1.5, True, "a", None, [1]])
def test_ids_that_are_no_integers(bad: Any) -> None:
    with pytest.raises(ValidationError, match=r"prompt_token_ids\[1\] must be an integer"):
        check_token_ids([1, bad])


def test_numpy_ids_become_plain_ones() -> None:
    ids = check_token_ids(np.array([1, 2]))
    assert ids == [1, 2]
    assert all(type(token) is int for token in ids)
