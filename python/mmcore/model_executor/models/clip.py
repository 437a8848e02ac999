"""CLIP's vision tower, and the inputs of models that see through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmcore.errors import CheckpointError
from mmcore.model_executor.layers.layernorm import LayerNorm
from mmcore.model_executor.layers.parameter import empty_parameter
from mmcore.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from mmcore.model_executor.models.vision_encoder import PatchEmbedding, VisionTower
from mmcore.model_executor.models.vision_inputs import (
    dummy_images,
    dummy_seq_data,
    expand_image_placeholders,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PretrainedConfig

    from mmcore.config import ModelConfig
    from mmcore.inputs import LLMInputs
    from mmcore.multimodal import MultiModalDataDict
    from mmcore.sequence import SequenceData

__all__ = [
    "CLIPVisionEmbeddings",
    "CLIPVisionModel",
    "dummy_image_for_clip",
    "dummy_seq_data_for_clip",
    "get_clip_image_feature_size",
    "get_clip_num_patches",
    "get_clip_patch_grid_length",
    "get_max_clip_image_tokens",
    "input_processor_for_clip",
]


def get_clip_patch_grid_length(*, image_size: int, patch_size: int) -> int:
    """Count the patches along one side of an image.

    Raises
    ------
    CheckpointError
        If patches do not divide the image.
    """
    if image_size % patch_size:
        raise CheckpointError(
            f"A CLIP tower's image_size must be a multiple of its patch_size, got {image_size} "
            f"and {patch_size}."
        )
    return image_size // patch_size


def get_clip_num_patches(*, image_size: int, patch_size: int) -> int:
    """Count the patches of an image."""
    return get_clip_patch_grid_length(image_size=image_size, patch_size=patch_size) ** 2


def get_clip_image_feature_size(hf_config: PretrainedConfig) -> int:
    """Count the rows that the tower gives: one a patch, and the class embedding's."""
    return (
        get_clip_num_patches(image_size=hf_config.image_size, patch_size=hf_config.patch_size) + 1
    )


def get_max_clip_image_tokens(hf_config: PretrainedConfig) -> int:
    """Give the rows of the largest image: all have the same size."""
    return get_clip_image_feature_size(hf_config)


def dummy_seq_data_for_clip(
    hf_config: PretrainedConfig,
    seq_len: int,
    num_images: int,
    *,
    image_token_id: int,
    image_feature_size_override: int | None = None,
) -> SequenceData:
    """Make a prompt of expanded placeholders, filled up to `seq_len` with token 0.

    Parameters
    ----------
    hf_config
        The vision model's configuration.
    image_feature_size_override
        Tokens an image, where the model uses other than all rows.
    """
    size = image_feature_size_override
    if size is None:
        size = get_clip_image_feature_size(hf_config)
    return dummy_seq_data(seq_len, num_images, size, image_token_id)


def dummy_image_for_clip(
    hf_config: PretrainedConfig,
    num_images: int,
    *,
    image_width_override: int | None = None,
    image_height_override: int | None = None,
) -> MultiModalDataDict:
    """Make blank images of the tower's size, or of another one."""
    return dummy_images(
        num_images,
        width=image_width_override or hf_config.image_size,
        height=image_height_override or hf_config.image_size,
    )


def input_processor_for_clip(
    model_config: ModelConfig,
    hf_config: PretrainedConfig,
    llm_inputs: LLMInputs,
    *,
    image_token_id: int,
    image_feature_size_override: int | Sequence[int] | None = None,
) -> LLMInputs:
    """Expand a prompt's image placeholders to the rows that the tower gives.

    Parameters
    ----------
    hf_config
        The vision model's configuration.
    image_token_id
        The placeholder.
    image_feature_size_override
        Tokens an image, or a list with those of each.
    """
    size = image_feature_size_override
    if size is None:
        size = get_clip_image_feature_size(hf_config)
    return expand_image_placeholders(
        model_config, llm_inputs, image_token_id=image_token_id, feature_sizes=size
    )


class CLIPVisionEmbeddings(nn.Module):
    """Patch embeddings behind a class embedding, plus learned positions."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.image_size: int = config.image_size
        self.class_embedding = empty_parameter(config.hidden_size)
        self.patch_embedding = PatchEmbedding(
            config.num_channels, config.hidden_size, config.patch_size, bias=False
        )
        rows = get_clip_image_feature_size(config)
        self.position_embedding = VocabParallelEmbedding(rows, config.hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed [N, channels, S, S] as [N, 1 + patches, width]."""
        patches = self.patch_embedding(pixel_values)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([first, patches], dim=1).add_(self.position_embedding.weight)


class CLIPVisionModel(VisionTower):
    """CLIP's vision tower.

    Parameters
    ----------
    config
        A CLIPVisionConfig.
    num_hidden_layers_override
        Layers to build; all when left out. A truncated tower has no norm behind its last layer.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        quant_config: object = None,
        num_hidden_layers_override: int | None = None,
        prefix: str = "vision_tower",
    ) -> None:
        super().__init__(config, CLIPVisionEmbeddings(config), num_hidden_layers_override, prefix)
        # The name is misspelt in every checkpoint.
        self.pre_layrnorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """Give state 0: normalised embeddings."""
        out: Tensor = self.pre_layrnorm(super().embed(pixel_values))
        return out
