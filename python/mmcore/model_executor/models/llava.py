"""LLaVA-1.5: a CLIP or SigLIP tower, a two-layer projector, and any registered language model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mmcore.errors import CheckpointError
from mmcore.inputs import INPUT_REGISTRY, InputContext, LLMInputs
from mmcore.model_executor.layers.projector import VisionProjector
from mmcore.model_executor.layers.sampler import SamplerOutput
from mmcore.model_executor.models.clip import (
    CLIPVisionModel,
    dummy_image_for_clip,
    dummy_seq_data_for_clip,
    get_clip_image_feature_size,
    input_processor_for_clip,
)
from mmcore.model_executor.models.interfaces import FixedMediaInput, SupportsMultiModal
from mmcore.model_executor.models.siglip import (
    SiglipVisionModel,
    dummy_image_for_siglip,
    dummy_seq_data_for_siglip,
    get_siglip_image_feature_size,
    input_processor_for_siglip,
)
from mmcore.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    embed_with_media,
    init_mmcore_registered_model,
    merge_multimodal_embeddings,
)
from mmcore.model_executor.models.vision_encoder import (
    VisionTower,
    layers_needed,
    resolve_feature_layers,
)
from mmcore.model_executor.models.vision_inputs import image_feature_sizes
from mmcore.multimodal import MULTIMODAL_REGISTRY

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from mmcore.attention import AttentionMetadata
    from mmcore.config import CacheConfig, MultiModalConfig
    from mmcore.model_executor.sampling_metadata import SamplingMetadata
    from mmcore.multimodal import MultiModalDataDict, NestedTensors
    from mmcore.sequence import IntermediateTensors, SequenceData

__all__ = ["LlavaForConditionalGeneration"]

TowerKind = Literal["clip", "siglip"]

_TOWERS: Mapping[str, TowerKind] = {
    "clip_vision_model": "clip",
    "siglip_vision_model": "siglip",
}


def tower_kind(vision_config: PretrainedConfig) -> TowerKind:
    """Tell which tower a configuration describes.

    Raises
    ------
    CheckpointError
        If it is none that is supported.
    """
    kind = _TOWERS.get(vision_config.model_type)
    if kind is None:
        raise CheckpointError(
            f"Unsupported vision tower {vision_config.model_type!r}; supported are "
            f"{', '.join(_TOWERS)}."
        )
    return kind


def drops_first_row(hf_config: PretrainedConfig) -> bool:
    """Tell whether the first row of the tower's features is left out.

    Raises
    ------
    CheckpointError
        If the configuration's strategy is unknown.
    """
    strategy = hf_config.vision_feature_select_strategy
    if strategy not in ("default", "full"):
        raise CheckpointError(f"Unexpected select feature strategy: {strategy}")
    return bool(strategy == "default")


def tower_rows(vision_config: PretrainedConfig) -> int:
    """Count the rows that the tower gives for an image."""
    if tower_kind(vision_config) == "clip":
        return get_clip_image_feature_size(vision_config)
    return get_siglip_image_feature_size(vision_config)


def get_max_llava_image_tokens(ctx: InputContext) -> int:
    """Count the tokens of an image; all images have the same number."""
    config = ctx.get_hf_config()
    return tower_rows(config.vision_config) - drops_first_row(config)


def dummy_data_for_llava(
    ctx: InputContext, seq_len: int, mm_counts: Mapping[str, int]
) -> tuple[SequenceData, MultiModalDataDict | None]:
    """Make the largest prompt: as many images as allowed, then text."""
    config = ctx.get_hf_config()
    vision_config, num_images = config.vision_config, mm_counts["image"]
    clip = tower_kind(vision_config) == "clip"
    seq_data = (dummy_seq_data_for_clip if clip else dummy_seq_data_for_siglip)(
        vision_config,
        seq_len,
        num_images,
        image_token_id=config.image_token_index,
        image_feature_size_override=get_max_llava_image_tokens(ctx),
    )
    if num_images == 0:
        return seq_data, None
    make_images = dummy_image_for_clip if clip else dummy_image_for_siglip
    return seq_data, make_images(vision_config, num_images)


def input_processor_for_llava(ctx: InputContext, llm_inputs: LLMInputs) -> LLMInputs:
    """Expand each image placeholder to the image's tokens."""
    data = llm_inputs.get("multi_modal_data")
    images = data.get("image") if data else None
    if images is None:
        return llm_inputs
    config = ctx.get_hf_config()
    size = get_max_llava_image_tokens(ctx)
    clip = tower_kind(config.vision_config) == "clip"
    return (input_processor_for_clip if clip else input_processor_for_siglip)(
        ctx.model_config,
        config.vision_config,
        llm_inputs,
        image_token_id=config.image_token_index,
        image_feature_size_override=image_feature_sizes(
            images, lambda _: size, hidden_size=config.text_config.hidden_size
        ),
    )


