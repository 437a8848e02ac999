"""From a prompt to what the core takes: token ids, and media items with their spans and ids.

Everything that can be wrong with a prompt is found here, before the engine has spent anything on
it: the text is tokenised, pictures are decoded to the last byte, the model's input processor
expands the placeholders, and each item is matched with its range of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mmcore import _C
from mmcore.engine.placeholder_ids import placeholder_token_ids
from mmcore.errors import InternalError, MediaError, MmcoreError, ValidationError
from mmcore.inputs import INPUT_REGISTRY, to_token_inputs
from mmcore.multimodal import MULTIMODAL_REGISTRY
from mmcore.multimodal.items import MediaItemData, content_key, count_items, split_items
from mmcore.multimodal.placeholders import PlaceholderRange, find_item_ranges

if TYPE_CHECKING:
    from mmcore.config import ModelConfig
    from mmcore.engine.tokenizer import TokenizerAdapter
    from mmcore.inputs import InputRegistry, PromptType, TokenInputs
    from mmcore.multimodal import MultiModalRegistry

__all__ = ["InputPreprocessor", "MediaItem", "ProcessedPrompt"]

_KINDS = {"image": _C.MediaKind.IMAGE, "audio": _C.MediaKind.AUDIO, "video": _C.MediaKind.VIDEO}


@dataclass(frozen=True, slots=True)
class MediaItem:
    """One media item of a request, ready to be encoded.

    Parameters
    ----------
    modality
        Its key in ``multi_modal_data``.
    data
        The item, as the input processor left it.
    content_id
        32 bytes that name its content and how it is prepared.
    span
        The tokens that stand for it.
    processor_kwargs
        Options of its prompt for the input mapper.
    """

    modality: str
    data: Any
    content_id: bytes
    span: PlaceholderRange
    processor_kwargs: Mapping[str, Any] | None = None

    def to_core(self) -> _C.MediaItem:
        """Give what the core knows of it: no pixels."""
        mask = b"" if self.span.is_embed is None else bytes(self.span.is_embed)
        return _C.MediaItem(
            _KINDS.get(self.modality, _C.MediaKind.OTHER),
            self.content_id,
            self.span.offset,
            self.span.length,
            mask,
        )


@dataclass(frozen=True, slots=True)
class ProcessedPrompt:
    """A prompt whose placeholders are expanded, and its items in the prompt's order."""

    text: str | None
    token_ids: list[int]
    items: Sequence[MediaItem] = field(default_factory=tuple)


