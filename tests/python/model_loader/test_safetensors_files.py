"""Headers are checked before a file is used. Layer: unit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmcore.errors import CheckpointError
from mmcore.model_executor.model_loader.safetensors_files import (
    find_safetensors,
    read_header,
    read_headers,
)


def write(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path)
    return path


def write_raw(path: Path, header: Any, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_header_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "model.safetensors",
        a=torch.zeros(2, 3),
        b=torch.zeros(4, dtype=torch.bfloat16),
        c=torch.zeros(0, 5),
    )
    found = read_headers(tmp_path)
    assert {name: (t.dtype, t.shape, t.nbytes) for name, t in found.items()} == {
        "a": ("F32", (2, 3), 24),
        "b": ("BF16", (4,), 8),
        "c": ("F32", (0, 5), 0),
    }
    assert found["a"].file == path


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{not json", b"", "no JSON"),
        ([1], b"", "no JSON object"),
        ({"a": entry()}, b"1234567", "describes 8 bytes of tensors, the file holds 7"),
        ({"a": entry()}, b"123456789", "describes 8 bytes of tensors, the file holds 9"),
        ({"a": entry(offsets=(0, 4))}, b"1234", r"'a' of F32 \[2\] needs 8 bytes, its entry has 4"),
        ({"a": entry(), "b": entry(offsets=(4, 12))}, b"1" * 12, "'b' begins at byte 4.*overlap"),
        ({"a": entry(), "b": entry(offsets=(9, 17))}, b"1" * 17, "'b' begins at byte 9.*gap"),
        ({"a": entry(dtype="F8_E4M3", offsets=(0, 2))}, b"12", "dtype 'F8_E4M3'"),
        ({"a": entry(shape=(-2,))}, b"1" * 8, "malformed entry of the tensor 'a'"),
        ({"a": entry(shape=(True,))}, b"1" * 8, "malformed entry"),
        ({"a": entry(offsets=(8, 0))}, b"1" * 8, "needs 8 bytes"),
        ({"a": entry(shape=(1 << 62, 1 << 62))}, b"1" * 8, "needs .* bytes"),
        ({"a": {"dtype": "F32"}}, b"", "malformed entry"),
        ({"a": 3}, b"", "malformed entry"),
    ],
)
def test_damaged_headers_are_refused(
    tmp_path: Path, header: Any, data: bytes, message: str
) -> None:
    path = write_raw(tmp_path / "x.safetensors", header, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("size", [0, 5, 8, 60])
def test_cut_off_files_are_refused(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "x.safetensors", a=torch.zeros(40))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="was cut off"):
        read_header(path)


def test_a_huge_header_length_is_refused_without_reading(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((1 << 63).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="should have 9223372036854775808 bytes"):
        read_header(path)


def index(folder: Path, weight_map: Any) -> None:
    content = weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(content)


def test_sharded_files_are_found_through_the_index(tmp_path: Path) -> None:
    write(tmp_path / "m-2.safetensors", b=torch.zeros(1))
    write(tmp_path / "m-1.safetensors", a=torch.zeros(1))
    write(tmp_path / "left-over.safetensors", a=torch.zeros(1))
    index(tmp_path, {"b": "m-2.safetensors", "a": "m-1.safetensors"})
    assert [p.name for p in find_safetensors(tmp_path)] == ["m-1.safetensors", "m-2.safetensors"]
    assert set(read_headers(tmp_path)) == {"a", "b"}


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "m.safetensors", "b": "gone.safetensors"}, "1 files that are not there: gone"),
        ({"a": "../m.safetensors"}, "no safetensors file of this folder"),
        ({"a": "/etc/passwd"}, "no safetensors file of this folder"),
        ({"a": "weights.bin"}, "no safetensors file of this folder"),
        ({"a": 3}, "is malformed"),
        ({}, "is malformed"),
        ("[]", "is malformed"),
        ("{", "is malformed"),
        ({"other": "m.safetensors"}, "says that 'other' is in m.safetensors, but it is not there"),
    ],
)
def test_bad_indices_are_refused(tmp_path: Path, weight_map: Any, message: str) -> None:
    write(tmp_path / "m.safetensors", a=torch.zeros(1))
    index(tmp_path, weight_map)
    with pytest.raises(CheckpointError, match=message):
        read_headers(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "one.safetensors", a=torch.zeros(1))
    write(tmp_path / "two.safetensors", a=torch.zeros(1))
    with pytest.raises(CheckpointError, match=r"'a' is in one\.safetensors and in two"):
        read_headers(tmp_path)


def test_other_formats_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors files"):
        read_headers(tmp_path)
