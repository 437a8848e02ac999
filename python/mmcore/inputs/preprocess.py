"""From any prompt to token ids with their media: the step before the input processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmcore._checks import as_int
from mmcore.errors import ValidationError
from mmcore.inputs.data import PromptType, TokenInputs, token_inputs
from mmcore.inputs.parse import is_explicit_encoder_decoder_prompt, parse_singleton_prompt

__all__ = ["check_token_ids", "to_token_inputs"]


def to_token_inputs(
    prompt: PromptType,
    encode: Callable[[str], list[int]] | None,
    *,
    vocab_size: int | None = None,
) -> TokenInputs:
    """Tokenise a prompt for a decoder-only model; its media are passed on as they are.

    Parameters
    ----------
    prompt
        A string, a ``TextPrompt`` or a ``TokensPrompt``.
    encode
        Turns a text into token ids; None when the engine has no tokenizer.
    vocab_size
        Ids must be below it.

    Raises
    ------
    ValidationError
        If the prompt is empty, is text and there is no tokenizer, has ids that are no token ids,
        or is meant for an encoder-decoder model.
    TypeError
        If it is no prompt.
    """
    if is_explicit_encoder_decoder_prompt(prompt):
        raise ValidationError("Cannot pass encoder-decoder prompt to decoder-only models")
    parsed = parse_singleton_prompt(prompt)
    content: Mapping[str, Any] = parsed.content

    text = content.get("prompt")
    if parsed.type == "tokens":
        token_ids = check_token_ids(content["prompt_token_ids"], vocab_size)
    else:
        if not isinstance(text, str):
            raise TypeError("inputs must be a string, TextPrompt, or TokensPrompt")
        if encode is None:
            raise ValidationError("You cannot pass text prompts when `skip_tokenizer_init` is True")
        token_ids = encode(text)
    if not token_ids:
        raise ValidationError("Prompt cannot be empty")

    for key in ("multi_modal_data", "mm_processor_kwargs"):
        value = content.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise ValidationError(
                f"`{key}` must be a dictionary, got {type(value).__name__}. "
                'For example: {"image": image}.'
            )
    return token_inputs(
        token_ids,
        prompt=text,
        multi_modal_data=content.get("multi_modal_data"),
        mm_processor_kwargs=content.get("mm_processor_kwargs"),
    )


def check_token_ids(token_ids: object, vocab_size: int | None = None) -> list[int]:
    """Copy ids into a list of plain ints.

    Raises
    ------
    ValidationError
        If one is not an integer, negative, or not below `vocab_size`.
    """
    if isinstance(token_ids, (str, bytes)) or not hasattr(token_ids, "__iter__"):
        raise ValidationError(
            f"prompt_token_ids must be a list of integers, got {type(token_ids).__name__}."
        )
    ids = list(token_ids)
    if not all(type(token) is int for token in ids):
        ids = [as_int(f"prompt_token_ids[{i}]", token) for i, token in enumerate(ids)]
    limit = 2**31 if vocab_size is None else vocab_size
    if ids and not (min(ids) >= 0 and max(ids) < limit):
        position = next(i for i, token in enumerate(ids) if not 0 <= token < limit)
        raise ValidationError(
            f"prompt_token_ids[{position}] is {ids[position]}; token ids must be in [0, {limit})."
        )
    return ids
