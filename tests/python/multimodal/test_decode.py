"""Unit: the image decoder on good, strange, broken and hostile files."""

from __future__ import annotations

import io
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmcore.errors import MediaError
from mmcore.multimodal.decode import (
    ImageLimits,
    decode_image,
    exif_orientation,
    normalize_image,
)
from mmcore.multimodal.image_header import ImageFormat, read_header

# Nothing that a caller sees may hold an address, a path or a traceback.
HERE = re.escape(str(Path(__file__).resolve().parents[3]))
PRIVATE = re.compile(rf"0x[0-9a-f]{{6,}}|{HERE}|/usr/|/home/|/tmp/|Traceback|BytesIO|<.* object")


def noise(width: int, height: int, channels: int = 3, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encoded(image: Image.Image, container: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def with_png_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """Put a chunk between the header and the data of a PNG."""
    after_header = 8 + 25
    return png[:after_header] + png_chunk(kind, body) + png[after_header:]


def refusal(data: bytes, **limits: Any) -> MediaError:
    with pytest.raises(MediaError) as caught:
        decode_image(data, ImageLimits(**limits))
    assert not PRIVATE.search(str(caught.value))
    return caught.value


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image)


PICTURE = Image.fromarray(noise(40, 30))
FILES: dict[str, bytes] = {
    "png": encoded(PICTURE, "PNG"),
    "jpeg": encoded(PICTURE, "JPEG", quality=90),
    "progressive": encoded(PICTURE, "JPEG", progressive=True),
    "webp": encoded(PICTURE, "WEBP"),
    "webp lossless": encoded(PICTURE, "WEBP", lossless=True),
    "webp alpha": encoded(Image.fromarray(noise(40, 30, 4)), "WEBP", lossless=True, exact=True),
    "gif": encoded(PICTURE, "GIF"),
}


@pytest.mark.parametrize("name", FILES)
def test_headers_agree_with_the_decoder(name: str) -> None:
    header = read_header(FILES[name])
    assert (header.width, header.height) == (40, 30)
    assert header.format == name.split()[0].replace("progressive", "jpeg")


@pytest.mark.parametrize("name", ["png", "webp lossless"])
def test_lossless_files_are_exact(name: str) -> None:
    image = decode_image(FILES[name])
    assert image.mode == "RGB"
    assert np.array_equal(pixels(image), pixels(PICTURE))


@pytest.mark.parametrize("name", [name for name in FILES if "alpha" not in name])
def test_pixels_are_pillows(name: str) -> None:
    with Image.open(io.BytesIO(FILES[name])) as expected:
        assert np.array_equal(pixels(decode_image(FILES[name])), pixels(expected.convert("RGB")))


@pytest.mark.parametrize("name", FILES)
def test_files_cut_off_anywhere_are_refused(name: str) -> None:
    data = FILES[name]
    for length in range(len(data)):
        error = refusal(data[:length])
        assert error.code in ("invalid_image", "unsupported_image_format"), length


@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes_never_raise_anything_else(name: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(300):
        data = bytearray(FILES[name])
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            image = decode_image(bytes(data))
        except MediaError as error:
            assert not PRIVATE.search(str(error))
        else:
            assert image.mode == "RGB"


@pytest.mark.parametrize("name", FILES)
def test_bytes_after_the_end_are_ignored(name: str) -> None:
    polyglot = FILES[name] + b"PK\x03\x04<script>alert(1)</script>"
    assert np.array_equal(pixels(decode_image(polyglot)), pixels(decode_image(FILES[name])))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "invalid_image"),
        (b"\0" * 100, "invalid_image"),
        (b"<html><body>not found</body></html>", "invalid_image"),
        (b"PK\x03\x04" + b"\0" * 40, "invalid_image"),
        (b"%PDF-1.7\n", "unsupported_image_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image_format"),
        (b"  <?xml version='1.0'?><svg/>", "unsupported_image_format"),
        (b"SIMPLE  =                    T", "unsupported_image_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_image_format"),
        (b"8BPS\0\1" + b"\0" * 20, "unsupported_image_format"),
        (b"\0\0\1\0\1\0" + b"\0" * 20, "unsupported_image_format"),
        (b"STARTFONT 2.1\n", "unsupported_image_format"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "unsupported_image_format"),
        (b"\0\0\0\x1cftypavif" + b"\0" * 20, "unsupported_image_format"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "unsupported_image_format"),
        (b"\xff\xff\0\1\0\1\0", "invalid_image"),
    ],
)
def test_other_files(data: bytes, code: str) -> None:
    assert refusal(data).code == code


