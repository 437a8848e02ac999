"""The outlines of the shapes, as polygons in a unit box.

Every form is centred on its bounding box, whose longer side is 1.  So a shape's position and size
mean the same for all kinds and rotations: the centre and the longer side of its bounding box.
The y axis points down, as in pictures.
"""

from __future__ import annotations

import math
import random

Point = tuple[float, float]
Form = tuple[Point, ...]

KINDS = ("circle", "square", "triangle", "star", "heart", "cross")
ARC_STEPS = 12  # points for a quarter of a circle


def normalised(points: list[Point]) -> Form:
    """Move the polygon's bounding box to the origin and scale its longer side to 1."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    side = max(max(xs) - min(xs), max(ys) - min(ys))
    mid_x, mid_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return tuple(((x - mid_x) / side, (y - mid_y) / side) for x, y in points)


def half_extent(form: Form) -> Point:
    """Return half the width and half the height of the form's bounding box."""
    return max(x for x, _ in form), max(y for _, y in form)


def turned(points: list[Point], degrees: float) -> list[Point]:
    """Rotate the points about the origin."""
    if degrees == 0:
        return points
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(c * x - s * y, s * x + c * y) for x, y in points]


def arc(mid: Point, radius: float, start: float, stop: float) -> list[Point]:
    """Return points on a circle from angle ``start`` to ``stop`` (degrees)."""
    steps = max(2, round(abs(stop - start) / 90 * ARC_STEPS))
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return [(mid[0] + radius * math.cos(a), mid[1] + radius * math.sin(a)) for a in angles]


def circle(rng: random.Random) -> list[Point]:
    squeeze = rng.uniform(0.78, 1.0) if rng.random() < 0.2 else 1.0
    points = [(x, y * squeeze) for x, y in arc((0, 0), 1, 0, 360)[:-1]]
    return turned(points, rng.choice((0, 90)))


def square(rng: random.Random) -> list[Point]:
    squeeze = rng.uniform(0.78, 1.0) if rng.random() < 0.2 else 1.0
    if rng.random() < 0.08:  # rounded corners
        r = rng.uniform(0.1, 0.4)
        corners = ((1 - r, 1 - r, 0), (r - 1, 1 - r, 90), (r - 1, r - 1, 180), (1 - r, r - 1, 270))
        points = [p for x, y, a in corners for p in arc((x, y), r, a, a + 90)]
    else:
        points = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
    points = turned([(x, y * squeeze) for x, y in points], rng.choice((0, 90)))
    return turned(points, _tilt(rng, upright=0.6, most=45))


def triangle(rng: random.Random) -> list[Point]:
    draw = rng.random()
    if draw < 0.4:  # equilateral
        points = arc((0, 0), 1, -90, 270)[:: 4 * ARC_STEPS // 3][:3]
    elif draw < 0.7:  # isosceles
        points = [(0.0, -rng.uniform(0.75, 1.3)), (1.0, 0.6), (-1.0, 0.6)]
    elif draw < 0.8:  # right-angled
        points = [(-1.0, -rng.uniform(0.7, 1.3)), (1.0, 0.7), (-1.0, 0.7)]
        if rng.random() < 0.5:
            points = [(-x, y) for x, y in points]
    else:  # scalene, no angle under about 35 degrees
        points = [(rng.uniform(-0.8, 0.8), -rng.uniform(0.8, 1.2)), (1.0, 0.6), (-1.0, 0.6)]
    return turned(points, _tilt(rng, upright=0.65, most=180))


def star(rng: random.Random) -> list[Point]:
    tips = 6 if rng.random() < 0.08 else 5
    if tips == 5 and rng.random() < 0.06:  # the pen's way: five crossing lines
        points = [(math.sin(0.8 * math.pi * i), -math.cos(0.8 * math.pi * i)) for i in range(5)]
    else:
        inner = rng.uniform(0.36, 0.5)
        points = [
            ((1, inner)[i % 2] * math.sin(math.pi * i / tips),
             -(1, inner)[i % 2] * math.cos(math.pi * i / tips))
            for i in range(2 * tips)
        ]  # fmt: skip
    return turned(points, _tilt(rng, upright=0.6, most=180))


def heart(rng: random.Random) -> list[Point]:
    if rng.random() < 0.5:  # the usual curve
        angles = [2 * math.pi * i / 48 for i in range(48)]
        points = [
            (16 * math.sin(a) ** 3,
             -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)))
            for a in angles
        ]  # fmt: skip
    else:  # two half circles on a triangle
        points = arc((-0.5, 0), 0.5, 180, 360) + arc((0.5, 0), 0.5, 180, 360)
        points.append((0.0, rng.uniform(1.0, 1.35)))
    return turned(points, _tilt(rng, upright=0.75, most=30))


def cross(rng: random.Random) -> list[Point]:
    a = rng.uniform(0.24, 0.42)
    quarter = [(a, -1.0), (a, -a), (1.0, -a)]
    points = [p for i in range(4) for p in turned(quarter, 90 * i)]
    draw = rng.random()
    if draw < 0.15:
        return turned(points, 45)
    return turned(points, _tilt(rng, upright=0.75, most=45))


def _tilt(rng: random.Random, upright: float, most: float) -> float:
    """Return no rotation, a slight one, or any up to ``most`` degrees either way."""
    if rng.random() < upright:
        return 0.0
    if rng.random() < 0.5:
        return rng.uniform(-15, 15)
    return rng.uniform(-most, most)


_MAKERS = dict(zip(KINDS, (circle, square, triangle, star, heart, cross), strict=True))


def sample_form(kind: str, rng: random.Random) -> Form:
    """Draw one outline of the given kind."""
    return normalised(_MAKERS[kind](rng))
