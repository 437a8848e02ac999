"""LLaVA-NeXT against transformers in float32, for images of many shapes. Layer: model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny
from models.paged import run_whole

from mmcore.errors import CheckpointError
from mmcore.model_executor.models.anyres import tile_grid
from mmcore.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    get_llava_next_image_feature_size,
)

pytestmark = pytest.mark.hf

TOLERANCE = 1e-4
SIZES = [(56, 56), (200, 90), (91, 300), (1, 60), (60, 1), (112, 112), (57, 113), (500, 499)]
CONFIGS: dict[str, Any] = {
    "clip": lambda: tiny.llava_next_config(),
    "siglip, qwen2": lambda: tiny.llava_next_config(
        vision_config=tiny.siglip_config(),
        text_config=tiny.qwen2_config(),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    ),
    "two layers, one tile allowed": lambda: tiny.llava_next_config(
        vision_feature_layer=[-2, -3], image_grid_pinpoints=[[56, 56], [112, 112]]
    ),
}


@pytest.fixture(scope="module", params=CONFIGS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    return tiny.both(CONFIGS[request.param](), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(autouse=True)
def inference() -> Any:
    with torch.inference_mode():
        yield


def tiles_of(config: Any, size: tuple[int, int], seed: int) -> torch.Tensor:
    rows, columns = tile_grid(*size, config.image_grid_pinpoints, tiny.IMAGE_SIZE)
    generator = torch.Generator().manual_seed(seed)
    shape = (1 + rows * columns, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    return torch.randn(shape, generator=generator)


def hf_features(reference: Any, tiles: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    out = reference.get_image_features(
        pixel_values=tiles[None], image_sizes=torch.tensor([size])
    ).pooler_output
    features: torch.Tensor = out[0]
    return features


@pytest.mark.parametrize("size", SIZES)
def test_features_of_an_image(pair: tuple[Any, Any], size: tuple[int, int]) -> None:
    reference, model = pair
    tiles = tiles_of(model.config, size, seed=1)
    want = hf_features(reference, tiles, size)
    got = model.embed_multimodal(pixel_values=tiles[None, None], image_sizes=torch.tensor([[size]]))
    assert len(got) == 1
    assert tiny.worst(got[0], want) < TOLERANCE
    count = get_llava_next_image_feature_size(
        model.config, input_height=size[0], input_width=size[1]
    )
    assert len(got[0]) == count


def test_images_of_different_shapes_together(pair: tuple[Any, Any]) -> None:
    reference, model = pair
    sizes = SIZES[:4]
    images = [tiles_of(model.config, size, seed=i) for i, size in enumerate(sizes)]
    want = [hf_features(reference, *pair_) for pair_ in zip(images, sizes, strict=True)]
    most = max(len(tiles) for tiles in images)
    padded = torch.stack([torch.cat([t, torch.zeros(most - len(t), *t.shape[1:])]) for t in images])
    every = torch.tensor(sizes)
    for pixels, image_sizes in (
        (images, every),
        ([t[None] for t in images], every[:, None]),
        (padded, every),
        ([padded[:1], padded[1:]], [every[:1], every[1:]]),
    ):
        got = model.embed_multimodal(pixel_values=pixels, image_sizes=image_sizes)
        assert max(tiny.worst(g, w) for g, w in zip(got, want, strict=True)) < TOLERANCE


def test_logits_at_both_levels(pair: tuple[Any, Any]) -> None:
    reference, model = pair
    sizes = [(57, 113), (300, 91)]
    images = [tiles_of(model.config, size, seed=i) for i, size in enumerate(sizes)]
    features = model.embed_multimodal(pixel_values=images, image_sizes=torch.tensor(sizes))
    parts = [torch.tensor([5, 6])]
    for i, rows in enumerate(features):
        parts += [torch.full((len(rows),), tiny.IMAGE_TOKEN), torch.tensor([9 + i])]
    ids = torch.cat(parts)
    most = max(len(tiles) for tiles in images)
    padded = torch.stack([torch.cat([t, torch.zeros(most - len(t), *t.shape[1:])]) for t in images])
    want = reference(
        input_ids=ids[None], pixel_values=padded, image_sizes=torch.tensor(sizes)
    ).logits[0]
    assert want.abs().max() > 1
    seed_level = run_whole(model, ids, pixel_values=[padded], image_sizes=torch.tensor(sizes)[None])
    assert tiny.worst(seed_level, want) < TOLERANCE
    merged = model.embed_input_ids(ids, features, is_multimodal=ids == tiny.IMAGE_TOKEN)
    assert tiny.worst(run_whole(model, ids, inputs_embeds=merged), want) < TOLERANCE


def test_embeddings_instead_of_images(tmp_path: Path) -> None:
    _, model = tiny.both(tiny.llava_next_config(), tmp_path)
    embeds = torch.randn(2, 7, 96)
    got = model.embed_multimodal(image_embeds=[embeds[:1], embeds[1:]])
    assert torch.equal(torch.stack(got), embeds)


def test_sizes_and_tiles_must_agree(tmp_path: Path) -> None:
    _, model = tiny.both(tiny.llava_next_config(), tmp_path)
    tiles = torch.zeros(1, 2, 3, 56, 56)
    with pytest.raises(ValueError, match="not consistent with the image size"):
        model.embed_multimodal(pixel_values=tiles, image_sizes=torch.tensor([[112, 112]]))
    with pytest.raises(ValueError, match="1 images, but image_sizes has 2"):
        model.embed_multimodal(pixel_values=tiles, image_sizes=torch.ones(2, 2))
    with pytest.raises(ValueError, match="image_sizes must come with"):
        model.embed_multimodal(pixel_values=tiles)
    with pytest.raises(ValueError, match="expected shape of image sizes"):
        model.embed_multimodal(pixel_values=tiles, image_sizes=torch.ones(1, 3))
    with pytest.raises(ValueError, match="expected shape of pixel values"):
        model.embed_multimodal(pixel_values=tiles[0, 0], image_sizes=torch.ones(1, 2))


def test_a_tower_that_gives_other_rows_than_patches_is_refused() -> None:
    with pytest.raises(CheckpointError, match="'default' with CLIP and 'full' with SigLIP"):
        LlavaNextForConditionalGeneration(
            tiny.llava_next_config(vision_feature_select_strategy="full")
        )
