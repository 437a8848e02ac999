"""Unit: the default image and video mappers, against Hugging Face's processors themselves."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BatchFeature

from mmcore.config import ModelConfig
from mmcore.errors import CheckpointError, MediaError
from mmcore.inputs import InputContext
from mmcore.multimodal.hf_processor import get_image_processor
from mmcore.multimodal.image import ImagePlugin
from mmcore.multimodal.video import VideoPlugin

pytestmark = pytest.mark.hf


def image(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def ctx(vision_checkpoint: str) -> InputContext:
    return InputContext(ModelConfig(vision_checkpoint))


def map_image(ctx: InputContext, data: Any, **kwargs: Any) -> Any:
    return ImagePlugin()._default_input_mapper(ctx, data, **kwargs)


@pytest.mark.parametrize("size", [(56, 56), (100, 30), (30, 100), (1, 1)])
def test_one_image(ctx: InputContext, vision_checkpoint: str, size: tuple[int, int]) -> None:
    expected = get_image_processor(vision_checkpoint)(image(*size), return_tensors="pt")
    mapped = map_image(ctx, image(*size))
    assert set(mapped) == set(expected)
    assert mapped["pixel_values"].shape == (1, 3, 56, 56)
    assert torch.equal(mapped["pixel_values"], expected["pixel_values"])


def test_several_images(ctx: InputContext, vision_checkpoint: str) -> None:
    images = [image(60, 70, seed=i) for i in range(3)]
    expected = get_image_processor(vision_checkpoint)(images, return_tensors="pt")
    assert torch.equal(map_image(ctx, images)["pixel_values"], expected["pixel_values"])


def test_arrays_are_images(ctx: InputContext) -> None:
    same = map_image(ctx, np.asarray(image(60, 70)))
    assert torch.equal(same["pixel_values"], map_image(ctx, image(60, 70))["pixel_values"])


def test_transparent_pixels_are_white(ctx: InputContext) -> None:
    clear = map_image(ctx, Image.new("RGBA", (60, 60), (255, 0, 0, 0)))
    white = map_image(ctx, Image.new("RGB", (60, 60), (255, 255, 255)))
    assert torch.equal(clear["pixel_values"], white["pixel_values"])


def test_options_reach_the_processor(ctx: InputContext) -> None:
    raw = map_image(ctx, image(56, 56), do_normalize=False, do_rescale=False)
    expected = torch.from_numpy(np.asarray(image(56, 56)).copy()).permute(2, 0, 1)
    assert torch.equal(raw["pixel_values"][0].to(torch.uint8), expected)


def test_embeddings_are_passed_on(ctx: InputContext) -> None:
    tensor = torch.rand(2, 16, 128)
    assert map_image(ctx, tensor)["image_embeds"] is tensor
    ragged = [torch.rand(1, 16, 128), torch.rand(1, 9, 128)]
    assert map_image(ctx, ragged)["image_embeds"] is ragged


def test_features_are_passed_on(ctx: InputContext) -> None:
    features = BatchFeature({"pixel_values": torch.rand(1, 3, 56, 56), "sizes": [1]})
    assert map_image(ctx, features) == features.data


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("file.png", "str"),
        (["file.png", b""], "bytes, str"),
        ([image(2, 2), torch.rand(1)], "Image, Tensor"),
        ({"image_embeds": torch.rand(1)}, "dict"),
        ([], "an empty list"),
    ],
)
def test_other_types_are_refused(ctx: InputContext, data: Any, names: str) -> None:
    with pytest.raises(TypeError) as caught:
        map_image(ctx, data)
    assert str(caught.value) == f"Invalid image type: {names}"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "an array of float32; pass 8-bit pixels"),
        (np.zeros((3, 5, 5), np.uint8), r"an array of shape \(3, 5, 5\); pass \(height, width\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\)"),
    ],
)
def test_arrays_that_are_no_images(ctx: InputContext, array: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        map_image(ctx, array)


def test_broken_images_fail_as_media_errors(ctx: InputContext, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    image(60, 60).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as broken, pytest.raises(MediaError) as caught:
        map_image(ctx, broken)
    assert caught.value.code == "invalid_image"


def test_a_processor_that_fails_is_named_in_the_log(
    ctx: InputContext, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises((ValueError, TypeError)):
        map_image(ctx, image(60, 60), image_mean=[0.5, 0.5])
    assert "Failed to process image (60x60) with the default mapper." in caplog.text


def test_options_that_the_processor_refuses(ctx: InputContext) -> None:
    with pytest.raises(CheckpointError, match="with the options size: "):
        map_image(ctx, image(60, 60), size={"nonsense": 1})


def test_checkpoint_without_an_image_processor(text_checkpoint: str) -> None:
    with pytest.raises(CheckpointError, match="No image processor can be loaded"):
        map_image(InputContext(ModelConfig(text_checkpoint)), image(2, 2))


def map_video(ctx: InputContext, data: Any) -> Any:
    return VideoPlugin()._default_input_mapper(ctx, data)


def test_video_refusals(ctx: InputContext) -> None:
    clip = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(NotImplementedError, match="Multi video for a prompt is not supported yet"):
        map_video(ctx, [clip, clip])
    with pytest.raises(TypeError, match="Invalid video type: str"):
        map_video(ctx, "file.mp4")
    with pytest.raises(CheckpointError, match="No video processor can be loaded"):
        map_video(ctx, clip)


def test_video_features_are_passed_on(ctx: InputContext) -> None:
    features = BatchFeature({"pixel_values_videos": torch.rand(4, 8)})
    assert map_video(ctx, features) == features.data