def init_vision_tower(hf_config: PretrainedConfig, prefix: str = "vision_tower") -> VisionTower:
    """Make the tower, with as many layers as ``vision_feature_layer`` needs."""
    config = hf_config.vision_config
    count = layers_needed(hf_config.vision_feature_layer, config.num_hidden_layers)
    tower = CLIPVisionModel if tower_kind(config) == "clip" else SiglipVisionModel
    return tower(config, num_hidden_layers_override=count, prefix=prefix)


def init_projector(hf_config: PretrainedConfig) -> VisionProjector:
    """Make the projector. Features of several layers lie side by side."""
    layers = hf_config.vision_feature_layer
    num_layers = 1 if isinstance(layers, int) else len(layers)
    hidden_size = hf_config.text_config.hidden_size
    return VisionProjector(
        hf_config.vision_config.hidden_size * num_layers,
        hidden_size,
        hidden_size,
        act=hf_config.projector_hidden_act,
        bias=getattr(hf_config, "multimodal_projector_bias", True),
        prefix="multi_modal_projector",
    )


def stack_images(pixel_values: NestedTensors, image_size: int) -> Tensor:
    """Join images that are nested in any way to [N, 3, S, S].

    Raises
    ------
    ValueError
        If they have another shape.
    """
    if not isinstance(pixel_values, Tensor):
        return torch.cat([stack_images(part, image_size) for part in pixel_values])
    if pixel_values.ndim < 3 or pixel_values.shape[-3:] != (3, image_size, image_size):
        expected = ("batch_size", "3", str(image_size), str(image_size))
        raise ValueError(
            f"The expected shape of pixel values is {expected}. "
            f"You supplied {tuple(pixel_values.shape)}."
        )
    return pixel_values.reshape(-1, 3, image_size, image_size)


def split_image_embeds(image_embeds: NestedTensors) -> list[Tensor]:
    """Split embeddings that are nested in any way into one tensor [rows, hidden] an image."""
    if not isinstance(image_embeds, Tensor):
        return [item for part in image_embeds for item in split_image_embeds(part)]
    if image_embeds.ndim < 2:
        raise ValueError(
            "The expected shape of image embeddings is ('rows', 'hidden_size'), per image. "
            f"You supplied {tuple(image_embeds.shape)}."
        )
    return list(image_embeds.reshape(-1, *image_embeds.shape[-2:]).unbind(0))


# Checkpoints name the same tensors in two ways, with the base model inside or outside of `model`.
LLAVA_WEIGHTS_MAPPER = WeightsMapper(
    orig_to_new_prefix={
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "model.image_newline": "image_newline",
        "lm_head.": "language_model.lm_head.",
    }
)


