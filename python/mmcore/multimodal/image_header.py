"""What an image file claims to be, read from its bytes before any decoder sees them.

Only the containers of four formats are walked: their sizes, their frames, and whether they are
complete. Nothing is decompressed. A file that passes is whole, has one picture, and says how many
pixels a decoder would make of it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Literal

from mmcore.errors import MediaError
from mmcore.multimodal.exif import orientation_of

__all__ = ["FORMATS", "ImageFormat", "ImageHeader", "read_header"]

ImageFormat = Literal["jpeg", "png", "webp", "gif"]
FORMATS: tuple[ImageFormat, ...] = ("jpeg", "png", "webp", "gif")

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Other containers that open with a known mark: named in the error instead of "unknown".
_REFUSED = (
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"8BPS", "PSD"),
    (b"%!PS", "EPS"),
    (b"%PDF", "PDF"),
    (b"SIMPLE  =", "FITS"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"<svg", "SVG"),
    (b"<?xml", "SVG"),
    (b"STARTFONT", "BDF"),
    (b"\xd0\xcf\x11\xe0", "FPX"),
)
# What a picture depends on. The other parts of a file may hold text and profiles, compressed to any
# factor or nonsense, and are not shown to the decoder; the orientation is read here.
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_JPEG_DROPPED = frozenset({*range(0xE1, 0xF0), 0xFE}) - {0xEE}  # Adobe's names the colour space
# A progressive file of an encoder has about ten; each one costs a pass over all pixels.
_MAX_JPEG_SCANS = 100
# A marker inside entropy-coded data: not a stuffed byte, a restart or a fill byte.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_JPEG_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says about its picture.

    Parameters
    ----------
    format
        The container.
    width, height
        Size in pixels, before any rotation.
    payload
        The bytes to decode: the file without what its picture does not need.
    orientation
        How to turn the picture, as EXIF numbers it.
    is_hollow
        Whether the file cannot hold as many pixels as it says. A decoder would fill what is
        missing with grey, without a word.
    """

    format: ImageFormat
    width: int
    height: int
    payload: bytes
    orientation: int = 1
    is_hollow: bool = False


def read_header(data: bytes) -> ImageHeader:
    """Read a file's format, size and completeness.

    Raises
    ------
    MediaError
        ``unsupported_image_format`` for another format, ``animated_image`` for several frames,
        ``invalid_image`` for a file that is cut off or inconsistent.
    """
    try:
        if data.startswith(_PNG_MAGIC):
            return _read_png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _read_webp(data)
        if data[:6] in (b"GIF87a", b"GIF89a"):
            return _read_gif(data)
    except (IndexError, struct.error):
        raise _truncated("image") from None
    if data[4:8] == b"ftyp":
        raise _unsupported("AVIF or HEIF")
    head = data[:16].lstrip()
    for magic, name in _REFUSED:
        if head.startswith(magic):
            raise _unsupported(name)
    raise MediaError(
        "The data are no image: they begin like none of jpeg, png, webp or gif."
        if data
        else "The image is empty.",
        code="invalid_image",
    )


def _unsupported(name: str) -> MediaError:
    return MediaError(
        f"{name} images are not supported; convert the image to one of {', '.join(FORMATS)}.",
        code="unsupported_image_format",
    )


def _truncated(what: str) -> MediaError:
    return MediaError(f"The {what} is cut off; send the whole file.", code="invalid_image")


def _animated(what: str) -> MediaError:
    return MediaError(
        f"The {what} is animated; send one frame as a still image.", code="animated_image"
    )


def _read_png(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    orientation = 1
    kept = [_PNG_MAGIC]
    position = len(_PNG_MAGIC)
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise _truncated("PNG file")
        if kind in (b"acTL", b"fcTL", b"fdAT"):
            raise _animated("PNG file")
        if kind == b"IHDR":
            if length != 13 or size is not None:
                raise MediaError("The PNG file's header is damaged.", code="invalid_image")
            size = struct.unpack_from(">II", data, position + 8)
        elif size is None:
            raise MediaError("The PNG file does not begin with its header.", code="invalid_image")
        if kind in _PNG_KEPT:
            kept.append(data[position:end])
        if kind == b"eXIf":
            orientation = orientation_of(data[position + 8 : end - 4])
        position = end
        if kind == b"IEND":
            break
    return ImageHeader("png", size[0], size[1], b"".join(kept), orientation)


def _read_jpeg(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    huffman = True
    orientation = 1
    scans = 0
    scan_bytes = 0
    kept = [data[:2]]
    position = 2
    while True:
        if data[position] != 0xFF:
            raise MediaError("The JPEG file's segments are damaged.", code="invalid_image")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xD9:
            kept.append(data[position : position + 2])
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        start, end = position, position + 2 + length
        if length < 2 or end > len(data):
            raise _truncated("JPEG file")
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\x00\x00":
            orientation = orientation_of(data[position + 4 : end])
        if marker == 0xE2 and data[position + 4 : position + 8] == b"MPF\x00":
            raise _unsupported("Multi-picture (MPO)")
        if marker in _JPEG_SOF:
            if size is not None:
                raise MediaError("The JPEG file has two frames.", code="invalid_image")
            height, width = struct.unpack_from(">HH", data, position + 5)
            size = (width, height)
            huffman = marker < 0xC9
        position = end
        if marker == 0xDA:
            scans += 1
            if scans > _MAX_JPEG_SCANS:
                raise MediaError(
                    f"The JPEG file has more than {_MAX_JPEG_SCANS} scans; save it with fewer.",
                    code="invalid_image",
                )
            found = _JPEG_MARKER.search(data, position)
            if found is None:
                raise _truncated("JPEG file")
            position = found.start()
            scan_bytes += position - end
        if marker not in _JPEG_DROPPED:
            kept.append(data[start:position])
    if size is None or not scans:
        raise MediaError("The JPEG file holds no picture.", code="invalid_image")
    # Every block of 8x8 pixels takes a bit at least, in a component that may be halved.
    blocks = (size[0] // 8) * (size[1] // 8)
    hollow = huffman and scan_bytes * 16 < blocks
    return ImageHeader("jpeg", size[0], size[1], b"".join(kept), orientation, hollow)


def _read_webp(data: bytes) -> ImageHeader:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    end = 8 + riff_size
    if end > len(data):
        raise _truncated("WebP file")
    size: tuple[int, int] | None = None
    has_picture = False
    orientation = 1
    position = 12
    while position + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if body + length > end:
            raise _truncated("WebP file")
        if kind in (b"ANIM", b"ANMF") or (kind == b"VP8X" and data[body] & 0x02):
            raise _animated("WebP file")
        claimed = _webp_size(kind, data, body, length)
        if claimed is not None:
            if size is not None and size != claimed:
                raise MediaError("The WebP file gives two sizes.", code="invalid_image")
            size = claimed
        has_picture = has_picture or kind in (b"VP8 ", b"VP8L")
        if kind == b"EXIF":
            orientation = orientation_of(data[body : body + length])
        position = body + length + (length & 1)
    if size is None or not has_picture:
        raise _truncated("WebP file")
    return ImageHeader("webp", size[0], size[1], data[:end], orientation)


def _webp_size(kind: bytes, data: bytes, body: int, length: int) -> tuple[int, int] | None:
    if kind == b"VP8X" and length >= 10:
        width = int.from_bytes(data[body + 4 : body + 7], "little") + 1
        return width, int.from_bytes(data[body + 7 : body + 10], "little") + 1
    if kind == b"VP8L" and length >= 5 and data[body] == 0x2F:
        bits = int.from_bytes(data[body + 1 : body + 5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and length >= 10 and data[body + 3 : body + 6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, body + 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind in (b"VP8X", b"VP8L", b"VP8 "):
        raise MediaError("The WebP file's header is damaged.", code="invalid_image")
    return None


def _read_gif(data: bytes) -> ImageHeader:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _gif_table_size(flags)
    frames = 0
    while True:
        kind = data[position]
        if kind == 0x3B:  # trailer
            break
        if kind == 0x21:  # extension
            position = _skip_gif_blocks(data, position + 2)
        elif kind == 0x2C:  # frame
            frames += 1
            if frames > 1:
                raise _animated("GIF file")
            left, top, w, h, flags = struct.unpack_from("<HHHHB", data, position + 1)
            # A frame may reach over the screen, and decoders then enlarge the picture.
            width, height = max(width, left + w), max(height, top + h)
            position = _skip_gif_blocks(data, position + 11 + _gif_table_size(flags))
        else:
            raise MediaError("The GIF file's blocks are damaged.", code="invalid_image")
    if not frames:
        raise MediaError("The GIF file holds no picture.", code="invalid_image")
    return ImageHeader("gif", width, height, data)


def _gif_table_size(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_gif_blocks(data: bytes, position: int) -> int:
    while length := data[position]:
        position += 1 + length
    return position + 1
