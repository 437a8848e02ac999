"""The image modality and its default mapper, which is the checkpoint's own image processor."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmcore.multimodal.base import MultiModalData, MultiModalInputs, MultiModalPlugin

if TYPE_CHECKING:
    from mmcore.config import ModelConfig
    from mmcore.inputs.registry import InputContext

__all__ = ["ImagePlugin"]

logger = logging.getLogger(__name__)


class ImagePlugin(MultiModalPlugin):
    """Images: Pillow images, arrays of 8-bit pixels, or embeddings."""

    def get_data_key(self) -> str:
        """Give ``"image"``."""
        return "image"

    def _get_hf_image_processor(
        self, ctx: InputContext, mm_processor_kwargs: dict[str, Any]
    ) -> Any:
        from mmcore.multimodal.hf_processor import cached_get_image_processor

        model_config = ctx.model_config
        return cached_get_image_processor(
            model_config.model,
            revision=model_config.revision,
            trust_remote_code=model_config.trust_remote_code,
            **mm_processor_kwargs,
        )

    def map_input_as_bytes(
        self,
        model_config: ModelConfig,
        data: MultiModalData[Any],
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> MultiModalInputs:
        """Map like :meth:`map_input`, but leave pixels as bytes where that changes no value.

        Only the default mapper does, and for processors that are known.
        """
        mapper = self._input_mappers.get(model_config.get_model_cls())
        if type(self) is not ImagePlugin or mapper != self._default_input_mapper:
            return self.map_input(model_config, data, mm_processor_kwargs)
        return self._run_mapper(self._map_as_bytes, model_config, data, mm_processor_kwargs, True)

    def _default_input_mapper(
        self, ctx: InputContext, data: MultiModalData[Any], **mm_processor_kwargs: Any
    ) -> MultiModalInputs:
        return self._map(ctx, data, mm_processor_kwargs, as_bytes=False)

    def _map_as_bytes(
        self, ctx: InputContext, data: MultiModalData[Any], **mm_processor_kwargs: Any
    ) -> MultiModalInputs:
        return self._map(ctx, data, mm_processor_kwargs, as_bytes=True)

    def _map(
        self,
        ctx: InputContext,
        data: MultiModalData[Any],
        mm_processor_kwargs: dict[str, Any],
        *,
        as_bytes: bool,
    ) -> MultiModalInputs:
        import torch

        from mmcore.multimodal.decode import is_image, normalize_image
        from mmcore.multimodal.hf_processor import is_batch_feature
        from mmcore.multimodal.image_bytes import byte_features

        # An input processor may have run the Hugging Face processor already.
        if not isinstance(data, list) and is_batch_feature(data):
            return MultiModalInputs(data.data)

        items = data if isinstance(data, list) else [data]
        if items and all(isinstance(item, torch.Tensor) for item in items):
            return MultiModalInputs({"image_embeds": data})
        if not items or not all(is_image(item) for item in items):
            kinds = {type(item).__name__ for item in items} or {"an empty list"}
            raise TypeError(f"Invalid image type: {', '.join(sorted(kinds))}")

        processor = self._get_hf_image_processor(ctx, mm_processor_kwargs)
        if processor is None:
            raise RuntimeError("No HuggingFace processor is available to process the image object")
        images = [normalize_image(item) for item in items]
        try:
            features = byte_features(processor, images) if as_bytes else None
            if features is None:
                features = processor(images, return_tensors="pt").data
        except Exception:
            sizes = ", ".join(f"{image.width}x{image.height}" for image in images)
            logger.exception(
                "Failed to process image (%s) with the default mapper. This is most likely an "
                "edge-case with this model's image processor in transformers "
                "(type: %s), and not mmcore.",
                sizes,
                type(processor).__name__,
            )
            raise
        return MultiModalInputs(features)

    def _default_max_multimodal_tokens(self, ctx: InputContext) -> int:
        return 3000