class InputPreprocessor:
    """Prepares prompts for one model.

    Parameters
    ----------
    model_config
        The model.
    tokenizer
        None when prompts are token ids only.
    input_registry, mm_registry
        Where the model's functions are registered.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        tokenizer: TokenizerAdapter | None,
        input_registry: InputRegistry = INPUT_REGISTRY,
        mm_registry: MultiModalRegistry = MULTIMODAL_REGISTRY,
    ) -> None:
        self._model_config = model_config
        self._tokenizer = tokenizer
        self._input_registry = input_registry
        self._mm_registry = mm_registry
        self._vocab_size = model_config.get_vocab_size()
        self._placeholder_ids = placeholder_token_ids(model_config.hf_config)

    def process(
        self, prompt: PromptType, *, truncate_prompt_tokens: int | None = None
    ) -> ProcessedPrompt:
        """Prepare a prompt.

        Parameters
        ----------
        prompt
            A string, a ``TextPrompt`` or a ``TokensPrompt``.
        truncate_prompt_tokens
            Keep only this many of the last tokens, before placeholders are expanded.

        Raises
        ------
        ValidationError
            Or a subclass, or TypeError: the prompt cannot be used.
        InternalError
            If the model's input processor fails.
        """
        inputs = to_token_inputs(prompt, self._encoder(), vocab_size=self._vocab_size)
        if truncate_prompt_tokens is not None:
            inputs["prompt_token_ids"] = inputs["prompt_token_ids"][-truncate_prompt_tokens:]
        unexpanded = list(inputs["prompt_token_ids"])
        data = inputs.get("multi_modal_data") or {}
        counts = self._check_limits(data)
        if counts:
            inputs["multi_modal_data"] = _decoded(data)
        else:
            inputs.pop("multi_modal_data", None)
        processed = self._run_input_processor(inputs)
        token_ids = processed["prompt_token_ids"]
        self._check_length(len(token_ids))
        items = self._items(processed, unexpanded, counts)
        text = processed.get("prompt", inputs.get("prompt"))
        return ProcessedPrompt(text, list(token_ids), items)

    def _encoder(self) -> Any:
        if self._tokenizer is None:
            return None
        adapter = self._tokenizer

        def encode(text: str) -> list[int]:
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValidationError(
                    f"The prompt is not valid Unicode: a lone surrogate at index {error.start}.",
                    code="invalid_unicode",
                ) from None
            return adapter.encode(text)

        return encode

    def _check_limits(self, data: Mapping[str, Any]) -> dict[str, int]:
        """Count the items of each modality that has any."""
        counts = {}
        for modality, value in data.items():
            if value is None or (isinstance(value, list) and not value):
                continue
            count = count_items(modality, value)
            self._mm_registry.check_limit(self._model_config, modality, count)
            if modality not in self._modalities:
                raise MediaError(
                    f"The model takes {', '.join(sorted(self._modalities))}, not {modality!r}.",
                    code="modality_not_supported",
                )
            counts[modality] = count
        return counts

    def _run_input_processor(self, inputs: TokenInputs) -> TokenInputs:
        try:
            return self._input_registry.process_input(self._model_config, inputs)
        except (MmcoreError, TypeError):
            raise
        except ValueError as error:  # how seed-era processors refuse a prompt
            raise ValidationError(_C.public_text(error, with_class=False)) from error
        except Exception as error:
            raise InternalError(
                f"The model's input processor raised {_C.public_text(error)}",
                code="processor_error",
            ) from error

    def _check_length(self, num_tokens: int) -> None:
        max_model_len = self._model_config.max_model_len
        if num_tokens == 0:
            raise ValidationError("Prompt cannot be empty")
        if num_tokens >= max_model_len:  # one token must be left to generate
            raise ValidationError(
                f"The prompt (total length {num_tokens}) is too long to fit into the model "
                f"(context length {max_model_len}). Make sure that `max_model_len` is no smaller "
                "than the number of text tokens plus multimodal tokens. For image inputs, the "
                "number of image tokens depends on the number of images, and possibly their "
                "aspect ratios as well.",
                code="context_length_exceeded",
            )

    def _items(
        self, inputs: TokenInputs, unexpanded: list[int], counts: dict[str, int]
    ) -> list[MediaItem]:
        if not counts and not self._placeholder_ids:
            return []
        ranges = find_item_ranges(inputs, unexpanded, counts, self._placeholder_tokens(inputs))
        if not counts:
            return []
        kwargs = inputs.get("mm_processor_kwargs") or None
        items = []
        by_modality: dict[str, list[MediaItemData]] = {}
        for item in split_items(inputs.get("multi_modal_data") or {}):
            by_modality.setdefault(item.modality, []).append(item)
        for modality, spans in ranges.items():
            data = by_modality.get(modality, [])
            if len(data) == 1 and len(spans) > 1:
                # The input processor put all items into one: they are encoded together.
                spans = [_joined(spans)]
            if len(data) != len(spans):
                raise InternalError(
                    f"The model's input processor left {len(data)} {modality} items for "
                    f"{len(spans)} placeholder ranges.",
                    code="processor_error",
                )
            for item, span in zip(data, spans, strict=True):
                items.append(MediaItem(modality, item.data, self._id(item, kwargs), span, kwargs))
        items.sort(key=lambda item: item.span.offset)
        return items

    def _placeholder_tokens(self, inputs: TokenInputs) -> Mapping[str, int | Sequence[int]]:
        recorded = getattr(inputs["prompt_token_ids"], "placeholder_ranges", ())
        data = inputs.get("multi_modal_data") or {}
        unknown = [modality for modality in data if modality not in self._placeholder_ids]
        if not recorded or len(unknown) != 1:
            return self._placeholder_ids
        # The configuration does not name the token, but the expansion recorded where it is.
        ids = inputs["prompt_token_ids"]
        known = set(self._placeholder_ids.values())
        firsts = {ids[r.offset + (r.is_embed.index(True) if r.is_embed else 0)] for r in recorded}
        return {**self._placeholder_ids, unknown[0]: sorted(firsts - known)}

    def _id(self, item: MediaItemData, kwargs: Mapping[str, Any] | None) -> bytes:
        options = {**(self._model_config.mm_processor_kwargs or {}), **(kwargs or {})}
        return _C.media.content_id(content_key(item, self._processor_config, options))

    @cached_property
    def _modalities(self) -> frozenset[str]:
        return frozenset(self._mm_registry.get_max_tokens_per_item(self._model_config))

    @cached_property
    def _processor_config(self) -> str:
        config = self._model_config.hf_image_processor_config
        return json.dumps(config, sort_keys=True, default=repr)


def _decoded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Load pictures and bring them to upright RGB; a broken one fails here."""
    from mmcore.multimodal.decode import is_image, normalize_image

    def one(value: Any) -> Any:
        try:
            return normalize_image(value) if is_image(value) else value
        except TypeError as error:
            raise MediaError(str(error)) from None

    return {
        modality: value
        if modality != "image"
        else ([one(v) for v in value] if isinstance(value, list) else one(value))
        for modality, value in data.items()
        if value is not None
    }


def _joined(spans: Sequence[PlaceholderRange]) -> PlaceholderRange:
    """Give the range from the first to the last of `spans`, with a mask for what is between."""
    start, end = spans[0].offset, spans[-1].end
    mask = [False] * (end - start)
    for span in spans:
        for i in range(span.length):
            mask[span.offset - start + i] = span.is_embed is None or span.is_embed[i]
    return PlaceholderRange(start, end - start, tuple(mask))
