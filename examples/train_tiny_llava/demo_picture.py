"""Draw the demonstration picture that ships with mmcore.

cd examples && python -m train_tiny_llava.demo_picture ../python/mmcore/assets/shapes.png
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from PIL import Image, ImageDraw

CAPTION = (
    "From left to right: a large red circle, a small yellow star and a blue triangle "
    "on a white background."
)
SIDE, SMOOTH = 336, 4


def draw_picture() -> Image.Image:
    """Draw it four times as large and shrink it, which smooths the edges."""
    image = Image.new("RGB", (SIDE * SMOOTH, SIDE * SMOOTH), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse(_scaled((24, 118), (176, 270)), fill="#e4232e")
    draw.polygon(_scaled(*_star(210, 104, 28)), fill="#ffdd00")
    draw.polygon(_scaled((268, 182), (318, 274), (218, 274)), fill="#2058d8")
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def _scaled(*points: tuple[float, float]) -> list[tuple[float, float]]:
    return [(SMOOTH * x, SMOOTH * y) for x, y in points]


def _star(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for corner in range(10):
        reach = 0.42 * radius if corner % 2 else radius
        angle = math.pi * corner / 5
        points.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
    return points


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    draw_picture().save(parser.parse_args(argv).out, optimize=True)


if __name__ == "__main__":
    main()