@pytest.mark.parametrize("container", ["BMP", "TIFF", "ICO", "PPM", "TGA", "MPO"])
def test_other_containers_never_reach_a_codec(container: str) -> None:
    options: dict[str, Any] = {}
    if container == "MPO":
        options = {"save_all": True, "append_images": [PICTURE]}
    error = refusal(encoded(PICTURE, container, **options))
    assert error.code in ("unsupported_image_format", "invalid_image")
    if container in ("BMP", "TIFF", "ICO", "MPO"):
        assert error.code == "unsupported_image_format"


def test_allow_list_of_formats() -> None:
    formats: tuple[ImageFormat, ...] = ("png",)
    limits = ImageLimits(formats=formats)
    assert decode_image(FILES["png"], limits).size == (40, 30)
    assert refusal(FILES["jpeg"], formats=formats).code == "unsupported_image_format"
    with pytest.raises(ValueError, match="Unknown image formats"):
        ImageLimits(formats=("tiff",))  # type: ignore[arg-type]


def frames(container: str) -> bytes:
    second = Image.fromarray(noise(40, 30, seed=2))
    return encoded(PICTURE, container, save_all=True, append_images=[second])


@pytest.mark.parametrize("container", ["GIF", "PNG", "WEBP"])
def test_animations_are_refused(container: str) -> None:
    data = frames(container)
    assert refusal(data).code == "animated_image"
    with Image.open(io.BytesIO(data)) as image, pytest.raises(MediaError) as caught:
        normalize_image(image)
    assert caught.value.code == "animated_image"


def test_multi_picture_image_of_a_phone_that_was_opened_by_the_caller() -> None:
    data = encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE])
    with Image.open(io.BytesIO(data)) as image:
        assert normalize_image(image).size == (40, 30)


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b""))
        + png_chunk(b"IEND", b"")
    )


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(FILES["jpeg"])
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_claiming(width: int, height: int) -> bytes:
    data = bytearray(FILES["gif"])
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    ("claim", "width", "height", "code"),
    [
        (png_claiming, 50_000, 50_000, "image_too_large"),
        (png_claiming, 2**31 - 1, 2**31 - 1, "image_too_large"),
        (png_claiming, 2**32 - 1, 1, "image_too_large"),
        (png_claiming, 0, 10, "invalid_image"),
        (png_claiming, 10, 0, "invalid_image"),
        (png_claiming, 40, 30, "invalid_image"),
        (jpeg_claiming, 65_535, 65_535, "image_too_large"),
        (jpeg_claiming, 0, 30, "invalid_image"),
        (jpeg_claiming, 8000, 6000, "invalid_image"),
        (gif_claiming, 65_535, 65_535, "image_too_large"),
        (png_claiming, 201, 1, "aspect_ratio"),
        (png_claiming, 1, 201, "aspect_ratio"),
        (png_claiming, 10_000, 1, "aspect_ratio"),
    ],
)
def test_sizes_are_judged_by_the_header(
    claim: Callable[[int, int], bytes], width: int, height: int, code: str
) -> None:
    assert refusal(claim(width, height)).code == code


def test_limits_are_inclusive() -> None:
    def check(width: int, height: int, **limits: Any) -> str:
        try:
            ImageLimits(**limits).check_size(width, height)
        except MediaError as error:
            return error.code
        return "ok"

    assert check(200, 1) == "ok"
    assert check(201, 1) == "aspect_ratio"
    assert check(16_384, 3051) == "ok"
    assert check(16_385, 100) == "image_too_large"
    assert check(10_000, 5_000) == "ok"
    assert check(10_000, 5_001) == "image_too_large"
    assert check(28, 28, min_side=28) == "ok"
    assert check(27, 257, min_side=28) == "image_too_small"


