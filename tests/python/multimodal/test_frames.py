"""Unit: resizing, and choosing frames."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmcore.multimodal.frames import (
    rescale_image_size,
    rescale_video_size,
    resize_video,
    sample_frames_from_video,
)

CLIP = np.random.default_rng(4).integers(0, 256, (10, 12, 16, 3), np.uint8)


def test_images_are_scaled_and_turned() -> None:
    image = Image.fromarray(CLIP[0])
    assert rescale_image_size(image, 0.5).size == (8, 6)
    assert rescale_image_size(image, 1.5).size == (24, 18)
    turned = rescale_image_size(image, 1.0, transpose=Image.Transpose.ROTATE_90)
    assert np.array_equal(np.asarray(turned), np.rot90(CLIP[0]))
    mirrored = rescale_image_size(image, 1.0, transpose=0)
    assert np.array_equal(np.asarray(mirrored), CLIP[0][:, ::-1])


def test_videos_are_scaled_frame_by_frame() -> None:
    resized = resize_video(CLIP, (6, 8))
    assert resized.shape == (10, 6, 8, 3)
    assert resized.dtype == np.uint8
    for frame, original in zip(resized, CLIP, strict=True):
        expected = Image.fromarray(original).resize((8, 6), Image.Resampling.BILINEAR)
        assert np.array_equal(frame, np.asarray(expected))
    assert np.array_equal(rescale_video_size(CLIP, 0.5), resized)
    assert np.array_equal(rescale_video_size(CLIP, 1.0), CLIP)


@pytest.mark.parametrize(
    ("num_frames", "indices"),
    [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, list(range(10))), (-1, list(range(10)))],
)
def test_frames_are_chosen_evenly(num_frames: int, indices: list[int]) -> None:
    assert np.array_equal(sample_frames_from_video(CLIP, num_frames), CLIP[indices])
