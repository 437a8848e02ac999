"""Pictures as transformers' CLIP processor prepares them with Pillow: equal in every bit."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native.pillow import OTHER_ORDER, REASON
from native.programs import BUNDLED, run
from PIL import Image

pytestmark = [
    pytest.mark.hf,
    pytest.mark.skipif(OTHER_ORDER, reason=REASON),
]

SEED = 11
SIZES = [
    *[(1, 1), (1, 7), (1, 300), (300, 1), (2, 3), (3, 3), (13, 900), (1000, 37)],  # tiny and thin
    *[(112, 112), (111, 113), (56, 57), (224, 224)],  # near the model's own size
    *[(640, 480), (479, 641), (1280, 720), (70, 325)],
]


def prepare(folder: Path, pictures: Sequence[np.ndarray]) -> np.ndarray:
    data = b"".join(struct.pack("<ii", p.shape[1], p.shape[0]) + p.tobytes() for p in pictures)
    size = json.loads((folder / "preprocessor_config.json").read_text())["crop_size"]
    values = np.frombuffer(run("preprocess", folder, stdin=data), dtype=np.float32)
    return values.reshape(-1, 3, size["height"], size["width"])


def hf_processor(folder: Path) -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil.from_pretrained(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"size": {"shortest_edge": 50}},  # smaller than the crop, which is padded
        {"size": {"height": 96, "width": 150}, "resample": 2},
        {"crop_size": {"height": 61, "width": 75}},
        {"do_resize": False, "do_normalize": False},
        {"do_rescale": False, "image_mean": [0.5] * 3, "image_std": [0.25] * 3},
    ],
    ids=lambda changes: "+".join(changes) or "bundled",
)
def test_values_are_equal(changes: dict[str, Any], tmp_path: Path) -> None:
    config = json.loads((BUNDLED / "preprocessor_config.json").read_text()) | changes
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    sizes = SIZES + [(int(w), int(h)) for w, h in rng.integers(1, 260, (24, 2))]
    pictures = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in sizes]
    processor = hf_processor(tmp_path)
    prepared = prepare(tmp_path, pictures)
    assert len(prepared) == len(pictures)
    for size, picture, values in zip(sizes, pictures, prepared, strict=True):
        want = processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
        assert np.array_equal(want.astype(np.float32), values), size


def test_a_photograph_sized_picture(tmp_path: Path) -> None:
    shutil.copy(BUNDLED / "preprocessor_config.json", tmp_path)
    y, x = np.mgrid[0:1536, 0:2048]
    picture = np.stack([x % 256, y % 256, (x * y // 512) % 256], axis=-1).astype(np.uint8)
    want = hf_processor(tmp_path)(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
    assert np.array_equal(want, prepare(tmp_path, [picture])[0])
