"""The audio modality: models bring their own mapper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmcore.multimodal.base import MultiModalData, MultiModalInputs, MultiModalPlugin

if TYPE_CHECKING:
    from mmcore.inputs.registry import InputContext

__all__ = ["AudioPlugin"]


class AudioPlugin(MultiModalPlugin):
    """Sounds, as ``(samples, sampling rate)``."""

    def get_data_key(self) -> str:
        """Give ``"audio"``."""
        return "audio"

    def _default_input_mapper(
        self, ctx: InputContext, data: MultiModalData[Any], **mm_processor_kwargs: Any
    ) -> MultiModalInputs:
        raise NotImplementedError("There is no default audio input mapper")

    def _default_max_multimodal_tokens(self, ctx: InputContext) -> int:
        raise NotImplementedError("There is no default maximum multimodal tokens")
