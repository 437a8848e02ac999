"""The hand-drawn pictures of ``handdrawn.txt``: plain Pillow calls, no generator behind them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw

Keywords = dict[str, str | int]
SOURCE = Path(__file__).with_name("handdrawn.txt")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a drawing method."""

    method: str
    at: tuple[float, ...]
    keywords: Keywords

    def run(self, draw: ImageDraw.ImageDraw) -> None:
        """Draw."""
        composed = {"star": _star, "heart": _heart, "plus": _plus}.get(self.method)
        if composed:
            composed(draw, self.at, str(self.keywords["fill"]))
        else:
            getattr(draw, self.method)(self.at, **self.keywords)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture and the questions about it, each with its answer."""

    name: str
    size: tuple[int, int]
    background: str
    calls: tuple[Call, ...]
    asks: tuple[tuple[str, str], ...]

    def image(self) -> Image.Image:
        """Draw the picture."""
        image = Image.new("RGB", self.size, self.background)
        draw = ImageDraw.Draw(image)
        for call in self.calls:
            call.run(draw)
        return image


@cache
def drawings() -> tuple[Drawing, ...]:
    """Return all of them."""
    return tuple(_parse(block) for block in _blocks(SOURCE.read_text()))


def _blocks(text: str) -> Iterator[list[str]]:
    """Split at the unindented lines, which start a picture each."""
    block: list[str] = []
    for row in text.splitlines():
        if not row.strip() or row.startswith("#"):
            continue
        if block and not row.startswith(" "):
            yield block
            block = []
        block.append(row)
    yield block


def _parse(block: list[str]) -> Drawing:
    name, rest = block[0].split(": ")
    size, background = rest.split()
    width, height = map(int, size.split("x"))
    asks = [row.strip().split(" -> ") for row in block[1:] if " -> " in row]
    calls = [_parse_call(row.split()) for row in block[1:] if " -> " not in row]
    return Drawing(name, (width, height), background, tuple(calls), tuple((q, a) for q, a in asks))


def _parse_call(words: list[str]) -> Call:
    at = [float(word) for word in words[1:] if "=" not in word]
    keywords: Keywords = {}
    for word in words[1:]:
        if "=" in word:
            key, value = word.split("=")
            keywords[key] = int(value) if value.isdigit() else value
    return Call(words[0], tuple(at), keywords)


def _star(draw: ImageDraw.ImageDraw, at: tuple[float, ...], fill: str) -> None:
    x, y, radius = at
    points: list[tuple[float, float]] = []
    for corner in range(10):
        reach = 0.4 * radius if corner % 2 else radius
        angle = math.pi * corner / 5
        points.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
    draw.polygon(points, fill=fill)


def _heart(draw: ImageDraw.ImageDraw, at: tuple[float, ...], fill: str) -> None:
    x, y, side = at
    draw.ellipse((x, y, x + side / 2, y + side / 2), fill=fill)
    draw.ellipse((x + side / 2, y, x + side, y + side / 2), fill=fill)
    low = y + 0.33 * side
    tip = [(x + 0.04 * side, low), (x + 0.96 * side, low), (x + side / 2, y + side)]
    draw.polygon(tip, fill=fill)


def _plus(draw: ImageDraw.ImageDraw, at: tuple[float, ...], fill: str) -> None:
    x, y, reach, half = at
    draw.rectangle((x - reach, y - half, x + reach, y + half), fill=fill)
    draw.rectangle((x - half, y - reach, x + half, y + reach), fill=fill)
