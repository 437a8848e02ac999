"""Prompts, and the registry of the functions that prepare them for a model."""

from __future__ import annotations

from typing import Any

from mmcore.inputs import data as _data
from mmcore.inputs.data import (
    DecoderOnlyInputs,
    EncoderDecoderLLMInputs,
    ExplicitEncoderDecoderPrompt,
    LLMInputs,
    PromptType,
    SingletonPrompt,
    TextPrompt,
    TokenInputs,
    TokensPrompt,
    build_explicit_enc_dec_prompt,
    to_enc_dec_tuple_list,
    token_inputs,
    zip_enc_dec_prompts,
)
from mmcore.inputs.parse import parse_and_batch_prompt
from mmcore.inputs.preprocess import check_token_ids, to_token_inputs
from mmcore.inputs.registry import (
    DummyData,
    DummyDataFactory,
    InputContext,
    InputProcessingContext,
    InputProcessor,
    InputRegistry,
)

INPUT_REGISTRY = InputRegistry()
"""The registry that model classes decorate themselves with and engines read."""

__all__ = [
    "INPUT_REGISTRY",
    "DecoderOnlyInputs",
    "DummyData",
    "DummyDataFactory",
    "EncoderDecoderLLMInputs",
    "ExplicitEncoderDecoderPrompt",
    "InputContext",
    "InputProcessingContext",
    "InputProcessor",
    "InputRegistry",
    "LLMInputs",
    "PromptType",
    "SingletonPrompt",
    "TextPrompt",
    "TokenInputs",
    "TokensPrompt",
    "build_explicit_enc_dec_prompt",
    "check_token_ids",
    "parse_and_batch_prompt",
    "to_enc_dec_tuple_list",
    "to_token_inputs",
    "token_inputs",
    "zip_enc_dec_prompts",
]


def __getattr__(name: str) -> Any:
    # The deprecated names live with the types that replaced them.
    if name in ("PromptInput", "PromptInputs"):
        return getattr(_data, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
