"""Named colours: where each name is certain, and how to draw one from there.

A name owns a box of hue, saturation and value.  The boxes leave gaps, so that no sampled colour
sits on a border where two people would call it differently.
"""

from __future__ import annotations

import colorsys
import math
import random
from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ColourBox:
    """The hues (degrees), saturations and values that surely have one name."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]
    exact: tuple[RGB, ...]  # what drawing programs mean by the name


COLOURS: dict[str, ColourBox] = {
    "red": ColourBox((-12, 6), (0.78, 1.0), (0.80, 1.0), ((255, 0, 0), (220, 20, 60))),
    "orange": ColourBox((23, 39.5), (0.85, 1.0), (0.90, 1.0), ((255, 165, 0), (255, 140, 0))),
    "yellow": ColourBox((50.5, 63), (0.65, 1.0), (0.88, 1.0), ((255, 255, 0), (255, 215, 0))),
    "green": ColourBox(
        (95, 148),
        (0.55, 1.0),
        (0.38, 1.0),
        ((0, 128, 0), (0, 255, 0), (34, 139, 34), (50, 205, 50)),
    ),
    "cyan": ColourBox((175, 189), (0.65, 1.0), (0.80, 1.0), ((0, 255, 255), (64, 224, 208))),
    "blue": ColourBox(
        (214, 244), (0.65, 1.0), (0.50, 1.0), ((0, 0, 255), (0, 0, 128), (65, 105, 225))
    ),
    "purple": ColourBox((270, 300), (0.55, 1.0), (0.42, 0.68), ((128, 0, 128), (102, 51, 153))),
    "pink": ColourBox((326, 350), (0.25, 0.60), (0.94, 1.0), ((255, 192, 203), (255, 105, 180))),
    "brown": ColourBox(
        (5, 27), (0.62, 0.88), (0.36, 0.62), ((165, 42, 42), (139, 69, 19), (160, 82, 45))
    ),
    "black": ColourBox((0, 360), (0.0, 0.5), (0.0, 0.10), ((0, 0, 0),)),
    "white": ColourBox((0, 360), (0.0, 0.03), (0.96, 1.0), ((255, 255, 255),)),
    "gray": ColourBox((0, 360), (0.0, 0.05), (0.42, 0.70), ((128, 128, 128), (169, 169, 169))),
}
NAMES = tuple(COLOURS)


def sample_rgb(name: str, rng: random.Random, exact: float = 0.4) -> RGB:
    """Draw a colour that has ``name``; with probability ``exact`` one of its pure forms."""
    box = COLOURS[name]
    if rng.random() < exact:
        return box.exact[0] if rng.random() < 0.6 else rng.choice(box.exact)
    red, green, blue = colorsys.hsv_to_rgb(
        rng.uniform(*box.hue) / 360.0 % 1.0, rng.uniform(*box.saturation), rng.uniform(*box.value)
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def any_rgb(rng: random.Random) -> RGB:
    """Draw any colour at all, for backgrounds that no question names."""
    if rng.random() < 0.4:  # pastel
        return rng.randint(190, 255), rng.randint(190, 255), rng.randint(190, 255)
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)


def distance(a: RGB, b: RGB) -> float:
    """Return the Euclidean distance of two colours, each channel scaled to 0..1."""
    return math.dist(a, b) / 255.0


def towards(a: RGB, b: RGB, share: float) -> RGB:
    """Return the colour ``share`` of the way from ``a`` to ``b``."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue
