"""The safetensors files of a checkpoint: their headers, checked before any tensor is used.

A file is an 8-byte header length, a JSON header and the tensors' bytes. Everything that the header
says is compared with the file's size first, so that a truncated or hostile file is refused by name
instead of being mapped. Nothing here can run code that a file holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcore.errors import CheckpointError

__all__ = ["TensorInfo", "find_safetensors", "read_header", "read_headers"]

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

_HEADER_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit

_DTYPE_BYTES: Mapping[str, int] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a header says of one tensor.

    Parameters
    ----------
    dtype
        As safetensors names it: F32, BF16, ...
    nbytes
        Bytes in the file.
    file
        The file that holds it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: Path


def find_safetensors(folder: Path) -> list[Path]:
    """List the files of a checkpoint: those of the index, or the single one, or all there are.

    Raises
    ------
    CheckpointError
        If there are none, or one that the index names is missing.
    """
    index = folder / INDEX_NAME
    if index.is_file():
        names = sorted(set(_read_index(index).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(
                f"{index} names {len(missing)} files that are not there: {', '.join(missing[:3])}. "
                "The download is incomplete; fetch the missing files."
            )
        return [folder / name for name in names]
    single = folder / SINGLE_NAME
    if single.is_file():
        return [single]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"The model folder {str(folder)!r} holds no *.safetensors files. Other formats are not "
            "read, since loading them can run code; convert the checkpoint with "
            "save_pretrained(..., safe_serialization=True)."
        )
    return files


def read_headers(folder: Path) -> dict[str, TensorInfo]:
    """Read and check all headers of a checkpoint.

    Returns
    -------
    dict
        Every tensor by name.

    Raises
    ------
    CheckpointError
        If a file is truncated or malformed, two files have the same tensor, or the index and the
        files disagree.
    """
    tensors: dict[str, TensorInfo] = {}
    for path in find_safetensors(folder):
        for name, info in read_header(path).items():
            if name in tensors:
                raise CheckpointError(
                    f"The tensor {name!r} is in {tensors[name].file.name} and in {path.name} of "
                    f"{str(folder)!r}; a checkpoint must have each tensor once."
                )
            tensors[name] = info
    index = folder / INDEX_NAME
    if index.is_file():
        for name, file_name in _read_index(index).items():
            if name not in tensors or tensors[name].file.name != file_name:
                raise CheckpointError(
                    f"{index} says that {name!r} is in {file_name}, but it is not there."
                )
    return tensors


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read and check the header of one file.

    Raises
    ------
    CheckpointError
        If the header or the offsets in it do not fit the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_HEADER_LENGTH_BYTES)
        length = int.from_bytes(prefix, "little")
        data_start = _HEADER_LENGTH_BYTES + length
        if len(prefix) < _HEADER_LENGTH_BYTES or data_start > size or length > _MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{path} is no safetensors file, or was cut off: its header should have {length} "
                f"bytes, the file has {size}."
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise CheckpointError(f"{path} has a header that is no JSON: {error}.") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has a header that is no JSON object.")
    header.pop("__metadata__", None)

    tensors = {}
    reached = 0
    spans = []
    for name, entry in header.items():
        info, begin, end = _read_entry(path, name, entry)
        tensors[name] = info
        spans.append((begin, end, name))
    for begin, end, name in sorted(spans):
        if begin != reached:
            raise CheckpointError(
                f"{path}: the tensor {name!r} begins at byte {begin} of the data, expected "
                f"{reached}: tensors overlap or leave a gap."
            )
        reached = end
    if reached != size - data_start:
        raise CheckpointError(
            f"{path}: the header describes {reached} bytes of tensors, the file holds "
            f"{size - data_start}; it was cut off or damaged, fetch it again."
        )
    return tensors


def _read_entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{path}: malformed entry of the tensor {name!r}: {entry!r}."
        ) from None
    if dtype not in _DTYPE_BYTES:
        raise CheckpointError(
            f"{path}: the tensor {name!r} has dtype {dtype!r}, which is not supported; known are "
            f"{', '.join(_DTYPE_BYTES)}."
        )
    expected = math.prod(shape) * _DTYPE_BYTES[dtype]
    if end - begin != expected:
        raise CheckpointError(
            f"{path}: the tensor {name!r} of {dtype} {shape} needs {expected} bytes, its entry "
            f"has {end - begin}."
        )
    return TensorInfo(name, dtype, tuple(shape), expected, path), begin, end


def _read_index(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        entries = dict(weight_map.items())
        if not entries or not all(isinstance(value, str) for value in entries.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{index} is malformed: expected a JSON object whose weight_map maps tensors to files."
        ) from None
    for name in entries.values():
        # Names come from a download: they must not lead out of the folder.
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} names {name!r}, which is no safetensors file of this folder."
            )
    return entries
