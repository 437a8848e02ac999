"""The video modality and its default mapper, which is the checkpoint's own video processor."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from mmcore.multimodal.base import MultiModalData, MultiModalInputs
from mmcore.multimodal.image import ImagePlugin

if TYPE_CHECKING:
    from mmcore.inputs.registry import InputContext

__all__ = ["VideoPlugin"]

logger = logging.getLogger(__name__)


class VideoPlugin(ImagePlugin):
    """Videos, as arrays of shape (frames, height, width, 3)."""

    def get_data_key(self) -> str:
        """Give ``"video"``."""
        return "video"

    def _get_hf_video_processor(
        self, ctx: InputContext, mm_processor_kwargs: dict[str, Any]
    ) -> Any:
        from mmcore.multimodal.hf_processor import cached_get_video_processor

        model_config = ctx.model_config
        return cached_get_video_processor(
            model_config.model,
            revision=model_config.revision,
            trust_remote_code=model_config.trust_remote_code,
            **mm_processor_kwargs,
        )

    def _default_input_mapper(
        self, ctx: InputContext, data: MultiModalData[Any], **mm_processor_kwargs: Any
    ) -> MultiModalInputs:
        import numpy as np

        from mmcore.multimodal.hf_processor import is_batch_feature

        if not isinstance(data, list) and is_batch_feature(data):
            return MultiModalInputs(data.data)
        if isinstance(data, list) and len(data) == 1:
            data = data[0]
        if isinstance(data, list):
            raise NotImplementedError("Multi video for a prompt is not supported yet")
        if not isinstance(data, np.ndarray):
            raise TypeError(f"Invalid video type: {type(data).__name__}")

        processor = self._get_hf_video_processor(ctx, mm_processor_kwargs)
        if processor is None:
            raise RuntimeError("No HuggingFace processor is available to process the video object")
        try:
            # Frames are stored (height, width, channels).
            features = processor(list(data), return_tensors="pt", input_data_format="channels_last")
        except Exception:
            logger.exception("Failed to process video %s with the default mapper.", data.shape)
            raise
        return MultiModalInputs(features.data)

    def _default_max_multimodal_tokens(self, ctx: InputContext) -> int:
        return 4096
