"""Telling the kinds of prompts apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from mmcore.errors import ValidationError
from mmcore.inputs.data import TextPrompt, TokensPrompt

if TYPE_CHECKING:
    from mmcore.inputs.data import ExplicitEncoderDecoderPrompt

__all__ = [
    "ParsedPrompt",
    "ParsedText",
    "ParsedTokens",
    "is_explicit_encoder_decoder_prompt",
    "parse_and_batch_prompt",
    "parse_singleton_prompt",
]


@dataclass(frozen=True, slots=True)
class ParsedText:
    """A text of a legacy batch."""

    content: str
    is_tokens: Literal[False] = False


@dataclass(frozen=True, slots=True)
class ParsedTokens:
    """A list of token ids of a legacy batch."""

    content: list[int]
    is_tokens: Literal[True] = True


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """One prompt and what it is.

    Parameters
    ----------
    type
        ``"str"`` for a bare string, ``"text"`` or ``"tokens"`` for a dictionary.
    content
        The prompt as a dictionary.
    """

    type: Literal["str", "text", "tokens"]
    content: TextPrompt | TokensPrompt


def parse_and_batch_prompt(
    prompt: str | list[str] | list[int] | list[list[int]],
) -> list[ParsedText] | list[ParsedTokens]:
    """Parse the ``prompt`` of a completion request, which may be four things.

    Raises
    ------
    ValidationError
        If it is empty.
    TypeError
        If it is none of the four.
    """
    if isinstance(prompt, str):
        return [ParsedText(prompt)]
    if isinstance(prompt, list):
        if not prompt:
            raise ValidationError("please provide at least one prompt")
        if _all_are(prompt, str):
            return [ParsedText(text) for text in prompt if isinstance(text, str)]
        if _all_are(prompt, int):
            return [ParsedTokens([token for token in prompt if isinstance(token, int)])]
        if _all_are(prompt, list):
            batch = [tokens for tokens in prompt if isinstance(tokens, list)]
            if not all(batch):
                raise ValidationError("please provide at least one prompt")
            if all(_all_are(tokens, int) for tokens in batch):
                return [ParsedTokens(tokens) for tokens in batch]
    raise TypeError(
        "prompt must be a string, array of strings, array of tokens, or array of token arrays"
    )


def parse_singleton_prompt(prompt: object) -> ParsedPrompt:
    """Tell a string, a text prompt and a token prompt apart; token ids win over text.

    Raises
    ------
    TypeError
        If it is none of them.
    """
    if isinstance(prompt, str):
        return ParsedPrompt("str", TextPrompt(prompt=prompt))
    if isinstance(prompt, dict):
        if prompt.get("prompt_token_ids") is not None:
            return ParsedPrompt("tokens", prompt)  # type: ignore[arg-type]
        if prompt.get("prompt") is not None:
            return ParsedPrompt("text", prompt)  # type: ignore[arg-type]
    raise TypeError("inputs must be a string, TextPrompt, or TokensPrompt")


def is_explicit_encoder_decoder_prompt(
    prompt: object,
) -> TypeGuard[ExplicitEncoderDecoderPrompt[Any, Any]]:
    """Tell whether a prompt names an encoder prompt."""
    return isinstance(prompt, dict) and "encoder_prompt" in prompt


def _all_are(values: Sequence[object], kind: type) -> bool:
    # A bool is an int to Python, but never a token id.
    return all(isinstance(v, kind) and not isinstance(v, bool) for v in values)
