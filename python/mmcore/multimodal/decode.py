"""The one image decoder: from bytes, a Pillow image or an array to an upright RGB image.

Every limit is checked on the file's header, before memory for pixels is taken, and none of
Pillow's global switches is read or set. What leaves here is wholly loaded, so that a broken file
fails here, as a :class:`~mmcore.errors.MediaError`, and not inside a step.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmcore.errors import MediaError
from mmcore.multimodal.image_header import FORMATS, ImageFormat, read_header

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

__all__ = [
    "ImageLimits",
    "decode_image",
    "exif_orientation",
    "is_image",
    "normalize_image",
]

_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may cost.

    Parameters
    ----------
    max_bytes
        Size of the file.
    max_pixels, max_side, max_aspect_ratio
        Size of the picture, from its header.
    min_side
        Shortest side; models may ask for more.
    formats
        Containers that may be decoded.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_side: int = 16_384
    max_aspect_ratio: float = 200.0
    min_side: int = 1
    formats: Collection[ImageFormat] = FORMATS

    def __post_init__(self) -> None:
        unknown = set(self.formats) - set(FORMATS)
        if unknown:
            raise ValueError(
                f"Unknown image formats {sorted(unknown)}; known are {', '.join(FORMATS)}."
            )

    def check_size(self, width: int, height: int) -> None:
        """Refuse a picture of a size that is out of bounds.

        Raises
        ------
        MediaError
            ``image_too_large``, ``image_too_small``, ``aspect_ratio`` or ``invalid_image``.
        """
        if width < 1 or height < 1:
            raise MediaError(f"The image has a size of {width} by {height}.", code="invalid_image")
        if max(width, height) > self.max_side or width * height > self.max_pixels:
            raise MediaError(
                f"The image has {width} by {height} pixels; at most {self.max_pixels} pixels and "
                f"{self.max_side} a side are allowed. Send a smaller one.",
                code="image_too_large",
            )
        if max(width, height) > self.max_aspect_ratio * min(width, height):
            raise MediaError(
                f"The image has {width} by {height} pixels; its longer side may be at most "
                f"{self.max_aspect_ratio:g} times the shorter one.",
                code="aspect_ratio",
            )
        if min(width, height) < self.min_side:
            raise MediaError(
                f"The image has {width} by {height} pixels; each side needs at least "
                f"{self.min_side}.",
                code="image_too_small",
            )


_DEFAULT_LIMITS = ImageLimits()


def is_image(value: object) -> bool:
    """Tell whether a value is a Pillow image or an array."""
    import numpy as np
    from PIL import Image

    return isinstance(value, (Image.Image, np.ndarray))


def decode_image(
    data: bytes, limits: ImageLimits = _DEFAULT_LIMITS, *, image_mode: str = "RGB"
) -> Image.Image:
    """Decode a file.

    Parameters
    ----------
    data
        The file's bytes. What they are is decided by what they begin with.
    limits
        What the image may cost.
    image_mode
        Mode of the result; transparent pixels are put on white for modes without transparency.

    Raises
    ------
    MediaError
        If the data are no image, a broken one, of a refused format, or beyond a limit.
    """
    if len(data) > limits.max_bytes:
        raise MediaError(
            f"The image file has {len(data)} bytes; at most {limits.max_bytes} are allowed.",
            code="image_too_large",
        )
    header = read_header(bytes(data))
    if header.format not in limits.formats:
        raise MediaError(
            f"{header.format} images are not allowed here; send one of "
            f"{', '.join(limits.formats)}.",
            code="unsupported_image_format",
        )
    limits.check_size(header.width, header.height)
    if header.is_hollow:
        raise MediaError(
            f"The {header.format} file holds too little data for the {header.width} by "
            f"{header.height} pixels that it claims.",
            code="invalid_image",
        )

    from PIL import Image

    try:
        image: Image.Image = Image.open(io.BytesIO(header.payload), formats=[header.format.upper()])
        if image.size != (header.width, header.height):
            raise MediaError("The image's header is inconsistent.", code="invalid_image")
        return _upright(_loaded(image), header.orientation, image_mode)
    except (MediaError, MemoryError):
        raise
    except Exception:
        # Pillow's texts hold addresses and internals, and what a decoder may raise on malformed
        # input has no common base.
        raise MediaError(
            f"The {header.format} image cannot be decoded; it is damaged.", code="invalid_image"
        ) from None


def normalize_image(
    image: Image.Image | npt.NDArray[np.uint8],
    limits: ImageLimits = _DEFAULT_LIMITS,
    *,
    image_mode: str = "RGB",
) -> Image.Image:
    """Bring an image that is in memory, or opened by the caller, to what decoding gives.

    Parameters
    ----------
    image
        A Pillow image, or an array of 8-bit pixels of shape (height, width) or
        (height, width, 1, 3 or 4).

    Raises
    ------
    MediaError
        If it is broken, animated, or beyond a limit.
    TypeError
        If it is no image.
    """
    import numpy as np
    from PIL import Image

    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"Invalid image type: {type(image).__name__}")
    limits.check_size(image.width, image.height)
    # Multi-picture JPEGs of phones count as animated; their first picture is the photograph.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise MediaError(
            "The image is animated; pass one frame, for example image.copy().",
            code="animated_image",
        )
    return _upright(_loaded(image), exif_orientation(image), image_mode)


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    from PIL import Image

    if array.dtype != "uint8":
        raise TypeError(
            f"Invalid image type: an array of {array.dtype}; pass 8-bit pixels (uint8)."
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise TypeError(
            f"Invalid image type: an array of shape {array.shape}; pass (height, width) or "
            "(height, width, channels) with 1, 3 or 4 channels."
        )
    if 0 in array.shape:
        raise MediaError(
            f"The image has a size of {array.shape[1]} by {array.shape[0]}.", code="invalid_image"
        )
    return Image.fromarray(array)


def _loaded(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:  # as in decode_image
        raise MediaError(
            "The image cannot be decoded; it is cut off or damaged.", code="invalid_image"
        ) from None
    return image


def exif_orientation(image: Image.Image) -> int:
    """Give the EXIF orientation, 1 to 8; 1 where there is none or it makes no sense."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # EXIF is written by anything, and is no reason to refuse a picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image.Image, orientation: int, image_mode: str) -> Image.Image:
    """Apply the orientation and bring a loaded image to a mode."""
    from PIL import Image

    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    image = _to_mode(image, image_mode)
    if turn is not None:
        image = image.transpose(turn)
    # What the info says (orientation, transparency) was applied; nobody may apply it again.
    image.info = {}
    return image


def _to_mode(image: Image.Image, image_mode: str) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise MediaError(
            f"An image of mode {image.mode!r} has no fixed range of values; "
            "convert it to 'L' or 'RGB' first.",
            code="invalid_image",
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bit(image)
    transparent = "A" in image.getbands() or "transparency" in image.info
    if transparent and image_mode not in ("RGBA", "LA", "PA"):
        image = _on_white(image.convert("RGBA"))
    if image.mode != image_mode:
        return image.convert(image_mode)
    # The caller keeps its image, and lazily opened files keep theirs open.
    return image.copy()


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Keep the upper byte of 16-bit grey; Pillow's own conversion clips at 255."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(alpha))
    return grey


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image)
    return white.convert("RGB")