def test_a_frame_larger_than_the_screen_of_a_gif_counts() -> None:
    data = bytearray(FILES["gif"])
    frame = data.index(b"\x2c", 13 + 768)
    data[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    assert refusal(bytes(data)).code == "image_too_large"


def test_file_size() -> None:
    size = len(FILES["png"])
    assert decode_image(FILES["png"], ImageLimits(max_bytes=size)).size == (40, 30)
    error = refusal(FILES["png"], max_bytes=size - 1)
    assert error.code == "image_too_large"
    assert str(size) in str(error)


def test_pillows_global_switches_are_neither_read_nor_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert refusal(png_claiming(50_000, 50_000)).code == "image_too_large"
    assert Image.MAX_IMAGE_PIXELS is None


def test_compressed_text_and_profiles_are_not_expanded() -> None:
    bomb = zlib.compress(b"A" * (1 << 24))
    data = FILES["png"]
    for kind, body in [
        (b"zTXt", b"Comment\0\0" + bomb),
        (b"iTXt", b"Comment\0\1\0\0\0" + bomb),
        (b"iCCP", b"profile\0\0" + bomb),
        (b"eXIf", b"II*\0" + b"\xff" * 70_000),
        (b"tEXt", b"Comment\0" + b"A" * 100_000),
    ]:
        data = with_png_chunk(data, kind, body)
    assert len(read_header(data).payload) <= len(FILES["png"])
    assert np.array_equal(pixels(decode_image(data)), pixels(PICTURE))


def test_damaged_profiles_are_ignored() -> None:
    for profile in (b"", b"nonsense", b"\xff" * 65_000):
        data = encoded(PICTURE, "JPEG", quality=90, icc_profile=profile)
        assert np.array_equal(pixels(decode_image(data)), pixels(decode_image(FILES["jpeg"])))


def test_very_many_scans() -> None:
    data = FILES["progressive"]
    first = data.index(b"\xff\xda")
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    error = refusal(data[:first] + scan * 200 + b"\xff\xd9")
    assert "100 scans" in str(error)


def upright() -> Image.Image:
    return Image.fromarray(noise(8, 4))


# What an image with orientation k holds, so that turning it by k gives the upright one.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("container", ["PNG", "WEBP"])
def test_orientations_are_applied(orientation: int, container: str) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](pixels(upright()))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if container == "WEBP" else {}
    data = encoded(stored, container, exif=exif, **options)
    image = decode_image(data)
    assert np.array_equal(pixels(image), pixels(upright()))
    with Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(pixels(normalize_image(opened)), pixels(upright()))
    # Applied once: what was decoded is upright for everybody.
    assert exif_orientation(image) == 1
    assert np.array_equal(pixels(normalize_image(image)), pixels(upright()))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0II*\0" + b"\xff" * 64_000,
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",  # 99
        b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0",  # the directory follows itself
        b"Exif\0\0",
    ],
)
def test_nonsense_in_exif_is_ignored(exif: bytes) -> None:
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    data = FILES["jpeg"][:2] + segment + FILES["jpeg"][2:]
    assert np.array_equal(pixels(decode_image(data)), pixels(decode_image(FILES["jpeg"])))


def test_grey_and_bilevel_files() -> None:
    grey = Image.fromarray(noise(6, 5)[:, :, 0])
    expected = np.repeat(pixels(grey)[:, :, None], 3, axis=2)
    assert np.array_equal(pixels(decode_image(encoded(grey, "PNG"))), expected)
    bilevel = Image.fromarray(pixels(grey) > 127)
    expected = np.repeat((pixels(grey) > 127)[:, :, None] * np.uint8(255), 3, axis=2)
    assert np.array_equal(pixels(decode_image(encoded(bilevel, "PNG"))), expected)


