"""The same model with the extended interface: two methods more.

The engine now runs the encoder apart from the decoder. It keeps encoder outputs and finds them by
the image's content, cuts prompts inside an image, and reuses cached prefixes that end in one.
"""

from __future__ import annotations

from collections.abc import Sequence

from patch_vlm import (
    PatchVlmForImage2Seq,
    dummy_prompt,
    expand_placeholders,
    map_images,
    rows_per_image,
)
from torch import Tensor

from mmcore.attention import AttentionMetadata
from mmcore.inputs import INPUT_REGISTRY
from mmcore.model_executor.models.utils import embed_with_media
from mmcore.multimodal import MULTIMODAL_REGISTRY


# Registrations belong to one class: a subclass makes its own.
@MULTIMODAL_REGISTRY.register_image_input_mapper(map_images)
@MULTIMODAL_REGISTRY.register_max_image_tokens(rows_per_image)
@INPUT_REGISTRY.register_dummy_data(dummy_prompt)
@INPUT_REGISTRY.register_input_processor(expand_placeholders)
class PatchVlmWithEncoder(PatchVlmForImage2Seq):
    """The model of :mod:`patch_vlm`, its encoder run by itself."""

    def embed_multimodal(self, *, pixel_values: Tensor) -> list[Tensor]:
        """Encode images: one tensor [rows, hidden] an image, in their order."""
        return list(self.encode_images(pixel_values).unbind(0))

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Sequence[Tensor] | None = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """Embed tokens; rows that `is_multimodal` marks come from the images."""
        table = self.language_model.get_input_embeddings()
        if is_multimodal is None:
            is_multimodal = input_ids == self.config.image_token_id
        return embed_with_media(table, input_ids, multimodal_embeddings, is_multimodal)

    def forward(  # type: ignore[override]  # the encoder runs before, so no pixels come here
        self,
        input_ids: Tensor,
        positions: Tensor,
        kv_caches: list[Tensor],
        attn_metadata: AttentionMetadata,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Run a step over embeddings that are merged, or over text."""
        hidden: Tensor = self.language_model(
            input_ids, positions, kv_caches, attn_metadata, inputs_embeds=inputs_embeds
        )
        return hidden
