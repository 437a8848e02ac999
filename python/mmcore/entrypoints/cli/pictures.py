"""Reading what ``--image`` names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmcore.errors import MediaError

if TYPE_CHECKING:
    from PIL import Image

_URL_SCHEMES = ("http://", "https://", "data:")


def load_picture(source: str) -> Image.Image:
    """Read an image from a path, an http(s) URL or a data: URL.

    Raises
    ------
    MediaError
        If there is no such file, or it is no usable image. The text names the source.
    """
    if source.lower().startswith(_URL_SCHEMES):
        from mmcore.multimodal.utils import fetch_image

        try:
            return fetch_image(source)
        except MediaError as error:
            raise MediaError(f"--image {shorten(source)}: {error}", code=error.code) from error
    return _load_file(source)


def shorten(source: str) -> str:
    """Cut a long data: URL for a message."""
    return source if len(source) <= 80 else f"{source[:60]}..."


def _load_file(source: str) -> Image.Image:
    from mmcore.multimodal.decode import ImageLimits, decode_image

    path = Path(source).expanduser()
    if not path.exists():
        raise MediaError(f"--image {source}: there is no such file.", code="invalid_image")
    if not path.is_file():
        raise MediaError(f"--image {source}: it is not a regular file.", code="invalid_image")
    limits = ImageLimits()
    try:
        # One byte past the limit is enough to be refused, whatever the file's size.
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
        return decode_image(data, limits)
    except MediaError as error:
        raise MediaError(f"--image {source}: {error}", code=error.code) from error
