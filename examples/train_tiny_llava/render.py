"""Draw a scene with Pillow, at many resolutions, and fit it to the model's input.

``render`` makes the picture a user would have; ``fit`` does what the checkpoint's image processor
does up to the normalisation: shortest edge to ``SIDE``, bicubic, central crop.
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .colours import NAMES, RGB
from .forms import KINDS
from .scene import Background, Scene, Shape

SIDE = 112  # the model's input, pixels
PATCH = 8
GRID = SIDE // PATCH
RATIOS = (1.0, 1.0, 1.0, 1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 1.1)


@dataclass(frozen=True, slots=True)
class Canvas:
    """How a scene is put into pixels."""

    width: int
    height: int
    supersample: int = 1  # 1 leaves the edges jagged
    noise: float = 0.0  # standard deviation, 8-bit steps
    grain: int = 1  # side of a noise cell, pixels
    blur: float = 0.0
    jpeg: int = 0  # quality, 0 for none
    seed: int = 0


def sample_canvas(rng: random.Random) -> Canvas:
    """Draw a resolution, an aspect ratio and some wear."""
    draw = rng.random()
    if draw < 0.35:
        short = SIDE
    elif draw < 0.6:
        short = rng.choice((64, 80, 96, 128, 160, 200, 224, 256))
    else:
        short = round(math.exp(rng.uniform(math.log(64), math.log(768 if draw > 0.94 else 340))))
    ratio = rng.choice(RATIOS)
    width, height = (round(short * ratio), short) if ratio >= 1 else (short, round(short / ratio))
    supersample = rng.choices((1, 2, 3), (55, 30, 15))[0]
    if short * supersample > 420:
        supersample = 1
    worn = rng.random() < 0.4
    return Canvas(
        width,
        height,
        supersample,
        rng.uniform(2, 24) if worn else 0.0,
        max(1, short // rng.choice((SIDE, SIDE, 2 * SIDE))),
        rng.uniform(0.3, 0.9) * short / 160 if rng.random() < 0.1 else 0.0,
        rng.randint(40, 95) if rng.random() < 0.12 else 0,
        rng.getrandbits(32),
    )


def render(scene: Scene, canvas: Canvas) -> Image.Image:
    """Draw the scene; the result has exactly the canvas's size."""
    scale = canvas.supersample
    image = _paint_background(scene.background, canvas.width * scale, canvas.height * scale)
    draw = ImageDraw.Draw(image)
    for shape in scene.shapes:
        _paint_shape(draw, shape, image.width, image.height)
    if scale > 1:
        image = image.resize((canvas.width, canvas.height), Image.Resampling.BOX)
    if canvas.blur:
        image = image.filter(ImageFilter.GaussianBlur(canvas.blur))
    if canvas.noise:
        image = _add_noise(image, canvas)
    if canvas.jpeg:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=canvas.jpeg)
        image = Image.open(buffer).convert("RGB")
    return image


def fit(image: Image.Image) -> np.ndarray:
    """Resize and crop as the image processor does; returns uint8 [SIDE, SIDE, 3]."""
    width, height = image.size
    if width <= height:
        size = SIDE, int(SIDE * height / width)
    else:
        size = int(SIDE * width / height), SIDE
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def patch_labels(scene: Scene) -> np.ndarray:
    """Return the kind and the colour at every patch's centre, uint8 [2, GRID * GRID].

    Where no shape is, the label is one past the last kind or colour.
    """
    owners = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(owners)
    for index, shape in enumerate(scene.shapes):
        draw.polygon([(SIDE * x, SIDE * y) for x, y in shape.points()], fill=index + 1)
    middle = slice(PATCH // 2, None, PATCH)
    owner = np.asarray(owners)[middle, middle].reshape(-1)
    kinds = [len(KINDS)] + [KINDS.index(s.kind) for s in scene.shapes]
    colours = [len(NAMES)] + [NAMES.index(s.colour) for s in scene.shapes]
    return np.stack([np.array(kinds, np.uint8)[owner], np.array(colours, np.uint8)[owner]])


def _paint_shape(draw: ImageDraw.ImageDraw, shape: Shape, width: int, height: int) -> None:
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    points = [(left + side * x, top + side * y) for x, y in shape.points()]
    line = shape.line if shape.line_width else None
    pixels = max(1, round(side * shape.line_width)) if line else 0
    fill = None if shape.hollow else shape.rgb
    if shape.kind == "circle":
        (x, y), (u, v) = (left + side * shape.x, top + side * shape.y), shape.reach()
        box = (x - side * u, y - side * v, x + side * u, y + side * v)
        draw.ellipse(box, fill=fill, outline=line, width=max(1, pixels))
        return
    if fill:
        draw.polygon(points, fill=fill)
    if line:
        draw.line([*points, points[0], points[1]], fill=line, width=pixels, joint="curve")


def _paint_background(background: Background, width: int, height: int) -> Image.Image:
    if background.kind == "plain":
        return Image.new("RGB", (width, height), background.rgb)
    if background.kind == "gradient":
        return _paint_gradient(background, width, height)
    image = Image.new("RGB", (width, height), background.rgb)
    draw = ImageDraw.Draw(image)
    step = background.period * min(width, height)
    if background.kind == "checkered":
        for row in range(math.ceil(height / step)):
            for column in range(row % 2, math.ceil(width / step), 2):
                x, y = column * step, row * step
                draw.rectangle((x, y, x + step - 1, y + step - 1), fill=background.other)
        return image
    _paint_stripes(draw, background.other, background.angle, step, width, height)
    return image


def _paint_gradient(background: Background, width: int, height: int) -> Image.Image:
    """Mix the two colours along ``angle``; drawn small and enlarged, which is smooth and cheap."""
    side = 48
    ys, xs = np.mgrid[0:side, 0:side] / (side - 1) - 0.5
    c, s = math.cos(math.radians(background.angle)), math.sin(math.radians(background.angle))
    share = ((xs * c + ys * s) / (abs(c) + abs(s)) + 0.5)[..., None]
    a, b = np.array(background.rgb, float), np.array(background.other, float)
    small = Image.fromarray((a + (b - a) * share + 0.5).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BILINEAR)


def _paint_stripes(
    draw: ImageDraw.ImageDraw, rgb: RGB, angle: float, step: float, width: int, height: int
) -> None:
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    far = math.hypot(width, height)
    for index in range(-math.ceil(far / step / 4) - 1, math.ceil(far / step / 4) + 1):
        near, end = 2 * index * step, (2 * index + 1) * step
        corners = ((near, -far), (end, -far), (end, far), (near, far))
        draw.polygon(
            [(width / 2 + u * c - v * s, height / 2 + u * s + v * c) for u, v in corners], fill=rgb
        )


def _add_noise(image: Image.Image, canvas: Canvas) -> Image.Image:
    cells = -(-canvas.height // canvas.grain), -(-canvas.width // canvas.grain), 3
    noise = np.random.default_rng(canvas.seed).standard_normal(cells, np.float32) * canvas.noise
    tile = Image.fromarray(np.clip(noise + 128.5, 0, 255).astype(np.uint8))
    if canvas.grain > 1:
        tile = tile.resize(
            (tile.width * canvas.grain, tile.height * canvas.grain), Image.Resampling.NEAREST
        ).crop((0, 0, canvas.width, canvas.height))
    return ImageChops.add(image, tile, 1, -128)
