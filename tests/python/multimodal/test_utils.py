"""Unit: the seed-era helpers under their old names."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmcore.errors import MediaError
from mmcore.multimodal import utils

PIXELS = np.random.default_rng(5).integers(0, 256, (20, 30, 3), np.uint8)
IMAGE = Image.fromarray(PIXELS)


def image_url(image: Image.Image = IMAGE) -> str:
    mode = image.mode
    return "data:image/png;base64," + utils.encode_image_base64(
        image, image_mode=mode, format="PNG"
    )


def audio_url() -> str:
    return "data:audio/wav;base64," + utils.encode_audio_base64(np.zeros(80), 8000)


@pytest.mark.parametrize(
    "name",
    ["fetch_image", "fetch_audio", "encode_image_base64", "encode_audio_base64",
     "load_image_from_base64", "rescale_image_size", "resize_video", "rescale_video_size",
     "sample_frames_from_video", "repeat_and_pad_token", "repeat_and_pad_placeholder_tokens",
     "cached_get_tokenizer", "get_and_parse_image", "get_and_parse_audio", "async_fetch_image",
     "async_fetch_audio", "async_get_and_parse_image", "async_get_and_parse_audio"],
)  # fmt: skip
def test_names(name: str) -> None:
    assert callable(getattr(utils, name))
    assert name in utils.__all__


def test_images_from_data_urls() -> None:
    assert np.array_equal(np.asarray(utils.fetch_image(image_url())), PIXELS)
    fetched = asyncio.run(utils.async_fetch_image(image_url()))
    assert np.array_equal(np.asarray(fetched), PIXELS)
    assert utils.fetch_image(image_url(), image_mode="L").mode == "L"


def test_transparent_images_are_put_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert utils.fetch_image(image_url(clear)).getpixel((0, 0)) == (255, 255, 255)


def test_images_from_base64() -> None:
    text = utils.encode_image_base64(IMAGE, format="PNG")
    assert np.array_equal(np.asarray(utils.load_image_from_base64(text)), PIXELS)
    assert np.array_equal(np.asarray(utils.load_image_from_base64(text.encode())), PIXELS)
    for bad in ("", "not base64!", base64.b64encode(b"no image").decode()):
        with pytest.raises(MediaError):
            utils.load_image_from_base64(bad)


def test_audio_from_data_urls() -> None:
    samples, rate = utils.fetch_audio(audio_url())
    assert (samples.shape, rate) == ((80,), 8000)
    assert asyncio.run(utils.async_fetch_audio(audio_url()))[1] == 8000


def test_media_dictionaries() -> None:
    data: Any = utils.get_and_parse_image(image_url())
    assert list(data) == ["image"]
    assert data["image"].size == (30, 20)
    data = asyncio.run(utils.async_get_and_parse_image(image_url()))
    assert data["image"].size == (30, 20)
    assert utils.get_and_parse_audio(audio_url())["audio"][1] == 8000
    assert asyncio.run(utils.async_get_and_parse_audio(audio_url()))["audio"][1] == 8000


def test_files(tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "a.png")
    url = f"file://{tmp_path}/a.png"
    image = utils.fetch_image(url, allowed_local_media_path=str(tmp_path))
    assert np.array_equal(np.asarray(image), PIXELS)
    with pytest.raises(MediaError, match="Cannot load local files without"):
        utils.fetch_image(url)


@pytest.mark.parametrize("url", ["", "ftp://example.com/a.png", "a.png"])
def test_other_urls(url: str) -> None:
    with pytest.raises(ValueError, match=r"^Invalid 'image_url': A valid 'image_url' must start"):
        utils.fetch_image(url)
    with pytest.raises(ValueError, match=r"^Invalid 'audio_url': A valid 'audio_url' must start"):
        utils.fetch_audio(url)
