"""Pictures written down by hand with plain Pillow calls, and what is true of them.

None of them comes from the generator that the model was trained on: sharp edges, pure colours,
many sizes.  All shapes lie in the central square, which is what the image processor keeps.

    Drawing(name, (width, height), background, calls, asks)

A call is the name of an ImageDraw method, its coordinates and its keywords; ``star``, ``heart`` and
``plus`` are put together from those methods the way one would by hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture and the questions about it, each with its answer."""

    name: str
    size: tuple[int, int]
    background: str
    calls: tuple[Call, ...]
    asks: tuple[tuple[str, str], ...]

    def image(self) -> Image.Image:
        """Draw it."""
        image = Image.new("RGB", self.size, self.background)
        draw = ImageDraw.Draw(image)
        for method, at, keywords in self.calls:
            if method in _COMPOSED:
                _COMPOSED[method](draw, at, **keywords)
            else:
                getattr(draw, method)(at, **keywords)
        return image


def _star(draw: ImageDraw.ImageDraw, at: tuple[float, ...], **keywords: Any) -> None:
    x, y, radius = at
    tips = [
        (x + (radius, 0.4 * radius)[i % 2] * math.sin(math.pi * i / 5),
         y - (radius, 0.4 * radius)[i % 2] * math.cos(math.pi * i / 5))
        for i in range(10)
    ]  # fmt: skip
    draw.polygon(tips, **keywords)


def _heart(draw: ImageDraw.ImageDraw, at: tuple[float, ...], **keywords: Any) -> None:
    x, y, side = at  # the top left corner and the width
    draw.ellipse((x, y, x + side / 2, y + side / 2), **keywords)
    draw.ellipse((x + side / 2, y, x + side, y + side / 2), **keywords)
    low = y + 0.33 * side
    draw.polygon([(x + 0.04 * side, low), (x + 0.96 * side, low), (x + side / 2, y + side)], **keywords)


def _plus(draw: ImageDraw.ImageDraw, at: tuple[float, ...], **keywords: Any) -> None:
    x, y, reach, half = at
    draw.rectangle((x - reach, y - half, x + reach, y + half), **keywords)
    draw.rectangle((x - half, y - reach, x + half, y + reach), **keywords)


_COMPOSED = {"star": _star, "heart": _heart, "plus": _plus}


def disc(x: float, y: float, r: float, fill: str, **more: Any) -> Call:
    return "ellipse", (x - r, y - r, x + r, y + r), {"fill": fill, **more}


def box(x0: float, y0: float, x1: float, y1: float, fill: str, **more: Any) -> Call:
    return "rectangle", (x0, y0, x1, y1), {"fill": fill, **more}


def poly(points: tuple[float, ...], fill: str, **more: Any) -> Call:
    return "polygon", points, {"fill": fill, **more}


def star(x: float, y: float, r: float, fill: str) -> Call:
    return "star", (x, y, r), {"fill": fill}


def heart(x: float, y: float, side: float, fill: str) -> Call:
    return "heart", (x, y, side), {"fill": fill}


def plus(x: float, y: float, reach: float, half: float, fill: str) -> Call:
    return "plus", (x, y, reach, half), {"fill": fill}


