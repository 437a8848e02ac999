"""Unit: splitting media into items, and content ids that differ exactly when content does."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BatchFeature

from mmcore.multimodal.decode import decode_image
from mmcore.multimodal.items import (
    MediaItemData,
    content_id,
    content_key,
    count_items,
    split_items,
)

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def kinds(data: Any) -> list[tuple[str, int, str]]:
    return [(item.modality, item.index, item.kind) for item in split_items(data)]


def id_of(data: Any, config: str = "", kwargs: Any = None, modality: str = "image") -> bytes:
    (item,) = split_items({modality: data})
    return content_id(content_key(item, config, kwargs))


def test_lists_have_one_item_an_element() -> None:
    image = Image.fromarray(PIXELS)
    assert kinds({"image": [image, PIXELS], "audio": (np.zeros(3), 16000)}) == [
        ("image", 0, "image"),
        ("image", 1, "image"),
        ("audio", 0, "audio"),
    ]
    assert kinds({"image": []}) == []
    assert kinds({"image": image}) == [("image", 0, "image")]
    assert kinds({"video": np.zeros((2, 4, 4, 3), np.uint8)}) == [("video", 0, "video")]


def test_embeddings() -> None:
    stacked = torch.rand(3, 5, 7)
    items = split_items({"image": stacked})
    assert [(i.index, i.kind, i.data.shape) for i in items] == [
        (n, "embeds", (1, 5, 7)) for n in range(3)
    ]
    assert torch.equal(items[1].data[0], stacked[1])
    assert kinds({"image": torch.rand(5, 7)}) == [("image", 0, "embeds")]
    ragged = split_items({"image": [torch.rand(1, 5, 7), torch.rand(1, 4, 7)]})
    assert [i.data.shape for i in ragged] == [(1, 5, 7), (1, 4, 7)]


def test_what_only_the_mapper_knows_is_one_item() -> None:
    embeds = {"image_embeds": torch.rand(8, 7), "image_grid_thw": torch.ones(2, 3)}
    features = BatchFeature({"pixel_values": torch.rand(2, 3)})
    assert kinds({"image": embeds}) == [("image", 0, "opaque")]
    assert kinds({"image": features}) == [("image", 0, "opaque")]
    assert kinds({"smell": "rose"}) == [("smell", 0, "opaque")]


@pytest.mark.parametrize(
    "value", [[1, 2, 3], [], PIXELS, torch.rand(4, 2, 2), torch.rand(4, 2), {"a": 1}, (1, 2)]
)
def test_count_is_that_of_the_split(value: Any) -> None:
    assert count_items("image", value) == len(split_items({"image": value}))


def test_id_is_a_hash_of_length_framed_pieces() -> None:
    frames = [b"ab", b"", b"c"]
    expected = hashlib.sha256()
    for frame in frames:
        expected.update(len(frame).to_bytes(8, "little") + frame)
    assert content_id(frames) == expected.digest()
    assert len(content_id([])) == 32
    assert content_id([b"ab", b"c"]) != content_id([b"a", b"bc"]) != content_id([b"abc"])


def test_the_core_gives_the_same_id() -> None:
    media = pytest.importorskip("mmcore._C", reason="needs the compiled extension").media
    (item,) = split_items({"image": PIXELS})
    for frames in ([], [b""], [b"ab", b"", b"c"], content_key(item, "config", {"k": 1})):
        assert media.content_id(frames) == content_id(frames)


def test_same_pixels_in_other_containers() -> None:
    image = Image.fromarray(PIXELS)
    png = io.BytesIO()
    image.save(png, "PNG")
    same = {
        id_of(image),
        id_of(image.copy()),
        id_of(PIXELS),
        id_of(np.asfortranarray(PIXELS)),
        id_of([image]),
        id_of(Image.open(png)),
        id_of(decode_image(png.getvalue())),
    }
    assert len(same) == 1


def test_arrays_are_hashed_in_place() -> None:
    (item,) = split_items({"image": PIXELS})
    (pixels,) = (piece for piece in content_key(item) if isinstance(piece, memoryview))
    assert bytes(pixels) == PIXELS.tobytes()
    assert np.shares_memory(np.frombuffer(pixels, dtype=np.uint8), PIXELS)


@pytest.mark.parametrize("shape", [(0, 3), (), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float32", "bool", "complex64", "datetime64[s]", "U3"])
def test_any_array_has_an_id(shape: tuple[int, ...], dtype: str) -> None:
    array = np.zeros(shape, dtype=dtype)
    assert id_of({"x": array}) == id_of({"x": array.copy(order="F")})
    assert id_of({"x": array}) != id_of({"x": array[None]})


def test_grey_arrays_with_and_without_a_channel() -> None:
    grey = PIXELS[:, :, 0]
    assert id_of(grey) == id_of(grey[:, :, None]) == id_of(Image.fromarray(grey))


def with_orientation(value: int) -> Image.Image:
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = value
    return image


def palette(colours: list[int]) -> Image.Image:
    image = Image.frombytes("P", (2, 2), bytes([0, 1, 1, 0]))
    image.putpalette(colours)
    return image


def transparent(value: int) -> Image.Image:
    image = palette([0, 0, 0, 255, 255, 255])
    image.info["transparency"] = value
    return image


DIFFERENT: list[Any] = [
    PIXELS,
    PIXELS[:, :, ::-1],
    PIXELS.reshape(6, 4, 3),
    PIXELS.astype(np.int16),
    Image.frombytes("YCbCr", (6, 4), PIXELS.tobytes()),
    with_orientation(3),
    with_orientation(6),
    Image.fromarray(PIXELS).convert("RGBA"),
    palette([0, 0, 0, 255, 255, 255]),
    palette([0, 0, 0, 255, 255, 254]),
    transparent(0),
    transparent(1),
    Image.frombytes("L", (2, 2), bytes([0, 1, 1, 0])),
    torch.zeros(2, 2),
    torch.zeros(4, 1),
    torch.zeros(2, 2, dtype=torch.float64),
    torch.zeros(2, 4, dtype=torch.bfloat16),
    torch.ones(2, 2),
    {"image_embeds": torch.zeros(2, 2)},
    {"image_embeds": torch.ones(2, 2)},
    {"image_grid": torch.zeros(2, 2)},
    {"image_embeds": [torch.zeros(2, 2)]},
    "rose",
    b"rose",
    1,
    1.0,
    True,
    (1, (2, 3)),
    ((1, 2), 3),
]


def test_different_content_has_different_ids() -> None:
    ids = [id_of(value) for value in DIFFERENT]
    assert len(set(ids)) == len(ids)
    assert ids == [id_of(value) for value in DIFFERENT]


def test_what_the_model_makes_of_it_counts() -> None:
    ids = [
        id_of(PIXELS),
        id_of(PIXELS, '{"size":336}'),
        id_of(PIXELS, '{"size":448}'),
        id_of(PIXELS, "", {"num_crops": 4}),
        id_of(PIXELS, "", {"num_crops": 16}),
        id_of(PIXELS, modality="smell"),
    ]
    assert len(set(ids)) == len(ids)
    assert id_of(PIXELS, "", {"a": 1, "b": 2}) == id_of(PIXELS, "", {"b": 2, "a": 1})
    assert id_of(PIXELS, "", {}) == id_of(PIXELS, "", None)


def test_place_among_the_items_does_not_count() -> None:
    first, second = split_items({"image": [PIXELS, PIXELS]})
    assert content_key(first) == content_key(second)


def test_equal_batches_of_features() -> None:
    def features() -> BatchFeature:
        return BatchFeature({"pixel_values": torch.ones(2, 3), "sizes": [[1, 2]]})

    assert id_of(features()) == id_of(features())


def test_what_cannot_be_read_equals_nothing() -> None:
    item = MediaItemData("image", 0, object(), "opaque")
    assert content_id(content_key(item)) != content_id(content_key(item))
