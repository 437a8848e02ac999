"""The seed-era helpers under their old module name. New code imports from where they live."""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from typing import TYPE_CHECKING

from mmcore.errors import MediaError
from mmcore.multimodal.audio_decode import decode_audio
from mmcore.multimodal.base import MultiModalDataDict
from mmcore.multimodal.decode import decode_image
from mmcore.multimodal.encode import encode_audio_base64, encode_image_base64
from mmcore.multimodal.fetch import FetchPolicy, MediaFetcher
from mmcore.multimodal.frames import (
    rescale_image_size,
    rescale_video_size,
    resize_video,
    sample_frames_from_video,
)
from mmcore.multimodal.hf_processor import (
    cached_get_image_processor,
    cached_get_tokenizer,
    cached_get_video_processor,
)
from mmcore.multimodal.placeholders import (
    repeat_and_pad_placeholder_tokens,
    repeat_and_pad_token,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

__all__ = [
    "async_fetch_audio",
    "async_fetch_image",
    "async_get_and_parse_audio",
    "async_get_and_parse_image",
    "cached_get_image_processor",
    "cached_get_tokenizer",
    "cached_get_video_processor",
    "encode_audio_base64",
    "encode_image_base64",
    "fetch_audio",
    "fetch_image",
    "get_and_parse_audio",
    "get_and_parse_image",
    "load_image_from_base64",
    "repeat_and_pad_placeholder_tokens",
    "repeat_and_pad_token",
    "rescale_image_size",
    "rescale_video_size",
    "resize_video",
    "sample_frames_from_video",
]


@lru_cache(maxsize=8)
def _fetcher(allowed_local_media_path: str) -> MediaFetcher:
    return MediaFetcher(FetchPolicy(allowed_local_media_path=allowed_local_media_path or None))


def fetch_image(
    image_url: str, *, image_mode: str = "RGB", allowed_local_media_path: str = ""
) -> Image.Image:
    """Fetch and decode an image from an http(s), data or file URL."""
    data = _fetcher(allowed_local_media_path).fetch(image_url, kind="image")
    return decode_image(data, image_mode=image_mode)


async def async_fetch_image(
    image_url: str, *, image_mode: str = "RGB", allowed_local_media_path: str = ""
) -> Image.Image:
    """Fetch and decode an image without blocking the event loop on the network."""
    data = await _fetcher(allowed_local_media_path).fetch_async(image_url, kind="image")
    return decode_image(data, image_mode=image_mode)


def fetch_audio(
    audio_url: str, *, allowed_local_media_path: str = ""
) -> tuple[npt.NDArray[np.float32], int]:
    """Fetch and decode a sound: samples of one channel and the sampling rate."""
    return decode_audio(_fetcher(allowed_local_media_path).fetch(audio_url, kind="audio"))


async def async_fetch_audio(
    audio_url: str, *, allowed_local_media_path: str = ""
) -> tuple[npt.NDArray[np.float32], int]:
    """Fetch and decode a sound without blocking the event loop on the network."""
    data = await _fetcher(allowed_local_media_path).fetch_async(audio_url, kind="audio")
    return decode_audio(data)


def get_and_parse_image(
    image_url: str, *, allowed_local_media_path: str = ""
) -> MultiModalDataDict:
    """Fetch an image as ``multi_modal_data``."""
    return {"image": fetch_image(image_url, allowed_local_media_path=allowed_local_media_path)}


async def async_get_and_parse_image(
    image_url: str, *, allowed_local_media_path: str = ""
) -> MultiModalDataDict:
    """Fetch an image as ``multi_modal_data`` without blocking the event loop."""
    image = await async_fetch_image(image_url, allowed_local_media_path=allowed_local_media_path)
    return {"image": image}


def get_and_parse_audio(
    audio_url: str, *, allowed_local_media_path: str = ""
) -> MultiModalDataDict:
    """Fetch a sound as ``multi_modal_data``."""
    return {"audio": fetch_audio(audio_url, allowed_local_media_path=allowed_local_media_path)}


async def async_get_and_parse_audio(
    audio_url: str, *, allowed_local_media_path: str = ""
) -> MultiModalDataDict:
    """Fetch a sound as ``multi_modal_data`` without blocking the event loop."""
    audio = await async_fetch_audio(audio_url, allowed_local_media_path=allowed_local_media_path)
    return {"audio": audio}


def load_image_from_base64(image: bytes | str) -> Image.Image:
    """Decode an image file that is in base64.

    Raises
    ------
    MediaError
        If it is no valid base64, or no image.
    """
    try:
        data = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        raise MediaError("The image is not valid base64.", code="invalid_image") from None
    return decode_image(data)
