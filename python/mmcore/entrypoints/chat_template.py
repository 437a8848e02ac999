"""Applying a chat template, whichever way it wants its content."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcore import _C
from mmcore.entrypoints.literal_text import Literals
from mmcore.errors import CheckpointError, ValidationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mmcore.config import ModelConfig

__all__ = ["ChatTemplate"]

_NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a "
    "chat template if the tokenizer does not define one."
)
_PROBE = "mmcore-probe"


class ChatTemplate:
    """The template of a checkpoint, or one that the caller gives.

    Templates of multimodal checkpoints take content as a list of parts, and write their own
    placeholders; those of text checkpoints take a string. Which of the two a template takes is
    found out by trying.

    Parameters
    ----------
    model_config, tokenizer
        The model.
    """

    def __init__(self, model_config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model_config = model_config
        self._tokenizer: Any = tokenizer
        self._takes_parts: dict[str, bool] = {}

    def apply(
        self,
        messages: list[dict[str, Any]],
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
    ) -> tuple[str, Literals]:
        """Render messages whose content is a list of parts.

        Returns
        -------
        tuple
            The text, in which spellings of special tokens in user text are marked, and the marks.

        Raises
        ------
        ValidationError
            If there is no template, or it refuses the messages.
        """
        template = self._resolve(chat_template)
        literals = Literals(self._special_tokens)
        marked = copy.deepcopy(messages)
        for message in marked:
            for part in message["content"]:
                if part["type"] == "text":
                    part["text"] = literals.mark(part["text"])
        if not self._content_is_parts(template):
            for message in marked:
                message["content"] = self._joined(message["content"])
        text = self._render(
            marked,
            template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
        )
        return text, literals

    def exists(self) -> bool:
        """Tell whether the checkpoint has a template of its own."""
        return self._own is not None

    @cached_property
    def _own(self) -> str | None:
        """The checkpoint's template: the processor's if it is multimodal, else the tokenizer's."""
        if self._model_config.is_multimodal_model:
            from mmcore.multimodal.hf_processor import cached_get_processor

            try:
                processor: Any = cached_get_processor(
                    self._model_config.model,
                    revision=self._model_config.revision,
                    trust_remote_code=self._model_config.trust_remote_code,
                )
            except CheckpointError:  # a model of one's own need not have one
                processor = None
            template = getattr(processor, "chat_template", None)
            if isinstance(template, str):
                return template
        template = getattr(self._tokenizer, "chat_template", None)
        return template if isinstance(template, str) else None

    @cached_property
    def _special_tokens(self) -> list[str]:
        decoder: dict[int, Any] = getattr(self._tokenizer, "added_tokens_decoder", {})
        added = [token.content for token in decoder.values() if token.special]
        return [*self._tokenizer.all_special_tokens, *added]

    @cached_property
    def _image_placeholder(self) -> str:
        from mmcore.engine.placeholder_ids import placeholder_token_ids

        ids = placeholder_token_ids(self._model_config.hf_config)
        if "image" not in ids:
            raise ValidationError(
                "The chat template takes no images, and config.json names no image token to put "
                "into the text. Give a chat_template that writes placeholders."
            )
        return str(self._tokenizer.convert_ids_to_tokens(ids["image"]))

    def _resolve(self, chat_template: str | None) -> str:
        if chat_template is None:
            if self._own is None:
                raise ValidationError(_NO_TEMPLATE, code="no_chat_template")
            return self._own
        if any(c in chat_template for c in "{}\n"):
            return chat_template
        try:
            return Path(chat_template).read_text(encoding="utf-8")
        except OSError as error:
            if any(c in chat_template for c in "/\\") or chat_template.endswith(".jinja"):
                raise ValidationError(
                    f"The supplied chat template string ({chat_template}) appears path-like, "
                    "but doesn't exist!"
                ) from error
            return chat_template

    def _content_is_parts(self, template: str) -> bool:
        known = self._takes_parts.get(template)
        if known is None:
            message = {"role": "user", "content": [{"type": "text", "text": _PROBE}]}
            try:
                text = self._render([message], template)
            except ValidationError:
                text = ""
            # A template for strings prints the list, or fails to join it to a string.
            known = _PROBE in text and f"'{_PROBE}'" not in text and f'"{_PROBE}"' not in text
            self._takes_parts[template] = known
        return known

    def _joined(self, parts: list[dict[str, Any]]) -> str:
        texts = [
            part["text"] if part["type"] == "text" else self._image_placeholder for part in parts
        ]
        return "\n".join(texts)

    def _render(self, messages: list[dict[str, Any]], template: str, **options: Any) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, **options
            )
        except Exception as error:  # whatever a template raises is about the messages
            raise ValidationError(
                f"The chat template refused the messages: {_C.public_text(error)}",
                code="chat_template_error",
            ) from error
        return str(text)
