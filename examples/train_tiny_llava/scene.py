"""Scenes: what is in a picture, before it is drawn.

Coordinates and sizes are fractions of the square that the model sees (the central crop), x to the
right and y down.  A *strict* scene keeps clear of every border between two answers, so that it has
a caption; a *free* scene is bolder (any size, up to six shapes, a rim cut off) and is asked only
what stays certain.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw

from .colours import NAMES, RGB, any_rgb, distance, sample_rgb, towards
from .forms import KINDS, Form, half_extent, sample_form

SIZES = {"small": (0.135, 0.175), "medium": (0.24, 0.30), "large": (0.41, 0.54)}
CONTRAST = 0.32  # least distance of a shape from what is behind it
MARGIN = 0.02  # least distance of a strict scene's shape from the rim
VISIBLE = 0.65  # least share of a shape that nothing covers
ORDER_GAP = 0.1  # least step between neighbours along the axis that a caption names
ORDER_LEAD = 0.12  # by how much more the shapes spread along that axis than along the other
COUNT_WEIGHTS = (4, 26, 30, 30, 4, 3, 3)  # of scenes with 0, 1, ... 6 shapes
FREE_COUNT_WEIGHTS = (4, 18, 18, 18, 16, 14, 12)
MASK = 48  # side of the raster that measures visibility


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape; ``size`` is the longer side of its bounding box, ``(x, y)`` that box's centre."""

    kind: str
    colour: str
    rgb: RGB
    x: float
    y: float
    size: float
    form: Form
    line: RGB | None = None  # the outline's colour
    line_width: float = 0.0
    hollow: bool = False  # only the outline is drawn, in ``rgb``

    def points(self) -> list[tuple[float, float]]:
        """Return the outline in the scene's coordinates."""
        return [(self.x + self.size * u, self.y + self.size * v) for u, v in self.form]

    def reach(self) -> tuple[float, float]:
        """Return half the width and half the height of the bounding box."""
        u, v = half_extent(self.form)
        return self.size * u, self.size * v


@dataclass(frozen=True, slots=True)
class Background:
    """What lies behind the shapes; ``name`` is a colour's name where that is certain."""

    kind: str  # plain, gradient, striped or checkered
    rgb: RGB
    other: RGB
    name: str = ""
    angle: float = 0.0
    period: float = 0.1

    def colours(self) -> tuple[RGB, ...]:
        """Return the colours a shape must stand out from."""
        if self.kind == "plain":
            return (self.rgb,)
        return self.rgb, self.other, towards(self.rgb, self.other, 0.5)


@dataclass(frozen=True, slots=True)
class Scene:
    """A background and the shapes on it, the lowest first."""

    background: Background
    shapes: tuple[Shape, ...]
    strict: bool


def order(shapes: tuple[Shape, ...]) -> tuple[str, tuple[Shape, ...]] | None:
    """Return the axis ("x" or "y") along which two or three shapes line up, and them in order.

    It is the axis along which they spread more; None when that is a close call, or when two
    neighbours are level on it.
    """
    by_x, by_y = sorted(shapes, key=lambda s: s.x), sorted(shapes, key=lambda s: s.y)
    lead = (by_x[-1].x - by_x[0].x) - (by_y[-1].y - by_y[0].y)
    if abs(lead) < ORDER_LEAD:
        return None
    ordered = by_x if lead > 0 else by_y
    steps = (abs(b.x - a.x) if lead > 0 else abs(b.y - a.y) for a, b in pairwise(ordered))
    if min(steps) < ORDER_GAP:
        return None
    return ("x" if lead > 0 else "y"), tuple(ordered)


def visible_shares(shapes: tuple[Shape, ...]) -> list[float]:
    """Return, for each shape, the share of its area that lies inside and is not covered."""
    shares: list[float] = []
    for index, shape in enumerate(shapes):
        mask = Image.new("L", (3 * MASK, 3 * MASK))
        _paint(mask, shape, 255)
        whole = mask.histogram()[255]
        for cover in shapes[index + 1 :]:
            _paint(mask, cover, 0)
        inside = mask.crop((MASK, MASK, 2 * MASK, 2 * MASK)).histogram()[255]
        shares.append(inside / max(whole, 1))
    return shares


def _paint(mask: Image.Image, shape: Shape, value: int) -> None:
    ImageDraw.Draw(mask).polygon(
        [(MASK * (1 + x), MASK * (1 + y)) for x, y in shape.points()], fill=value
    )


def sample_scene(rng: random.Random, strict: bool = True) -> Scene:
    """Draw a scene."""
    background = _strict_background(rng) if strict else _free_background(rng)
    count = rng.choices(range(7), COUNT_WEIGHTS if strict else FREE_COUNT_WEIGHTS)[0]
    shapes = None
    while shapes is None:
        shapes = _sample_shapes(rng, background, count, strict)
    return Scene(background, shapes, strict)


