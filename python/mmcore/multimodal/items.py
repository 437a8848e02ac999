"""Splitting a prompt's media into items, and naming each item by its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, Union

from mmcore.multimodal.base import MultiModalDataDict

__all__ = ["MediaItemData", "content_id", "content_key", "count_items", "split_items"]

ItemKind = Literal["image", "audio", "video", "embeds", "opaque"]

Piece: TypeAlias = Union[bytes, memoryview]  # noqa: UP007


@dataclass(frozen=True, slots=True)
class MediaItemData:
    """One item of a prompt's media.

    Parameters
    ----------
    modality
        Its key in ``multi_modal_data``.
    index
        Its place among the items of that modality.
    data
        The item itself.
    kind
        What the data are; ``"opaque"`` where only the model's mapper knows.
    """

    modality: str
    index: int
    data: Any
    kind: ItemKind


def split_items(data: MultiModalDataDict) -> list[MediaItemData]:
    """Split media into items.

    A list has one item an element; a tensor of embeddings with three dimensions (items, rows,
    hidden) has one item an entry of the first; everything else is one item.
    """
    return [
        MediaItemData(modality, index, item, _kind_of(modality, item))
        for modality, value in data.items()
        for index, item in enumerate(_split(modality, value))
    ]


def count_items(modality: str, value: object) -> int:
    """Count the items that :func:`split_items` would make of one modality's data."""
    return len(value) if isinstance(value, list) else len(_split(modality, value))


def _split(modality: str, value: Any) -> Sequence[Any]:
    if isinstance(value, list):
        return value
    if _is_tensor(value) and value.ndim == 3:
        # Each keeps the leading dimension: mappers know one item as (1, rows, hidden).
        return [value[i : i + 1] for i in range(len(value))]
    return [value]


def _is_tensor(value: object) -> bool:
    import sys

    # Data can only be a tensor if somebody imported torch.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _kind_of(modality: str, item: Any) -> ItemKind:
    if _is_tensor(item):
        return "embeds"
    if modality == "image" and _is_pil_or_array(item):
        return "image"
    if modality == "video" and _is_array(item):
        return "video"
    if modality == "audio" and isinstance(item, tuple) and len(item) == 2 and _is_array(item[0]):
        return "audio"
    return "opaque"


def _is_array(value: object) -> bool:
    import numpy as np

    return isinstance(value, np.ndarray)


def _is_pil_or_array(value: object) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image) or _is_array(value)


def content_key(
    item: MediaItemData,
    processor_config: str = "",
    mm_processor_kwargs: Mapping[str, Any] | None = None,
) -> list[Piece]:
    """Give the pieces that an item's content id is the hash of; of arrays they are views.

    In order: kind, dtype, shape, mode, content, processor configuration, processor options. Two
    items have the same pieces only if a model cannot tell them apart: the same pixels with another
    mode, palette or orientation, or prepared by another configuration, are another item.

    Parameters
    ----------
    item
        The item.
    processor_config
        The processor's configuration, as text.
    mm_processor_kwargs
        The options that the item is prepared with.
    """
    options = json.dumps(
        mm_processor_kwargs or {}, sort_keys=True, separators=(",", ":"), default=repr
    )
    return [
        f"{item.modality}/{item.kind}".encode(),
        *_content_pieces(item.data),
        processor_config.encode(),
        options.encode(),
    ]


def content_id(frames: Sequence[Piece]) -> bytes:
    """Hash pieces, each with its length in front so that no two lists of pieces look alike.

    The core's ``mmcore::content_id`` gives the same 32 bytes.
    """
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(len(frame).to_bytes(8, "little"))
        digest.update(frame)
    return digest.digest()


def _content_pieces(data: Any) -> list[Piece]:
    """Give dtype, shape, mode and content of anything that can be an item."""
    from PIL import Image

    if isinstance(data, Image.Image):
        return _image_pieces(data)
    if _is_array(data):
        # An array of pixels is the same image as a Pillow image of these pixels.
        mode = _ARRAY_MODES.get(data.shape[2:], "") if data.dtype == "uint8" else ""
        shape = data.shape[:2] if mode == "L" else data.shape
        return [data.dtype.str.encode(), repr(shape).encode(), mode.encode(), _bytes_of(data)]
    if _is_tensor(data):
        import torch

        flat = data.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        shape = tuple(data.shape)
        return [str(data.dtype).encode(), repr(shape).encode(), b"", _bytes_of(flat.numpy())]
    # Anything else: a dictionary, a tuple, a batch of features.
    digest = hashlib.sha256()
    for piece in _walk(data):
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return [type(data).__name__.encode(), b"", b"", digest.digest()]


def _bytes_of(array: Any) -> Piece:
    """Give an array's bytes in C order, without a copy where they lie so already."""
    import numpy as np

    if array.dtype.hasobject:
        return bytes(array.tobytes())
    view: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return view


_ARRAY_MODES: Mapping[tuple[int, ...], str] = {(): "L", (1,): "L", (3,): "RGB", (4,): "RGBA"}


def _image_pieces(image: Any) -> list[Piece]:
    from mmcore.multimodal.decode import exif_orientation

    bands = len(image.getbands())
    shape = (image.height, image.width) + ((bands,) if bands > 1 else ())
    mode = str(image.mode)
    orientation = exif_orientation(image)
    if orientation != 1:
        mode += f" orientation={orientation}"
    if image.mode in ("P", "PA"):
        mode += f" palette={bytes(image.getpalette('RGBA') or []).hex()}"
    transparency = image.info.get("transparency")
    if transparency is not None:
        mode += f" transparency={transparency!r}"
    dtype = b"<u2" if image.mode.startswith("I;16") else b"|u1"
    return [dtype, repr(shape).encode(), mode.encode(), image.tobytes()]


def _walk(value: Any) -> Iterator[Piece]:
    """Give the pieces of a nested value; each begins with what it is."""
    if value is None or isinstance(value, (bool, int, float, str)):
        yield f"{type(value).__name__}:{value!r}".encode()
    elif isinstance(value, (bytes, bytearray)):
        yield b"bytes"
        yield bytes(value)
    elif isinstance(value, Mapping):
        yield f"mapping:{len(value)}".encode()
        for key in sorted(value, key=repr):
            yield repr(key).encode()
            yield from _walk(value[key])
    elif isinstance(value, (list, tuple)):
        yield f"sequence:{len(value)}".encode()
        for child in value:
            yield from _walk(child)
    elif _is_tensor(value) or _is_pil_or_array(value):
        yield b"array"
        yield from _content_pieces(value)
    else:
        # What cannot be read cannot be compared: such an item equals no other.
        yield b"unique"
        yield os.urandom(32)
