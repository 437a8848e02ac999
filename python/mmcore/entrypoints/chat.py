"""From chat messages to prompts: the template's text, and the media in their places."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcore.engine.tokenizer import TokenizerAdapter
from mmcore.entrypoints.chat_template import ChatTemplate
from mmcore.entrypoints.literal_text import encode_with_literals
from mmcore.errors import MediaError, ValidationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mmcore.config import ModelConfig
    from mmcore.inputs import TokensPrompt

__all__ = ["ChatPrompts", "Message", "ParsedMessages", "parse_messages"]

logger = logging.getLogger(__name__)

Message = Mapping[str, Any]
"""``{"role": ..., "content": ...}`` and whatever else the template reads."""


@dataclass(slots=True)
class ParsedMessages:
    """Messages whose media were taken out.

    Parameters
    ----------
    messages
        The messages; the content of each is a list of ``{"type": "text", "text": ...}`` and
        ``{"type": "image"}``.
    images
        Each an image, in the order of the messages.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)


class ChatPrompts:
    """Turns conversations into prompts for one model.

    Parameters
    ----------
    model_config, tokenizer
        The model.
    allowed_local_media_path
        Folder below which ``file://`` URLs may point; None refuses them.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        tokenizer: PreTrainedTokenizerBase,
        *,
        allowed_local_media_path: str | None = None,
    ) -> None:
        self._model_config = model_config
        self._adapter = TokenizerAdapter(tokenizer)
        self._template = ChatTemplate(model_config, tokenizer)
        self._allowed_local_media_path = allowed_local_media_path

    def render(
        self,
        messages: Sequence[Message],
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> TokensPrompt:
        """Build the prompt of a conversation.

        Special tokens enter through the template only: where a message spells one, such as
        ``<image>``, it is text.

        Raises
        ------
        ValidationError
            If a message is malformed, or there is no template.
        MediaError
            If a medium cannot be fetched or decoded, or there are too many.
        """
        if add_generation_prompt and continue_final_message:
            raise ValidationError(
                "add_generation_prompt and continue_final_message cannot both be True."
            )
        self._check_item_count(messages)
        parsed = parse_messages(messages, self._allowed_local_media_path)
        text, literals = self._template.apply(
            parsed.messages,
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
        )
        prompt: dict[str, Any] = {
            "prompt": literals.restore(text),
            "prompt_token_ids": encode_with_literals(self._adapter, text, literals),
        }
        if parsed.images:
            prompt["multi_modal_data"] = {"image": parsed.images}
        if mm_processor_kwargs:
            prompt["mm_processor_kwargs"] = dict(mm_processor_kwargs)
        return prompt  # type: ignore[return-value]

    def _check_item_count(self, messages: Sequence[Message]) -> None:
        """Refuse too many images before any of them is fetched."""
        from mmcore.multimodal import MULTIMODAL_REGISTRY

        unchecked: Any = messages
        count = sum(
            isinstance(part, Mapping) and part.get("type") in _IMAGE_PARTS
            for message in unchecked
            if isinstance(message, Mapping) and isinstance(message.get("content"), list)
            for part in message["content"]
        )
        if not count:
            return
        limits = MULTIMODAL_REGISTRY.get_mm_limits_per_prompt(self._model_config)
        limit = limits.get("image", 0)
        if self._model_config.multimodal_config is None:
            raise MediaError(
                "The model takes text only; send the messages without images.",
                code="images_not_supported",
            )
        if count > limit:
            raise MediaError(
                f"At most {limit} image(s) may be provided in one request.", code="too_many_items"
            )


_IMAGE_PARTS = ("image_url", "image")
_TEXT_PARTS = {"text": "text", "input_text": "text", "refusal": "refusal"}


def parse_messages(
    messages: Sequence[Message], allowed_local_media_path: str | None = None
) -> ParsedMessages:
    """Check messages and take their media out, fetching and decoding them.

    Raises
    ------
    ValidationError
        If a message is malformed.
    MediaError
        If a medium cannot be used.
    """
    if not messages:
        raise ValidationError("messages must not be empty.")
    parsed = ParsedMessages()
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        if not isinstance(message, Mapping):
            raise ValidationError(f"{where} must be a dictionary, got {type(message).__name__}.")
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise ValidationError(f"{where} must have a role, got {role!r}.")
        content = message.get("content")
        if content is None and role != "assistant":
            raise ValidationError(f"{where} has no content.")
        kept = {k: v for k, v in message.items() if k != "content"}
        kept["content"] = _parse_content(content, where, parsed.images, allowed_local_media_path)
        parsed.messages.append(kept)
    return parsed


def _parse_content(
    content: Any, where: str, images: list[Any], allowed_local_media_path: str | None
) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise ValidationError(
            f"{where}.content must be a string or a list of parts, got {type(content).__name__}."
        )
    parts = []
    for place, part in enumerate(content):
        here = f"{where}.content[{place}]"
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, Mapping):
            raise ValidationError(f"{here} must be a dictionary, got {type(part).__name__}.")
        kind = part.get("type")
        if kind in _TEXT_PARTS:
            text = part.get(_TEXT_PARTS[kind])
            if not isinstance(text, str):
                raise ValidationError(f"{here}.{_TEXT_PARTS[kind]} must be a string.")
            parts.append({"type": "text", "text": text})
        elif kind == "image_url":
            images.append(_fetch(part, here, allowed_local_media_path))
            parts.append({"type": "image"})
        elif kind == "image":
            if part.get("image") is None:
                raise ValidationError(f"{here}.image must be an image.")
            images.append(part["image"])
            parts.append({"type": "image"})
        else:
            raise ValidationError(
                f"{here} has the unknown type {kind!r}; known are text, image_url and image.",
                code="unknown_content_part",
            )
    return parts


def _fetch(part: Mapping[str, Any], where: str, allowed_local_media_path: str | None) -> Any:
    from mmcore.multimodal.utils import fetch_image

    value = part.get("image_url")
    if isinstance(value, Mapping):
        if value.get("detail", "auto") != "auto":
            logger.warning("'image_url.detail' is currently not supported and will be ignored.")
        value = value.get("url")
    if not isinstance(value, str):
        raise ValidationError(f'{where}.image_url must be {{"url": "..."}}.')
    root = allowed_local_media_path
    return fetch_image(value, allowed_local_media_path=str(Path(root).resolve()) if root else "")