@MULTIMODAL_REGISTRY.register_image_input_mapper()
@MULTIMODAL_REGISTRY.register_max_image_tokens(get_max_llava_image_tokens)
@INPUT_REGISTRY.register_dummy_data(dummy_data_for_llava)
@INPUT_REGISTRY.register_input_processor(input_processor_for_llava)
class LlavaForConditionalGeneration(nn.Module, SupportsMultiModal):
    """LLaVA-1.5 and models of its shape.

    Parameters
    ----------
    config
        A LlavaConfig.
    multimodal_config
        The limits of the engine.
    cache_config, quant_config
        For the language model.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        multimodal_config: MultiModalConfig | None = None,
        cache_config: CacheConfig | None = None,
        quant_config: object = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.multimodal_config = multimodal_config
        vision_config = config.vision_config
        self._feature_states = resolve_feature_layers(
            config.vision_feature_layer, vision_config.num_hidden_layers
        )
        self._drops_first_row = drops_first_row(config)
        self.vision_tower = init_vision_tower(config)
        self.multi_modal_projector = init_projector(config)
        self.language_model: Any = init_mmcore_registered_model(
            config.text_config,
            cache_config,
            quant_config,
            tie_word_embeddings=self.ties_word_embeddings(config),
            prefix="language_model",
        )

    @staticmethod
    def ties_word_embeddings(config: PretrainedConfig) -> bool:
        """Tell whether the output head is the embedding table: either configuration may say so."""
        return bool(
            getattr(config, "tie_word_embeddings", False)
            or getattr(config.text_config, "tie_word_embeddings", False)
        )

    def get_language_model(self) -> nn.Module:
        """Give the language model."""
        model: nn.Module = self.language_model
        return model

    def embed_multimodal(
        self,
        *,
        pixel_values: NestedTensors | None = None,
        image_embeds: NestedTensors | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """Encode images.

        Parameters
        ----------
        pixel_values
            [..., 3, S, S], nested in any way.
        image_embeds
            Embeddings instead of images: [..., rows, hidden], nested in any way. They need neither
            tower nor projector.

        Returns
        -------
        list of Tensor
            [rows, hidden] for each image.

        Raises
        ------
        ValueError
            If both or none are given, or a shape is wrong.
        """
        if (pixel_values is None) == (image_embeds is None):
            raise ValueError("Give either pixel_values or image_embeds.")
        if image_embeds is not None:
            return split_image_embeds(image_embeds)
        assert pixel_values is not None
        pixels = stack_images(pixel_values, self.config.vision_config.image_size)
        features = self.image_features(pixels)
        items, rows, _ = features.shape
        if not self._drops_first_row:
            return list(self.multi_modal_projector(features).unbind(0))
        if not self.multi_modal_projector.is_fused_for(features):
            return list(self.multi_modal_projector(features[:, 1:]).unbind(0))
        # The projector leaves the first row of each image out, so that nothing is copied.
        kept = rows - 1
        device = features.device
        targets = torch.arange(-1, kept, device=device) + torch.arange(
            0, items * kept, kept, device=device
        ).unsqueeze(1)
        targets[:, 0] = -1
        out = features.new_empty(items * kept, self.config.text_config.hidden_size)
        self.multi_modal_projector(features, out=out, rows=targets.view(-1))
        return list(out.view(items, kept, -1).unbind(0))

    def fixed_media_input(self) -> FixedMediaInput:
        """Tell that all pictures have one shape, so that CUDA graphs may encode them."""
        side = self.config.vision_config.image_size
        return FixedMediaInput("pixel_values", (1, 3, side, side))

    def image_features(self, pixels: Tensor) -> Tensor:
        """Give the tower's features of [N, 3, S, S], all rows: [N, rows, layers * width]."""
        pixels = pixels.to(self.multi_modal_projector.linear_1.weight.dtype)
        states = self.vision_tower.hidden_states(pixels, self._feature_states)
        return states[0] if len(states) == 1 else torch.cat(states, dim=-1)

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Sequence[Tensor] | None = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """Embed tokens, taking the rows of images from their embeddings.

        Parameters
        ----------
        input_ids
            int [T].
        multimodal_embeddings
            Tensors [rows, hidden] in the prompt's order.
        is_multimodal
            bool [T]: the tokens that stand for images; by the placeholder's id when left out.

        Returns
        -------
        Tensor
            [T, hidden].
        """
        if is_multimodal is None:
            is_multimodal = input_ids == self.config.image_token_index
        table = self.language_model.get_input_embeddings()
        return embed_with_media(table, input_ids, multimodal_embeddings, is_multimodal)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        kv_caches: list[Tensor],
        attn_metadata: AttentionMetadata,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Run the language model over text and images.

        Parameters
        ----------
        input_ids
            int [T], placeholders expanded.
        positions
            int64 [T].
        kv_caches
            One a layer of the language model.
        inputs_embeds
            [T, hidden]: embeddings that are merged already. Then there are no `kwargs`.
        **kwargs
            The arguments of :meth:`embed_multimodal`, for the images whose placeholders are in
            `input_ids`, all of them.

        Returns
        -------
        Tensor
            [T, hidden].
        """
        media = {name: value for name, value in kwargs.items() if value is not None}
        if inputs_embeds is None and media:
            embeddings = self.embed_multimodal(**media)
            placeholder = self.config.image_token_index
            table = self.language_model.get_input_embeddings()
            # A placeholder may lie outside of the language model's vocabulary.
            ids = input_ids.masked_fill(input_ids == placeholder, 0)
            inputs_embeds = merge_multimodal_embeddings(
                input_ids, table(ids), embeddings, placeholder
            )
        hidden: Tensor = self.language_model(
            input_ids,
            positions,
            kv_caches,
            attn_metadata,
            intermediate_tensors,
            inputs_embeds=inputs_embeds,
        )
        return hidden

    def compute_logits(
        self, hidden_states: Tensor, sampling_metadata: SamplingMetadata | None
    ) -> Tensor:
        """Give the logits [S, vocabulary] of the rows that are sampled, or of all."""
        logits: Tensor = self.language_model.compute_logits(hidden_states, sampling_metadata)
        return logits

    def sample(self, logits: Tensor, sampling_metadata: SamplingMetadata) -> SamplerOutput | None:
        """Sample one token a row of logits."""
        output: SamplerOutput | None = self.language_model.sample(logits, sampling_metadata)
        return output

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load a checkpoint's tensors, under the hub's names or those of transformers 5."""
        return AutoWeightsLoader(self).load_weights(weights, mapper=LLAVA_WEIGHTS_MAPPER)
