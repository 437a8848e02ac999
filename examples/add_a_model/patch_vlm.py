"""A vision-language model of one's own, in a file outside of mmcore: the seed-level interface.

An image becomes a grid of patches, each patch one row: a convolution, then a linear projector. The
language model is a LLaMA that mmcore brings along.

    image 64 x 64 -> 4 x 4 patches -> 16 rows, in place of 16 placeholder tokens
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, LlamaConfig, PretrainedConfig

from mmcore.attention import AttentionMetadata
from mmcore.config import CacheConfig, MultiModalConfig
from mmcore.inputs import INPUT_REGISTRY, InputContext, LLMInputs, token_inputs
from mmcore.model_executor.models.interfaces import SupportsMultiModal
from mmcore.model_executor.models.utils import (
    AutoWeightsLoader,
    flatten_bn,
    init_mmcore_registered_model,
    merge_multimodal_embeddings,
)
from mmcore.model_executor.sampling_metadata import SamplingMetadata
from mmcore.multimodal import MULTIMODAL_REGISTRY, MultiModalInputs
from mmcore.multimodal.decode import normalize_image
from mmcore.multimodal.utils import repeat_and_pad_placeholder_tokens
from mmcore.sequence import SamplerOutput, SequenceData


class PatchVlmConfig(PretrainedConfig):
    """config.json of the model."""

    model_type = "patch_vlm"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": LlamaConfig}

    def __init__(
        self,
        text_config: LlamaConfig | dict[str, Any] | None = None,
        image_size: int = 64,
        patch_size: int = 16,
        patch_width: int = 48,
        image_token_id: int = 4,
        **kwargs: Any,
    ) -> None:
        if not isinstance(text_config, LlamaConfig):
            text_config = LlamaConfig(**(text_config or {}))
        self.text_config = text_config
        self.image_size = image_size
        self.patch_size = patch_size
        self.patch_width = patch_width
        self.image_token_id = image_token_id
        super().__init__(**kwargs)


AutoConfig.register("patch_vlm", PatchVlmConfig)


def rows_per_image(ctx: InputContext) -> int:
    """Step 3: the tokens that one image takes, at most. Here it is always the same number."""
    config = ctx.get_hf_config(PatchVlmConfig)
    return int((config.image_size // config.patch_size) ** 2)


def map_images(ctx: InputContext, data: object) -> MultiModalInputs:
    """Step 2: from one image or a list of them to the keyword arguments of ``forward``."""
    size = ctx.get_hf_config(PatchVlmConfig).image_size
    pixels = []
    for image in data if isinstance(data, list) else [data]:
        resized = normalize_image(image).resize((size, size))
        pixels.append(torch.from_numpy(np.asarray(resized, np.float32) / 127.5 - 1.0))
    return MultiModalInputs({"pixel_values": torch.stack(pixels).permute(0, 3, 1, 2)})


def dummy_prompt(
    ctx: InputContext, seq_len: int, mm_counts: Mapping[str, int]
) -> tuple[SequenceData, dict[str, Any]]:
    """Step 4: the largest prompt, with its placeholders expanded already."""
    config = ctx.get_hf_config(PatchVlmConfig)
    num_images = mm_counts["image"]
    media_tokens = num_images * rows_per_image(ctx)
    tokens = SequenceData.from_token_counts(
        (config.image_token_id, media_tokens), (0, max(0, seq_len - media_tokens))
    )
    blank = np.zeros((config.image_size, config.image_size, 3), np.uint8)
    return tokens, {"image": [blank] * num_images}


def expand_placeholders(ctx: InputContext, inputs: LLMInputs) -> LLMInputs:
    """Step 5: one placeholder an image becomes one token a row."""
    data = inputs.get("multi_modal_data") or {}
    if "image" not in data:
        return inputs
    images = data["image"] if isinstance(data["image"], list) else [data["image"]]
    _, ids = repeat_and_pad_placeholder_tokens(
        None,
        None,
        inputs["prompt_token_ids"],
        placeholder_token_id=ctx.get_hf_config(PatchVlmConfig).image_token_id,
        repeat_count=[rows_per_image(ctx)] * len(images),
    )
    return token_inputs(ids, prompt=inputs.get("prompt"), multi_modal_data=data)


# Step 1 is the class itself: its base, and one keyword of forward() a tensor of media.
@MULTIMODAL_REGISTRY.register_image_input_mapper(map_images)
@MULTIMODAL_REGISTRY.register_max_image_tokens(rows_per_image)
@INPUT_REGISTRY.register_dummy_data(dummy_prompt)
@INPUT_REGISTRY.register_input_processor(expand_placeholders)
class PatchVlmForImage2Seq(nn.Module, SupportsMultiModal):
    """Patches, a projector and a LLaMA."""

    def __init__(
        self,
        config: PatchVlmConfig,
        multimodal_config: MultiModalConfig,
        cache_config: CacheConfig | None = None,
        quant_config: object = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Conv2d(3, config.patch_width, config.patch_size, config.patch_size)
        self.projector = nn.Linear(config.patch_width, config.text_config.hidden_size)
        self.language_model: Any = init_mmcore_registered_model(
            config.text_config, cache_config, quant_config, prefix="language_model"
        )

    def encode_images(self, pixel_values: Any) -> Tensor:
        """Give the rows of images: [images, rows, hidden]."""
        pixels: Tensor = flatten_bn(pixel_values, concat=True).to(self.patches.weight.dtype)
        features = torch.tanh(self.patches(pixels)).flatten(2).transpose(1, 2)
        rows: Tensor = self.projector(features)
        return rows

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        kv_caches: list[Tensor],
        attn_metadata: AttentionMetadata,
        pixel_values: Tensor | None,
    ) -> Tensor:
        """Run a step; `pixel_values` is None when no image begins in it."""
        embeds = self.language_model.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            embeds = merge_multimodal_embeddings(
                input_ids, embeds, self.encode_images(pixel_values), self.config.image_token_id
            )
        hidden: Tensor = self.language_model(
            input_ids, positions, kv_caches, attn_metadata, inputs_embeds=embeds
        )
        return hidden

    def compute_logits(self, hidden_states: Tensor, sampling_metadata: SamplingMetadata) -> Tensor:
        """Give the logits of the rows that are sampled."""
        logits: Tensor = self.language_model.compute_logits(hidden_states, sampling_metadata)
        return logits

    def sample(self, logits: Tensor, sampling_metadata: SamplingMetadata) -> SamplerOutput | None:
        """Sample one token a row."""
        output: SamplerOutput | None = self.language_model.sample(logits, sampling_metadata)
        return output

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Fill the parameters from the checkpoint's tensors, by their names."""
        return AutoWeightsLoader(self).load_weights(weights)
