"""The arithmetic of LLaVA-NeXT's tiles: pure functions of sizes, with the floats of Hugging Face.

An image is resized to fit the best of several resolutions, padded, and cut into tiles of the
tower's size. Patches that show padding are dropped again ("unpad"), and a newline follows each row:

    tiles of g x g patches          unpadded, with newlines
    +-----+-----+                   . . . . . . n
    |     |     |  rows = 2 g   ->  . . . . . . n       behind the base image's g * g patches
    +-----+-----+                   . . . . . . n

One rounding error here and placeholders no longer fit the embeddings, so the order of operations
and the rounding to 7 digits are kept as they are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["UnpaddedGrid", "select_best_resolution", "tile_grid", "unpadded_grid"]


@dataclass(frozen=True, slots=True)
class UnpaddedGrid:
    """The patches that show the image, within the grid of all tiles' patches.

    Parameters
    ----------
    top, left
        First row and column.
    rows, columns
        How many.
    """

    top: int
    left: int
    rows: int
    columns: int

    @property
    def num_tokens(self) -> int:
        """Patches, and a newline a row."""
        return self.rows * (self.columns + 1)


def select_best_resolution(
    height: int, width: int, pinpoints: Sequence[Sequence[int]]
) -> tuple[int, int]:
    """Choose the resolution (height, width) that keeps most pixels, then wastes fewest.

    The first one wins a tie.
    """
    best, most, least = (0, 0), -1, 0
    for target_height, target_width in pinpoints:
        scale = min(target_width / width, target_height / height)
        effective = min(int(width * scale) * int(height * scale), height * width)
        wasted = target_height * target_width - effective
        if effective > most or (effective == most and wasted < least):
            best, most, least = (target_height, target_width), effective, wasted
    return best


def tile_grid(
    height: int, width: int, pinpoints: Sequence[Sequence[int]], tile: int
) -> tuple[int, int]:
    """Count the tiles (rows, columns) that an image is cut into."""
    best_height, best_width = select_best_resolution(height, width, pinpoints)
    return best_height // tile, best_width // tile


def unpadded_grid(height: int, width: int, grid_rows: int, grid_columns: int) -> UnpaddedGrid:
    """Find the patches that show the image.

    Parameters
    ----------
    height, width
        The original image's.
    grid_rows, grid_columns
        Patches of all tiles.
    """
    if width / height > grid_columns / grid_rows:
        kept = int(round(height * (grid_columns / width), 7))
        padding = (grid_rows - kept) // 2
        return UnpaddedGrid(padding, 0, grid_rows - 2 * padding, grid_columns)
    kept = int(round(width * (grid_rows / height), 7))
    padding = (grid_columns - kept) // 2
    return UnpaddedGrid(0, padding, grid_rows, grid_columns - 2 * padding)