DRAWINGS: tuple[Drawing, ...] = (
    # One shape.
    Drawing("red disc", (336, 336), "white", (disc(168, 168, 70, "red"),), (
        ("How many circles are there?", "1"), ("What color is the circle?", "red"),
        ("How many shapes are there?", "1"), ("Is there a square?", "no"),
        ("What shape is red?", "circle"), ("Describe the image.", "A large red circle on a white background."))),
    Drawing("blue box", (64, 64), "white", (box(18, 18, 46, 46, "blue"),), (
        ("what colour is the square", "blue"), ("How many squares are there?", "1"),
        ("Is there a circle?", "no"), ("What shape is this?", "square"))),
    Drawing("green triangle", (640, 480), "white", (poly((320, 120, 450, 360, 190, 360), "green"),), (
        ("What shape is green?", "triangle"), ("How many triangles?", "1"),
        ("Is there a red triangle?", "no"), ("What color is the triangle?", "green"))),
    Drawing("gold star", (512, 512), "black", (star(256, 256, 130, "gold"),), (
        ("What shape do you see?", "star"), ("What colour is the star?", "yellow"),
        ("What colour is the background?", "black"), ("How many stars are there?", "1"))),
    Drawing("pink heart", (300, 300), "white", (heart(90, 80, 120, "hotpink"),), (
        ("Is there a heart?", "yes"), ("What color is the heart?", "pink"),
        ("How many hearts are in the picture?", "1"), ("Is there a star?", "no"))),
    Drawing("black plus", (400, 400), "lightgray", (plus(200, 200, 90, 30, "black"),), (
        ("What shape is black?", "cross"), ("How many crosses are there?", "1"),
        ("Is there a black cross?", "yes"), ("Is there a black circle?", "no"))),
    Drawing("white disc on navy", (1024, 768), "navy", (disc(512, 384, 150, "white"),), (
        ("How many circles are there?", "1"), ("What color is the circle?", "white"),
        ("What colour is the background?", "blue"), ("Is there a white circle?", "yes"))),
    Drawing("brown box", (200, 300), "white", (box(70, 120, 130, 180, "saddlebrown"),), (
        ("What colour is the square?", "brown"), ("Is there a brown square?", "yes"),
        ("How many brown shapes are there?", "1"))),
    Drawing("cyan triangle", (128, 128), "black", (poly((64, 20, 104, 100, 24, 100), "cyan"),), (
        ("What color is the triangle?", "cyan"), ("What shape is cyan?", "triangle"),
        ("Are there any circles?", "no"))),
    Drawing("purple star", (250, 200), "white", (star(125, 100, 60, "purple"),), (
        ("What colour is the star?", "purple"), ("how many stars are there", "1"),
        ("Is there a purple star?", "yes"), ("Is there a purple heart?", "no"))),
    Drawing("orange disc on gray", (800, 600), "gray", (disc(400, 300, 60, "orange"),), (
        ("What color is the circle?", "orange"), ("What colour is the background?", "gray"),
        ("How many circles are there in the image?", "1"))),
    Drawing("small red disc in a corner", (336, 336), "white", (disc(50, 50, 26, "red"),), (
        ("How many circles are there?", "1"), ("Where is the circle?", "top left"),
        ("What size is the circle?", "small"), ("Is the circle large?", "no"))),
    # None.
    Drawing("blank", (336, 336), "white", (), (
        ("How many circles are there?", "0"), ("How many shapes are there?", "0"),
        ("Is there a circle?", "no"), ("Describe the image.", "An empty white background."))),
    Drawing("blank black", (500, 375), "black", (), (
        ("How many shapes are there?", "0"), ("Is there a red square?", "no"),
        ("What colour is the background?", "black"))),
    # Two.
    Drawing("disc and box", (336, 336), "white", (disc(90, 168, 50, "red"), box(200, 118, 300, 218, "blue")), (
        ("How many circles are there?", "1"), ("How many shapes are there?", "2"),
        ("Is the circle left of the square?", "yes"), ("Is the square left of the circle?", "no"),
        ("What color is the square?", "blue"), ("What shape is red?", "circle"),
        ("Describe the image.", "A red circle left of a blue square on a white background."))),
    Drawing("star over box", (336, 336), "white", (star(168, 80, 50, "green"), box(120, 210, 210, 300, "orange")), (
        ("Is the star above the square?", "yes"), ("Is the square above the star?", "no"),
        ("Is there a star below the square?", "no"), ("What color is the star?", "green"),
        ("What shape is orange?", "square"), ("How many hearts are there?", "0"))),
    Drawing("two discs", (640, 480), "white", (disc(200, 240, 60, "blue"), disc(440, 240, 60, "blue")), (
        ("How many circles are there?", "2"), ("How many blue circles are there?", "2"),
        ("How many red circles are there?", "0"), ("What colour are the circles?", "blue"))),
    Drawing("red and green disc", (224, 224), "white", (disc(60, 60, 30, "red"), disc(160, 160, 30, "green")), (
        ("How many circles are there?", "2"), ("How many red circles are there?", "1"),
        ("Is there a green circle?", "yes"), ("Is there a blue circle?", "no"))),
    Drawing("box and triangle, tall", (300, 400), "white", (box(100, 70, 200, 170, "black"), poly((150, 230, 210, 330, 90, 330), "red")), (
        ("Is the square above the triangle?", "yes"), ("Is there a triangle below the square?", "yes"),
        ("What color is the triangle?", "red"), ("Is there a red triangle?", "yes"),
        ("Is there a black triangle?", "no"))),
    Drawing("heart and star, night", (512, 512), "black", (heart(60, 190, 130, "red"), star(380, 256, 75, "yellow")), (
        ("Is the heart left of the star?", "yes"), ("Is the star to the right of the heart?", "yes"),
        ("What colour is the star?", "yellow"), ("What colour is the heart?", "red"),
        ("How many shapes are there?", "2"))),
    Drawing("large and small", (336, 336), "white", (disc(110, 168, 80, "blue"), disc(270, 168, 25, "red")), (
        ("What colour is the largest shape?", "blue"), ("What color is the smaller shape?", "red"),
        ("How many circles are there?", "2"), ("What color is the circle on the left?", "blue"))),
    Drawing("plus and disc", (400, 300), "white", (plus(110, 150, 40, 13, "green"), disc(290, 150, 40, "purple")), (
        ("Is there a cross left of the circle?", "yes"), ("What colour is the cross?", "green"),
        ("What shape is purple?", "circle"), ("How many crosses are there?", "1"))),
    Drawing("yellow box and pink disc on blue", (256, 256), "blue", (box(30, 30, 100, 100, "yellow"), disc(190, 190, 35, "pink")), (
        ("What color is the square?", "yellow"), ("What color is the circle?", "pink"),
        ("What colour is the background?", "blue"), ("Is the circle below the square?", "yes"))),
    Drawing("two boxes", (96, 96), "white", (box(10, 35, 35, 60, "red"), box(60, 35, 85, 60, "green")), (
        ("How many squares are there?", "2"), ("How many red squares are there?", "1"),
        ("How many circles are there?", "0"), ("Is there a green square?", "yes"))),
    Drawing("two triangles", (600, 600), "lightyellow", (poly((150, 200, 230, 340, 70, 340), "blue"), poly((430, 200, 510, 340, 350, 340), "brown")), (
        ("How many triangles are there?", "2"), ("Is there a blue triangle?", "yes"),
        ("How many squares are there?", "0"), ("How many brown shapes are there?", "1"))),
    Drawing("overlapping", (336, 336), "white", (box(70, 110, 180, 220, "yellow"), disc(205, 175, 55, "blue")), (
        ("How many shapes are there?", "2"), ("What color is the circle?", "blue"),
        ("What color is the square?", "yellow"), ("Is the square left of the circle?", "yes"))),
    Drawing("gray disc, white star on green", (300, 300), "green", (disc(80, 150, 40, "gray"), star(220, 150, 45, "white")), (
        ("What colour is the star?", "white"), ("What colour is the circle?", "gray"),
        ("What colour is the background?", "green"), ("Is the star right of the circle?", "yes"))),
    Drawing("outlined", (336, 336), "white", (disc(90, 168, 50, "yellow", outline="black", width=4), box(200, 118, 300, 218, "red", outline="black", width=4)), (
        ("What color is the circle?", "yellow"), ("What color is the square?", "red"),
        ("How many shapes are there?", "2"), ("How many black shapes are there?", "0"))),
    Drawing("hollow disc", (336, 336), "white", (("ellipse", (100, 100, 236, 236), {"outline": "red", "width": 12}),), (
        ("How many circles are there?", "1"), ("What color is the circle?", "red"))),
    Drawing("thin hollow box", (336, 336), "white", (("rectangle", (100, 100, 236, 236), {"outline": "blue", "width": 8}),), (
        ("How many squares are there?", "1"), ("What colour is the square?", "blue"))),
    # Three.
    Drawing("row of three", (336, 336), "white", (disc(60, 168, 40, "red"), box(130, 130, 206, 206, "green"), poly((276, 128, 316, 206, 236, 206), "blue")), (
        ("How many shapes are there?", "3"), ("How many circles are there?", "1"),
        ("What shape is green?", "square"), ("What color is the triangle?", "blue"),
        ("Is the square right of the circle?", "yes"), ("Is there a circle left of the triangle?", "yes"),
        ("Describe the image.", "From left to right: a red circle, a green square and a blue triangle on a white background."))),
    Drawing("three discs", (640, 480), "white", (disc(150, 120, 45, "red"), disc(320, 240, 45, "green"), disc(490, 360, 45, "blue")), (
        ("How many circles are there?", "3"), ("How many green circles are there?", "1"),
        ("How many squares are there?", "0"), ("How many shapes are there in the image?", "3"))),
    Drawing("traffic light", (200, 400), "black", (disc(100, 130, 26, "red"), disc(100, 200, 26, "yellow"), disc(100, 270, 26, "green")), (
        ("How many circles are there?", "3"), ("Is there a yellow circle?", "yes"),
        ("Is there a blue circle?", "no"), ("What colour is the shape at the top?", "red"),
        ("What colour is the shape at the bottom?", "green"))),
    Drawing("two discs, one box", (400, 400), "white", (disc(100, 100, 50, "orange"), disc(300, 110, 50, "purple"), box(140, 250, 250, 360, "green")), (
        ("How many circles are there?", "2"), ("How many squares are there?", "1"),
        ("How many shapes are there?", "3"), ("What color is the square?", "green"),
        ("What shape is purple?", "circle"), ("Is there a square below the orange circle?", "yes"))),
    Drawing("three stars", (500, 500), "midnightblue", (star(120, 130, 60, "yellow"), star(370, 150, 60, "white"), star(250, 370, 60, "yellow")), (
        ("How many stars are there?", "3"), ("How many yellow stars are there?", "2"),
        ("How many white stars are there?", "1"), ("Is there a heart?", "no"))),
    Drawing("heart, plus, star", (600, 450), "white", (heart(110, 160, 110, "red"), plus(320, 225, 55, 18, "blue"), star(460, 225, 60, "orange")), (
        ("What color is the heart?", "red"), ("What color is the cross?", "blue"),
        ("What color is the star?", "orange"), ("Is the heart left of the star?", "yes"),
        ("How many shapes are there?", "3"))),
    Drawing("three boxes", (336, 252), "white", (box(60, 100, 110, 150, "red"), box(145, 100, 195, 150, "red"), box(230, 100, 280, 150, "blue")), (
        ("How many squares are there?", "3"), ("How many red squares are there?", "2"),
        ("How many blue squares are there?", "1"), ("What shape is blue?", "square"))),
    Drawing("column of three", (336, 336), "white", (box(140, 20, 200, 80, "black"), disc(170, 168, 32, "green"), poly((170, 240, 206, 310, 134, 310), "purple")), (
        ("Is the square above the circle?", "yes"), ("Is the triangle below the circle?", "yes"),
        ("Is the triangle above the square?", "no"), ("What shape is purple?", "triangle"),
        ("How many shapes are there?", "3"))),
    Drawing("disc, heart, box on gray", (448, 448), "lightgray", (disc(90, 100, 45, "blue"), heart(280, 60, 100, "red"), box(170, 280, 270, 380, "white")), (
        ("How many hearts are there?", "1"), ("What color is the square?", "white"),
        ("What shape is blue?", "circle"), ("Is there a red heart?", "yes"), ("Is there a red circle?", "no"))),
    Drawing("three triangles", (200, 200), "white", (poly((45, 30, 75, 85, 15, 85), "red"), poly((150, 30, 180, 85, 120, 85), "orange"), poly((100, 115, 130, 170, 70, 170), "green")), (
        ("How many triangles are there?", "3"), ("Are there any squares?", "no"),
        ("Is there an orange triangle?", "yes"), ("How many shapes are there?", "3"))),
    Drawing("tiny picture", (64, 64), "black", (disc(16, 32, 9, "red"), box(38, 23, 56, 41, "yellow")), (
        ("How many shapes are there?", "2"), ("What color is the circle?", "red"),
        ("What colour is the square?", "yellow"), ("Is the circle left of the square?", "yes"))),
    Drawing("wide picture", (1024, 512), "white", (disc(400, 256, 70, "purple"), box(540, 190, 670, 320, "cyan")), (
        ("How many shapes are there?", "2"), ("What color is the circle?", "purple"),
        ("What color is the square?", "cyan"), ("Is the circle to the left of the square?", "yes"))),
    Drawing("portrait", (480, 640), "beige", (star(240, 220, 80, "red"), disc(240, 430, 70, "black")), (
        ("Is the star above the circle?", "yes"), ("What colour is the circle?", "black"),
        ("How many stars are there?", "1"), ("How many circles are there?", "1"))),
    # More than three.
    Drawing("four discs", (336, 336), "white", (disc(80, 80, 35, "red"), disc(250, 80, 35, "blue"), disc(80, 250, 35, "green"), disc(250, 250, 35, "yellow")), (
        ("How many circles are there?", "4"), ("How many shapes are there?", "4"),
        ("Is there a yellow circle?", "yes"), ("Is there a purple circle?", "no"))),
    Drawing("five boxes", (500, 500), "white", (box(50, 50, 120, 120, "red"), box(200, 60, 270, 130, "red"), box(360, 50, 430, 120, "red"), box(110, 300, 180, 370, "red"), box(300, 320, 370, 390, "red")), (
        ("How many squares are there?", "5"), ("How many red squares are there?", "5"),
        ("How many circles are there?", "0"))),
    Drawing("mixed four", (400, 400), "white", (disc(90, 90, 40, "red"), disc(300, 90, 40, "red"), box(50, 270, 130, 350, "blue"), star(300, 310, 50, "green")), (
        ("How many circles are there?", "2"), ("How many squares are there?", "1"),
        ("How many shapes are there?", "4"), ("What color is the star?", "green"),
        ("How many red circles are there?", "2"))),
    Drawing("six discs", (600, 600), "white", (disc(120, 150, 40, "black"), disc(300, 150, 40, "black"), disc(480, 150, 40, "black"), disc(120, 430, 40, "black"), disc(300, 430, 40, "black"), disc(480, 430, 40, "black")), (
        ("How many circles are there?", "6"), ("How many black circles are there?", "6"),
        ("How many triangles are there?", "0"))),
    # Other pure colours and backgrounds.
    Drawing("lime on black", (336, 336), "black", (poly((168, 60, 270, 250, 66, 250), "lime"),), (
        ("What color is the triangle?", "green"), ("How many triangles are there?", "1"))),
    Drawing("crimson on white", (336, 336), "white", (heart(100, 90, 140, "crimson"),), (
        ("What color is the heart?", "red"), ("What shape is red?", "heart"))),
    Drawing("darkorange on navy", (336, 336), "navy", (box(110, 110, 230, 230, "darkorange"),), (
        ("What color is the square?", "orange"), ("What colour is the background?", "blue"))),
    Drawing("royalblue on white", (300, 200), "white", (star(150, 100, 55, "royalblue"),), (
        ("What color is the star?", "blue"), ("Is there a blue star?", "yes"))),
    Drawing("forestgreen and sienna", (420, 300), "white", (disc(130, 150, 45, "forestgreen"), box(240, 105, 330, 195, "sienna")), (
        ("What color is the circle?", "green"), ("What color is the square?", "brown"),
        ("Is the circle left of the square?", "yes"))),
    Drawing("white on red", (336, 336), "red", (plus(168, 168, 90, 30, "white"),), (
        ("What color is the cross?", "white"), ("What colour is the background?", "red"),
        ("How many crosses are there?", "1"))),
    Drawing("red on pink", (336, 336), "pink", (heart(100, 90, 140, "red"),), (
        ("What color is the heart?", "red"), ("What colour is the background?", "pink"))),
    Drawing("purple on yellow", (160, 120), "yellow", (disc(80, 60, 30, "purple"),), (
        ("What color is the circle?", "purple"), ("What colour is the background?", "yellow"))),
    Drawing("black and white", (336, 336), "gray", (disc(90, 168, 50, "black"), disc(250, 168, 50, "white")), (
        ("How many circles are there?", "2"), ("Is there a white circle?", "yes"),
        ("What colour is the shape on the left?", "black"), ("What colour is the shape on the right?", "white"))),
    Drawing("rotated box", (336, 336), "white", (poly((168, 80, 240, 140, 180, 215, 105, 155), "green"),), (
        ("What shape is green?", "square"), ("How many shapes are there?", "1"))),
    Drawing("upside-down triangle", (336, 336), "white", (poly((100, 100, 240, 100, 170, 220), "red"),), (
        ("What shape is red?", "triangle"), ("How many triangles are there?", "1"))),
    Drawing("right triangle", (336, 336), "white", (poly((90, 240, 240, 240, 90, 100), "blue"),), (
        ("What shape is blue?", "triangle"), ("Is there a square?", "no"))),
    Drawing("slightly flat ellipse", (336, 336), "white", (("ellipse", (90, 110, 230, 225), {"fill": "orange"}),), (
        ("How many circles are there?", "1"), ("What color is the circle?", "orange"))),
    Drawing("slightly flat box", (336, 336), "white", (box(90, 110, 230, 225, "cyan"),), (
        ("How many squares are there?", "1"), ("What color is the square?", "cyan"))),
    Drawing("rounded box", (336, 336), "white", (("rounded_rectangle", (90, 90, 230, 230), {"radius": 25, "fill": "blue"}),), (
        ("What shape is blue?", "square"), ("How many squares are there?", "1"))),
    Drawing("X", (336, 336), "white", (poly((90, 120, 120, 90, 168, 138, 216, 90, 246, 120, 198, 168, 246, 216, 216, 246, 168, 198, 120, 246, 90, 216, 138, 168), "red"),), (
        ("What shape is red?", "cross"), ("How many crosses are there?", "1"))),
    Drawing("two hearts", (500, 400), "white", (heart(90, 140, 120, "red"), heart(290, 140, 120, "purple")), (
        ("How many hearts are there?", "2"), ("Is there a purple heart?", "yes"),
        ("How many red hearts are there?", "1"), ("How many stars?", "0"))),
    Drawing("checker of colours", (336, 336), "white", (box(30, 30, 110, 110, "red"), box(220, 30, 300, 110, "blue"), disc(70, 260, 42, "blue"), disc(260, 260, 42, "red")), (
        ("How many red shapes are there?", "2"), ("How many blue circles are there?", "1"),
        ("Is there a red circle?", "yes"), ("How many squares are there?", "2"))),
)  # fmt: skip
