"""mmcore._C.media: content ids. Layer: bindings."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mmcore import _C
from mmcore.multimodal.items import content_id


@pytest.mark.parametrize("frames", [[], [b""], [b"a", b"bc"], [b"ab", b"c"], [b"x" * 100_000]])
def test_equals_the_python_form(frames: list[bytes]) -> None:
    made = _C.media.content_id(frames)
    assert made == content_id(frames)
    assert len(made) == 32


def test_frames_are_framed_by_their_length() -> None:
    assert _C.media.content_id([b"a", b"bc"]) != _C.media.content_id([b"ab", b"c"])
    digest = hashlib.sha256((1).to_bytes(8, "little") + b"a").digest()
    assert _C.media.content_id([b"a"]) == digest


def test_takes_text_and_buffers() -> None:
    array = np.arange(12, dtype=np.uint8)
    assert _C.media.content_id(["é", array, bytearray(b"z")]) == _C.media.content_id(
        ["é".encode(), array.tobytes(), b"z"]
    )


def test_refuses_what_has_no_contiguous_bytes() -> None:
    with pytest.raises(TypeError):
        _C.media.content_id([3])
    with pytest.raises(ValueError, match="contiguous"):
        _C.media.content_id([np.zeros((4, 4), np.uint8)[:, ::2]])


def test_a_content_id_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        _C.MediaItem(_C.MediaKind.IMAGE, b"short", 0, 1)