def _sample_shapes(
    rng: random.Random, background: Background, count: int, strict: bool
) -> tuple[Shape, ...] | None:
    overlap = count > 1 and rng.random() < 0.2
    alike = rng.choice((0.15, 0.15, 0.8))  # how readily a kind or a colour repeats
    placed: list[Shape] = []
    for _ in range(count):
        shape = None
        for _ in range(25):
            trial = _sample_shape(rng, background, placed, count, strict, alike)
            if _fits(trial, placed, overlap):
                shape = trial
                break
        if shape is None:
            return None
        placed.append(shape)
    shapes = tuple(placed)
    if strict and count in (2, 3) and order(shapes) is None:
        return None
    crowded = any(_near(a, b, 0.0) for i, a in enumerate(shapes) for b in shapes[:i])
    if crowded or not all(_inside(shape) for shape in shapes):
        return shapes if min(visible_shares(shapes)) >= VISIBLE else None
    return shapes


def _sample_shape(
    rng: random.Random,
    background: Background,
    placed: list[Shape],
    count: int,
    strict: bool,
    alike: float,
) -> Shape:
    kind = rng.choice(placed).kind if placed and rng.random() < alike else rng.choice(KINDS)
    for _ in range(50):
        repeat = placed and rng.random() < alike
        colour = rng.choice(placed).colour if repeat else rng.choice(NAMES)
        rgb = sample_rgb(colour, rng)
        if min(distance(rgb, c) for c in background.colours()) >= CONTRAST:
            break
    else:
        colour, rgb = _boldest(background)
    size = _sample_size(rng, count, strict)
    form = sample_form(kind, rng)
    line, line_width, hollow = _sample_line(rng, rgb, size)
    reach_x, reach_y = (size * u for u in half_extent(form))
    slack = MARGIN if strict else (-0.15 * size if rng.random() < 0.15 else 0.0)
    return Shape(
        kind, colour, rgb,
        rng.uniform(reach_x + slack, 1 - reach_x - slack),
        rng.uniform(reach_y + slack, 1 - reach_y - slack),
        size, form, line, line_width, hollow,
    )  # fmt: skip


def _sample_size(rng: random.Random, count: int, strict: bool) -> float:
    if not strict:
        return rng.uniform(0.12, (0.8, 0.8, 0.55, 0.45, 0.38, 0.34, 0.3)[count])
    weights = (35, 35, 30) if count <= 2 else (45, 40, 15) if count == 3 else (60, 40, 0)
    return rng.uniform(*SIZES[rng.choices(tuple(SIZES), weights)[0]])


def _sample_line(rng: random.Random, rgb: RGB, size: float) -> tuple[RGB | None, float, bool]:
    """Return the outline's colour and width, and whether the shape is hollow."""
    draw = rng.random()
    if draw < 0.06 and size > 0.2:
        return rgb, min(rng.uniform(0.012, 0.045), 0.14 * size), True
    if draw < 0.2:
        line = rng.choice(((0, 0, 0), (0, 0, 0), (255, 255, 255), any_rgb(rng)))
        if distance(line, rgb) > 0.25:
            return line, min(rng.uniform(0.008, 0.025), 0.07 * size), False
    return None, 0.0, False


def _inside(shape: Shape) -> bool:
    (x, y), (u, v) = (shape.x, shape.y), shape.reach()
    return x - u >= 0 and x + u <= 1 and y - v >= 0 and y + v <= 1


def _near(a: Shape, b: Shape, gap: float) -> bool:
    """Say whether two bounding boxes come closer than ``gap`` on both axes."""
    (ax, ay), (bx, by) = a.reach(), b.reach()
    return abs(a.x - b.x) < ax + bx + gap and abs(a.y - b.y) < ay + by + gap


def _fits(trial: Shape, placed: list[Shape], overlap: bool) -> bool:
    for shape in placed:
        if not _near(trial, shape, 0.02 + trial.line_width + shape.line_width):
            continue
        if not overlap or trial.hollow or shape.hollow:
            return False
        if distance(trial.rgb, shape.rgb) < CONTRAST or trial.colour == shape.colour:
            return False
    return True


def _boldest(background: Background) -> tuple[str, RGB]:
    """Return black or white, whichever stands out more."""
    dark = min(distance((0, 0, 0), c) for c in background.colours())
    light = min(distance((255, 255, 255), c) for c in background.colours())
    return ("black", (0, 0, 0)) if dark > light else ("white", (255, 255, 255))


def _strict_background(rng: random.Random) -> Background:
    kind = rng.choices(("plain", "gradient", "striped", "checkered"), (70, 14, 9, 7))[0]
    if kind == "plain":
        name = rng.choices(("white", "black", "gray", rng.choice(NAMES)), (38, 14, 14, 34))[0]
        rgb = sample_rgb(name, rng)
        return Background(kind, rgb, rgb, name)
    return _pattern(rng, kind)


def _free_background(rng: random.Random) -> Background:
    kind = rng.choices(("plain", "gradient", "striped", "checkered"), (70, 20, 5, 5))[0]
    if kind != "plain":
        return _pattern(rng, kind)
    rgb = (255, 255, 255) if rng.random() < 0.25 else any_rgb(rng)
    return Background(kind, rgb, rgb)


def _pattern(rng: random.Random, kind: str) -> Background:
    least, most = (0.4, 0.9) if kind == "gradient" else (0.18, 0.45)
    while True:
        rgb, other = any_rgb(rng), any_rgb(rng)
        if least <= distance(rgb, other) <= most:
            break
    angle = rng.choice((0.0, 90.0, 45.0, 135.0)) if rng.random() < 0.6 else rng.uniform(0, 360)
    if kind == "checkered":
        angle = 0.0
    return Background(kind, rgb, other, "", angle, rng.uniform(0.08, 0.2))
