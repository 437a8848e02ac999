"""The arithmetic of tiles against transformers, for many sizes. Layer: pure functions."""

from __future__ import annotations

import random

import pytest
import torch
from transformers.image_processing_utils import select_best_resolution as hf_best
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

from mmcore.model_executor.models.anyres import select_best_resolution, tile_grid, unpadded_grid

pytestmark = pytest.mark.hf

PINPOINTS = {
    "llava-1.6": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "one tile": [[336, 336], [336, 672]],
    "onevision": [[384 * h, 384 * w] for h in range(1, 7) for w in range(1, 7)],
}
SEED = 2026


def sizes(count: int) -> list[tuple[int, int]]:
    rng = random.Random(SEED)
    found = [(1, 1), (1, 200), (200, 1), (336, 336), (672, 672), (1008, 336), (337, 671)]
    while len(found) < count:
        found.append((rng.randint(1, 1500), rng.randint(1, 1500)))
        side = rng.randint(1, 900)
        found.append((side, side + rng.randint(-1, 1) or 1))
    return found


@pytest.mark.parametrize("name", PINPOINTS)
def test_same_tiles_and_same_unpadded_patches(name: str) -> None:
    pinpoints = PINPOINTS[name]
    tile = 384 if name == "onevision" else 336
    length = tile // 14
    for height, width in sizes(2500):
        note = f"{height}x{width}, seed {SEED}"
        best = select_best_resolution(height, width, pinpoints)
        assert best == tuple(hf_best([height, width], pinpoints)), note
        rows, columns = tile_grid(height, width, pinpoints, tile)
        assert (rows, columns) == get_anyres_image_grid_shape((height, width), pinpoints, tile)
        assert 1 + rows * columns == image_size_to_num_patches((height, width), pinpoints, tile)
        grid = unpadded_grid(height, width, rows * length, columns * length)
        numbers = torch.arange(rows * columns * length**2).view(1, rows * length, columns * length)
        kept = unpad_image(numbers, (height, width))[0]
        assert (grid.rows, grid.columns) == tuple(kept.shape), note
        if kept.numel():
            assert int(kept[0, 0]) == grid.top * columns * length + grid.left, note


def test_tokens_count_a_newline_for_each_row() -> None:
    grid = unpadded_grid(448, 448, 48, 48)
    assert (grid.top, grid.left, grid.num_tokens) == (0, 0, 48 * 48 + 48)
