"""LLaVA-NeXT: LLaVA that sees large images in tiles, besides the whole image made small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmcore.errors import CheckpointError, MediaError
from mmcore.inputs import INPUT_REGISTRY, InputContext, LLMInputs
from mmcore.model_executor.layers.parameter import empty_parameter
from mmcore.model_executor.models.anyres import (
    UnpaddedGrid,
    tile_grid,
    unpadded_grid,
)
from mmcore.model_executor.models.llava import (
    LlavaForConditionalGeneration,
    drops_first_row,
    split_image_embeds,
    tower_kind,
    tower_rows,
)
from mmcore.model_executor.models.vision_inputs import (
    dummy_images,
    dummy_seq_data,
    expand_image_placeholders,
    image_feature_sizes,
)
from mmcore.multimodal import MULTIMODAL_REGISTRY

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from mmcore.config import CacheConfig, MultiModalConfig
    from mmcore.multimodal import MultiModalDataDict, NestedTensors
    from mmcore.sequence import SequenceData

__all__ = ["LlavaNextForConditionalGeneration", "get_llava_next_image_feature_size"]


def _patch_grid_length(config: PretrainedConfig) -> int:
    """Count the patches along a tile's side, and check that the tower gives nothing else.

    Raises
    ------
    CheckpointError
        If rows that are no patches are kept, or patches are dropped.
    """
    vision = config.vision_config
    length: int = vision.image_size // vision.patch_size
    if tower_rows(vision) - drops_first_row(config) != length * length:
        raise CheckpointError(
            f"LLaVA-NeXT needs exactly the patches of a tile, but a {tower_kind(vision)} tower "
            f"with vision_feature_select_strategy={config.vision_feature_select_strategy!r} gives "
            "other rows; use 'default' with CLIP and 'full' with SigLIP."
        )
    return length


def _tiles_and_grid(
    config: PretrainedConfig, height: int, width: int
) -> tuple[int, int, UnpaddedGrid]:
    length = _patch_grid_length(config)
    rows, columns = tile_grid(
        height, width, config.image_grid_pinpoints, config.vision_config.image_size
    )
    return rows, columns, unpadded_grid(height, width, rows * length, columns * length)


def get_llava_next_image_feature_size(
    hf_config: PretrainedConfig, *, input_height: int, input_width: int
) -> int:
    """Count the tokens of an image of this size."""
    base = _patch_grid_length(hf_config) ** 2
    return base + _tiles_and_grid(hf_config, input_height, input_width)[2].num_tokens


def _largest_size(config: PretrainedConfig) -> tuple[int, int, int]:
    """Give tokens, height and width of the image with most tokens.

    An image of exactly one of the resolutions is not padded, so the largest is among those.
    """
    return max(
        (get_llava_next_image_feature_size(config, input_height=h, input_width=w), h, w)
        for h, w in config.image_grid_pinpoints
    )


def get_max_llava_next_image_tokens(ctx: InputContext) -> int:
    """Count the tokens of the image with most of them."""
    return _largest_size(ctx.get_hf_config())[0]


def dummy_data_for_llava_next(
    ctx: InputContext, seq_len: int, mm_counts: Mapping[str, int]
) -> tuple[SequenceData, MultiModalDataDict | None]:
    """Make the largest prompt: as many images as allowed, of the largest size, then text."""
    config = ctx.get_hf_config()
    tokens, height, width = _largest_size(config)
    num_images = mm_counts["image"]
    seq_data = dummy_seq_data(seq_len, num_images, tokens, config.image_token_index)
    if num_images == 0:
        return seq_data, None
    return seq_data, dummy_images(num_images, width=width, height=height)


def input_processor_for_llava_next(ctx: InputContext, llm_inputs: LLMInputs) -> LLMInputs:
    """Expand each image placeholder to the tokens of an image of its size."""
    data = llm_inputs.get("multi_modal_data")
    images = data.get("image") if data else None
    if images is None:
        return llm_inputs
    config = ctx.get_hf_config()

    def size_of(image: Any) -> int:
        height, width = _size_of_image(image)
        return get_llava_next_image_feature_size(config, input_height=height, input_width=width)

    return expand_image_placeholders(
        ctx.model_config,
        llm_inputs,
        image_token_id=config.image_token_index,
        feature_sizes=image_feature_sizes(
            images, size_of, hidden_size=config.text_config.hidden_size
        ),
    )


def _size_of_image(image: Any) -> tuple[int, int]:
    """Give height and width of a Pillow image or an array of pixels, as it will be seen."""
    from mmcore.multimodal.decode import is_image, normalize_image

    if not is_image(image):
        raise MediaError(
            "LLaVA-NeXT takes Pillow images, arrays of pixels, or embeddings, got "
            f"{type(image).__name__}."
        )
    upright = normalize_image(image)
    return upright.height, upright.width


@MULTIMODAL_REGISTRY.register_image_input_mapper()
@MULTIMODAL_REGISTRY.register_max_image_tokens(get_max_llava_next_image_tokens)
@INPUT_REGISTRY.register_dummy_data(dummy_data_for_llava_next)
@INPUT_REGISTRY.register_input_processor(input_processor_for_llava_next)
class LlavaNextForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA-NeXT (LLaVA-1.6).

    Parameters
    ----------
    config
        A LlavaNextConfig.
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
        _patch_grid_length(config)
        super().__init__(config, multimodal_config, cache_config, quant_config)
        self.image_newline = empty_parameter(config.text_config.hidden_size)

    @staticmethod
    def ties_word_embeddings(config: PretrainedConfig) -> bool:
        """Tell whether the output head is the embedding table: the outer configuration's word."""
        return bool(getattr(config, "tie_word_embeddings", False))

    def embed_multimodal(
        self,
        *,
        pixel_values: NestedTensors | None = None,
        image_sizes: NestedTensors | None = None,
        image_embeds: NestedTensors | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """Encode images.

        Parameters
        ----------
        pixel_values
            For each image its tiles, the whole image first: [..., 1 + tiles, 3, S, S], nested in
            any way. Tiles that only pad a batch are left out.
        image_sizes
            [..., 2]: height and width of the original images.
        image_embeds
            Embeddings instead of images: [..., rows, hidden], nested in any way.

        Returns
        -------
        list of Tensor
            [rows, hidden] for each image.

        Raises
        ------
        ValueError
            If both or none are given, a shape is wrong, or sizes and tiles disagree.
        """
        if (pixel_values is None) == (image_embeds is None):
            raise ValueError("Give either pixel_values or image_embeds.")
        if image_embeds is not None:
            return split_image_embeds(image_embeds)
        assert pixel_values is not None
        images = _split_tiles(pixel_values, self.config.vision_config.image_size)
        sizes = _split_sizes(image_sizes)
        if len(images) != len(sizes):
            raise ValueError(f"There are {len(images)} images, but image_sizes has {len(sizes)}.")

        tiles, targets, newlines, lengths, start = [], [], [], [], 0
        for image, (height, width) in zip(images, sizes, strict=True):
            rows, columns, grid = _tiles_and_grid(self.config, height, width)
            if image.shape[0] < 1 + rows * columns:
                raise ValueError(
                    "The number of patches is not consistent with the image size: an image of "
                    f"{width}x{height} has {1 + rows * columns} tiles, got {image.shape[0]}."
                )
            tiles.append(image[: 1 + rows * columns])
            layout = self._layout(rows, columns, grid)
            targets.append(torch.where(layout.targets < 0, -1, layout.targets + start))
            newlines.append(layout.newlines + start)
            lengths.append(layout.length)
            start += layout.length

        # The projector puts each patch where it belongs, and leaves out those that show padding.
        features = self.image_features(torch.cat(tiles))
        device = features.device
        out = features.new_empty(start, self.config.text_config.hidden_size)
        self.multi_modal_projector(features, out=out, rows=torch.cat(targets).view(-1).to(device))
        out[torch.cat(newlines).to(device)] = self.image_newline.to(out.dtype)
        return list(torch.split(out, lengths))

    def _layout(self, rows: int, columns: int, grid: UnpaddedGrid) -> _Layout:
        length = _patch_grid_length(self.config)
        return _lay_out(rows, columns, length, grid, int(self._drops_first_row))


class _Layout:
    """Where an image's features go.

    Attributes
    ----------
    targets
        int64 [1 + tiles, rows of the tower]: row in the image's embeddings, -1 for none.
    newlines
        int64: rows that hold a newline.
    length
        Rows in all.
    """

    __slots__ = ("length", "newlines", "targets")

    def __init__(self, targets: Tensor, newlines: Tensor, length: int) -> None:
        self.targets = targets
        self.newlines = newlines
        self.length = length


def _lay_out(
    tile_rows: int, tile_columns: int, length: int, grid: UnpaddedGrid, dropped: int
) -> _Layout:
    """Lay out the whole image, then the tiles' patches row by row with a newline after each row.

    Parameters
    ----------
    length
        Patches along a tile's side.
    dropped
        Rows before the patches of each tile that are left out.
    """
    base, stride = length * length, grid.columns + 1
    # Position of every patch within the part that shows the image; outside of it if negative or
    # too large.
    row = torch.arange(tile_rows * length).unsqueeze(1) - grid.top
    column = torch.arange(tile_columns * length) - grid.left
    inside = (row >= 0) & (row < grid.rows) & (column >= 0) & (column < grid.columns)
    place = torch.where(inside, base + row * stride + column, -1)
    # [tile row, patch row, tile column, patch column] -> patches by tile
    tiles = place.view(tile_rows, length, tile_columns, length).transpose(1, 2)
    patches = torch.cat([torch.arange(base).unsqueeze(0), tiles.reshape(-1, base)])
    targets = torch.nn.functional.pad(patches, (dropped, 0), value=-1)
    newlines = base + torch.arange(grid.rows) * stride + grid.columns
    return _Layout(targets, newlines, base + grid.num_tokens)


def _split_tiles(pixel_values: NestedTensors, tile: int) -> list[Tensor]:
    """Split images that are nested in any way into [1 + tiles, 3, S, S] each."""
    if not isinstance(pixel_values, Tensor):
        return [image for part in pixel_values for image in _split_tiles(part, tile)]
    if pixel_values.ndim < 4 or pixel_values.shape[-3:] != (3, tile, tile):
        expected = ("num_patches", "3", str(tile), str(tile))
        raise ValueError(
            f"The expected shape of pixel values per image is {expected}. "
            f"You supplied {tuple(pixel_values.shape)}."
        )
    return list(pixel_values.reshape(-1, *pixel_values.shape[-4:]).unbind(0))


def _split_sizes(image_sizes: NestedTensors | Sequence[Any] | None) -> list[tuple[int, int]]:
    """Give (height, width) of each image."""
    if image_sizes is None:
        raise ValueError("image_sizes must come with pixel_values.")
    if not isinstance(image_sizes, Tensor):
        return [size for part in image_sizes for size in _split_sizes(part)]
    if image_sizes.shape[-1:] != (2,):
        raise ValueError(
            "The expected shape of image sizes per image is ('2',). "
            f"You supplied {tuple(image_sizes.shape)}."
        )
    return [(int(height), int(width)) for height, width in image_sizes.reshape(-1, 2).tolist()]
