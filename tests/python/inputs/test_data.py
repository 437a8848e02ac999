"""Unit: the shapes of prompts."""

from __future__ import annotations

import pytest

import mmcore.inputs
from mmcore.inputs import (
    LLMInputs,
    PromptType,
    TokenInputs,
    build_explicit_enc_dec_prompt,
    to_enc_dec_tuple_list,
    token_inputs,
    zip_enc_dec_prompts,
)


def test_token_inputs_leave_out_what_is_none() -> None:
    assert token_inputs([1, 2]) == {"type": "token", "prompt_token_ids": [1, 2]}
    full = token_inputs([1], "a", {"image": 1}, {"image": []}, {"k": 2})
    assert full == {
        "type": "token",
        "prompt_token_ids": [1],
        "prompt": "a",
        "multi_modal_data": {"image": 1},
        "multi_modal_placeholders": {"image": []},
        "mm_processor_kwargs": {"k": 2},
    }


def test_seed_era_spelling_of_the_same_inputs() -> None:
    assert LLMInputs is TokenInputs
    assert LLMInputs(prompt_token_ids=[1], prompt="a") == {"prompt_token_ids": [1], "prompt": "a"}


@pytest.mark.parametrize("module", [mmcore.inputs, mmcore.inputs.data])
@pytest.mark.parametrize("name", ["PromptInput", "PromptInputs"])
def test_deprecated_names(module: object, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{name} has been renamed to PromptType"):
        assert getattr(module, name) is PromptType
    with pytest.raises(AttributeError):
        module.NoSuchName  # type: ignore[attr-defined]  # noqa: B018


def test_encoder_decoder_pairs() -> None:
    pairs = zip_enc_dec_prompts(["a", "b"], ["c", None], {"k": 1})
    assert pairs[0] == build_explicit_enc_dec_prompt("a", "c", {"k": 1})
    assert to_enc_dec_tuple_list(pairs) == [("a", "c"), ("b", None)]
    own = zip_enc_dec_prompts(["a", "b"], ["c", "d"], [{"k": 1}, {"k": 2}])
    assert [pair["mm_processor_kwargs"] for pair in own] == [{"k": 1}, {"k": 2}]
    with pytest.raises(ValueError, match="1 encoder prompts, 2 decoder prompts"):
        zip_enc_dec_prompts(["a"], ["c", "d"])
