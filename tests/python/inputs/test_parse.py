"""Unit: telling the kinds of prompts apart."""

from __future__ import annotations

from typing import Any

import pytest

from mmcore.inputs.parse import (
    ParsedText,
    ParsedTokens,
    is_explicit_encoder_decoder_prompt,
    parse_and_batch_prompt,
    parse_singleton_prompt,
)

STRINGS = ["a", "b c", "", "<image>"]
TOKENS = [[1, 2], [3], [4, 5, 6]]


@pytest.mark.parametrize("text", STRINGS)
def test_one_string(text: str) -> None:
    assert parse_and_batch_prompt(text) == parse_and_batch_prompt([text]) == [ParsedText(text)]


@pytest.mark.parametrize("tokens", TOKENS)
def test_one_list_of_tokens(tokens: list[int]) -> None:
    assert (
        parse_and_batch_prompt(tokens) == parse_and_batch_prompt([tokens]) == [ParsedTokens(tokens)]
    )


@pytest.mark.parametrize("selection", [slice(3, None), slice(2), slice(0, 1)])
def test_batches(selection: slice) -> None:
    texts, tokens = STRINGS[selection], TOKENS[selection]
    assert parse_and_batch_prompt(texts) == [ParsedText(text) for text in texts]
    if tokens:
        assert parse_and_batch_prompt(tokens) == [ParsedTokens(ids) for ids in tokens]


@pytest.mark.parametrize("prompt", [[], [[]], [[1], []]])
def test_empty(prompt: Any) -> None:
    with pytest.raises(ValueError, match=r"^please provide at least one prompt$"):
        parse_and_batch_prompt(prompt)


@pytest.mark.parametrize("prompt", [1, None, [1, "a"], [[1], "a"], [[1.5]], [True], [[False]], {}])
def test_none_of_the_four(prompt: Any) -> None:
    with pytest.raises(TypeError) as caught:
        parse_and_batch_prompt(prompt)
    assert str(caught.value) == (
        "prompt must be a string, array of strings, array of tokens, or array of token arrays"
    )


def test_singleton_prompts() -> None:
    assert parse_singleton_prompt("a").content == {"prompt": "a"}
    assert parse_singleton_prompt("a").type == "str"
    assert parse_singleton_prompt({"prompt": "a"}).type == "text"
    assert parse_singleton_prompt({"prompt_token_ids": [1]}).type == "tokens"
    assert parse_singleton_prompt({"prompt": "a", "prompt_token_ids": [1]}).type == "tokens"


@pytest.mark.parametrize("prompt", [None, 5, [1], {}, {"prompt": None}, {"text": "a"}])
def test_no_singleton_prompt(prompt: Any) -> None:
    with pytest.raises(TypeError) as caught:
        parse_singleton_prompt(prompt)
    assert str(caught.value) == "inputs must be a string, TextPrompt, or TokensPrompt"


def test_encoder_decoder_prompts() -> None:
    assert is_explicit_encoder_decoder_prompt({"encoder_prompt": "a", "decoder_prompt": None})
    assert not is_explicit_encoder_decoder_prompt({"prompt": "a"})
    assert not is_explicit_encoder_decoder_prompt("encoder_prompt")
