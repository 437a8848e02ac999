"""The shapes of prompts: what a caller passes, and what it becomes once it is token ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, Union

if TYPE_CHECKING:
    from mmcore.multimodal.base import MultiModalDataDict
    from mmcore.multimodal.placeholders import MultiModalPlaceholderDict

__all__ = [
    "DecoderOnlyInputs",
    "EncoderDecoderLLMInputs",
    "ExplicitEncoderDecoderPrompt",
    "LLMInputs",
    "PromptType",
    "SingletonPrompt",
    "TextPrompt",
    "TokenInputs",
    "TokensPrompt",
    "build_explicit_enc_dec_prompt",
    "to_enc_dec_tuple_list",
    "token_inputs",
    "zip_enc_dec_prompts",
]


class _PromptOptions(TypedDict, total=False):
    multi_modal_data: MultiModalDataDict
    mm_processor_kwargs: dict[str, Any]


class TextPrompt(_PromptOptions):
    """A text, with its media if it has placeholders for any.

    ``mm_processor_kwargs`` override the engine's options of the same name for this prompt.
    """

    prompt: str


class TokensPrompt(_PromptOptions):
    """Token ids, with one unexpanded placeholder for each media item."""

    prompt_token_ids: list[int]


SingletonPrompt: TypeAlias = Union[str, TextPrompt, TokensPrompt]  # noqa: UP007

_Enc = TypeVar("_Enc", bound=SingletonPrompt)
_Dec = TypeVar("_Dec", bound=Union[SingletonPrompt, None])  # noqa: UP007

if TYPE_CHECKING:

    class ExplicitEncoderDecoderPrompt(TypedDict, Generic[_Enc, _Dec]):
        """One prompt for the encoder and one for the decoder."""

        encoder_prompt: _Enc
        decoder_prompt: _Dec
        mm_processor_kwargs: dict[str, Any] | None

else:
    # Generic typed dictionaries need Python 3.11 at run time.
    class ExplicitEncoderDecoderPrompt(TypedDict):
        """One prompt for the encoder and one for the decoder."""

        encoder_prompt: Any
        decoder_prompt: Any
        mm_processor_kwargs: Any


PromptType: TypeAlias = Union[
    SingletonPrompt, "ExplicitEncoderDecoderPrompt[SingletonPrompt, SingletonPrompt | None]"
]


class _TokenInputsOptions(TypedDict, total=False):
    type: Literal["token"]
    prompt: str | None
    multi_modal_data: MultiModalDataDict | None
    multi_modal_placeholders: MultiModalPlaceholderDict | None
    mm_processor_kwargs: dict[str, Any] | None


class TokenInputs(_TokenInputsOptions):
    """A prompt as token ids: what an input processor takes and gives.

    ``multi_modal_placeholders`` says which tokens stand for which item, by modality and in the
    items' order, once the placeholders are expanded.
    """

    prompt_token_ids: list[int]


# The v0.6.3 name of the same shape.
LLMInputs = TokenInputs
DecoderOnlyInputs = TokenInputs


class EncoderDecoderLLMInputs(TokenInputs, total=False):
    """The inputs of an encoder-decoder model: the decoder's, and the encoder's beside them."""

    encoder_prompt_token_ids: list[int]
    encoder_prompt: str | None
    encoder_multi_modal_data: MultiModalDataDict | None


def token_inputs(
    prompt_token_ids: list[int],
    prompt: str | None = None,
    multi_modal_data: MultiModalDataDict | None = None,
    multi_modal_placeholders: MultiModalPlaceholderDict | None = None,
    mm_processor_kwargs: dict[str, Any] | None = None,
) -> TokenInputs:
    """Build :class:`TokenInputs`, leaving out what is None."""
    inputs = TokenInputs(type="token", prompt_token_ids=prompt_token_ids)
    if prompt is not None:
        inputs["prompt"] = prompt
    if multi_modal_data is not None:
        inputs["multi_modal_data"] = multi_modal_data
    if multi_modal_placeholders is not None:
        inputs["multi_modal_placeholders"] = multi_modal_placeholders
    if mm_processor_kwargs is not None:
        inputs["mm_processor_kwargs"] = mm_processor_kwargs
    return inputs


def build_explicit_enc_dec_prompt(
    encoder_prompt: _Enc,
    decoder_prompt: _Dec,
    mm_processor_kwargs: Mapping[str, Any] | None = None,
) -> ExplicitEncoderDecoderPrompt[_Enc, _Dec]:
    """Pair an encoder prompt with a decoder prompt."""
    return ExplicitEncoderDecoderPrompt(
        encoder_prompt=encoder_prompt,
        decoder_prompt=decoder_prompt,
        mm_processor_kwargs=dict(mm_processor_kwargs or {}),
    )


def zip_enc_dec_prompts(
    enc_prompts: Sequence[_Enc],
    dec_prompts: Sequence[_Dec],
    mm_processor_kwargs: Iterable[Mapping[str, Any]] | Mapping[str, Any] | None = None,
) -> list[ExplicitEncoderDecoderPrompt[_Enc, _Dec]]:
    """Pair encoder prompts with decoder prompts, each with its own or with the same options."""
    options: list[Mapping[str, Any]]
    if mm_processor_kwargs is None or isinstance(mm_processor_kwargs, Mapping):
        options = [mm_processor_kwargs or {}] * len(enc_prompts)
    else:
        options = list(mm_processor_kwargs)
    if not len(enc_prompts) == len(dec_prompts) == len(options):
        raise ValueError(
            f"Got {len(enc_prompts)} encoder prompts, {len(dec_prompts)} decoder prompts and "
            f"{len(options)} mm_processor_kwargs; give as many of each."
        )
    return [
        build_explicit_enc_dec_prompt(enc, dec, kwargs)
        for enc, dec, kwargs in zip(enc_prompts, dec_prompts, options, strict=True)
    ]


def to_enc_dec_tuple_list(
    enc_dec_prompts: Iterable[ExplicitEncoderDecoderPrompt[_Enc, _Dec]],
) -> list[tuple[_Enc, _Dec]]:
    """Split pairs into tuples of encoder and decoder prompt."""
    return [(pair["encoder_prompt"], pair["decoder_prompt"]) for pair in enc_dec_prompts]


_DEPRECATED = {"PromptInput": PromptType, "PromptInputs": PromptType}


def __getattr__(name: str) -> Any:
    if name in _DEPRECATED:
        warnings.warn(
            f"{name} has been renamed to PromptType. The old name will be removed.",
            DeprecationWarning,
            stacklevel=2,
        )
        return _DEPRECATED[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