def test_sixteen_bit_grey_keeps_the_upper_byte() -> None:
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], dtype=np.uint16)
    image = decode_image(encoded(Image.fromarray(values), "PNG"))
    assert pixels(image)[:, :, 0].tolist() == [[0, 0, 1], [128, 254, 255]]


def test_alpha_is_put_on_white() -> None:
    rgba = np.array(
        [[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8
    )  # opaque, clear, one fifth
    image = decode_image(encoded(Image.fromarray(rgba), "PNG"))
    assert pixels(image).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]

    bands = [Image.fromarray(rgba[:, :, band]) for band in (1, 3)]
    grey_alpha = Image.merge("LA", bands)
    image = decode_image(encoded(grey_alpha, "PNG"))
    assert pixels(image)[0, :, 0].tolist() == [0, 255, 204]


def test_transparent_colours_are_white() -> None:
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    image = decode_image(encoded(rgb, "PNG", transparency=(1, 2, 3)))
    assert pixels(image).tolist() == [[[255, 255, 255], [4, 5, 6]]]

    grey = Image.fromarray(np.array([[7, 9]], dtype=np.uint8))
    image = decode_image(encoded(grey, "PNG", transparency=7))
    assert pixels(image)[0, :, 0].tolist() == [255, 9]

    palette = Image.frombytes("P", (2, 1), b"\0\1")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert pixels(decode_image(encoded(palette, "PNG"))).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    for transparency in (1, b"\xff\x00"):
        image = decode_image(encoded(palette, "PNG", transparency=transparency))
        assert pixels(image).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_is_what_pillow_makes_of_it() -> None:
    cmyk = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    image = decode_image(encoded(cmyk, "JPEG", quality=100))
    assert abs(pixels(image)[0, 0].astype(int) - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("mode", ["L", "RGBA", "RGB"])
def test_modes_asked_for(mode: str) -> None:
    assert decode_image(FILES["png"], image_mode=mode).mode == mode


def test_alpha_survives_where_it_is_asked_for() -> None:
    rgba = Image.new("RGBA", (2, 2), (1, 2, 3, 4))
    assert decode_image(encoded(rgba, "PNG"), image_mode="RGBA").getpixel((0, 0)) == (1, 2, 3, 4)


def test_images_in_memory() -> None:
    array = noise(5, 4)
    assert np.array_equal(pixels(normalize_image(array)), array)
    assert np.array_equal(pixels(normalize_image(Image.fromarray(array))), array)
    assert pixels(normalize_image(array[:, :, :1])).shape == (4, 5, 3)
    assert pixels(normalize_image(array[:, :, 0])).shape == (4, 5, 3)
    # Rows that are not next to each other in memory.
    assert np.array_equal(pixels(normalize_image(array[:, ::-1])), array[:, ::-1])


def test_the_callers_image_is_left_alone() -> None:
    image = Image.new("RGB", (4, 4))
    image.info["transparency"] = (0, 0, 0)
    result = normalize_image(image)
    result.putpixel((0, 0), (9, 9, 9))
    assert image.getpixel((0, 0)) == (0, 0, 0)
    assert image.info == {"transparency": (0, 0, 0)}


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_range(mode: str) -> None:
    with pytest.raises(MediaError, match=f"mode '{mode}' has no fixed range of values"):
        normalize_image(Image.new(mode, (2, 2)))


@pytest.mark.parametrize("value", ["a", None, 5, b"x", [1]])
def test_what_is_no_image(value: Any) -> None:
    with pytest.raises(TypeError, match="Invalid image type: "):
        normalize_image(value)


def test_empty_arrays() -> None:
    with pytest.raises(MediaError) as caught:
        normalize_image(np.zeros((0, 4, 3), np.uint8))
    assert caught.value.code == "invalid_image"


def test_limits_hold_for_images_in_memory() -> None:
    with pytest.raises(MediaError) as caught:
        normalize_image(Image.new("L", (201, 1)))
    assert caught.value.code == "aspect_ratio"
