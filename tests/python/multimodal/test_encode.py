"""Unit: writing images and sounds as base64, and reading them back."""

from __future__ import annotations

import base64
import io
import wave

import numpy as np
import pytest
from PIL import Image

from mmcore.multimodal.audio_decode import decode_audio
from mmcore.multimodal.encode import encode_audio_base64, encode_image_base64

PIXELS = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)


def test_lossless_image_comes_back() -> None:
    text = encode_image_base64(Image.fromarray(PIXELS), format="PNG")
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), PIXELS)


def test_defaults_are_rgb_and_jpeg() -> None:
    text = encode_image_base64(Image.fromarray(PIXELS).convert("RGBA"))
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (30, 20))


@pytest.mark.parametrize("channels", [1, 2])
def test_sound_comes_back(channels: int) -> None:
    samples = np.linspace(-1, 1, 600).reshape(-1, channels)
    data = base64.b64decode(encode_audio_base64(samples.squeeze(), 16_000))
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (
            channels,
            16_000,
            2,
        )
    decoded, rate = decode_audio(data)
    assert rate == 16_000
    # Half a step of 16 bits, and 32767 against 32768 as full scale.
    assert np.abs(decoded - samples.mean(axis=1)).max() < 1.0 / 16_384


def test_samples_out_of_range_are_clipped() -> None:
    decoded, _ = decode_audio(base64.b64decode(encode_audio_base64(np.array([-3.0, 3.0]), 8000)))
    assert decoded[0] < -0.999
    assert decoded[1] > 0.999
