"""Unit: the orientation in EXIF data, written by Pillow and by hand."""

from __future__ import annotations

import random
import struct

import pytest
from PIL import Image

from mmcore.multimodal.exif import orientation_of


def tiff(order: str, *entries: tuple[int, int, int, int], directory: int = 8) -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(struct.pack(order + "HHIHxx", *entry) for entry in entries)
    return mark + struct.pack(order + "IH", directory, len(entries)) + body


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_pillow_writes(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    exif[0x0112] = orientation
    assert orientation_of(exif.tobytes()) == orientation


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders(order: str) -> None:
    entries = [(0x0100, 3, 1, 5), (0x0112, 3, 1, 6)]
    assert orientation_of(tiff(order, *entries)) == 6
    assert orientation_of(b"Exif\0\0" + tiff(order, *entries)) == 6


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"II*\0",
        b"\xff" * 100,
        tiff("<"),
        tiff("<", (0x0112, 3, 1, 0)),
        tiff("<", (0x0112, 3, 1, 99)),
        tiff("<", (0x0112, 4, 1, 6)),
        tiff("<", (0x0112, 3, 2, 6)),
        tiff("<", (0x0112, 3, 1, 6), directory=2**31),
        tiff("<", (0x0112, 3, 1, 6))[:-3],
    ],
)
def test_nonsense_is_upright(exif: bytes) -> None:
    assert orientation_of(exif) == 1


def test_random_bytes_never_raise() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(2000):
        data = rng.choice([b"II*\0", b"MM\0*"]) + rng.randbytes(rng.randrange(40))
        assert 1 <= orientation_of(data) <= 8
