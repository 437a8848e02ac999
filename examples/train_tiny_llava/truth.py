"""What is true of a scene: the answers, computed from its description and never from pixels.

A function returns None where the scene does not settle the answer clearly enough to be asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from .scene import SIZES, Scene, Shape, order

SIDE_MARGIN = 0.1  # least difference of centres for left, right, above and below
REGION_EDGES = (0.34, 0.66)  # between the thirds of the picture
REGION_MARGIN = 0.06
LARGER = 1.35  # least ratio for "largest" and "smallest"
RELATIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A description such as "red circle"; None stands for any."""

    kind: str | None = None
    colour: str | None = None

    def matches(self, shape: Shape) -> bool:
        """Say whether the shape answers to the description."""
        return self.kind in (None, shape.kind) and self.colour in (None, shape.colour)

    def noun(self, word: str = "shape") -> str:
        """Return the singular; ``word`` stands where any kind is meant."""
        return " ".join(filter(None, (self.colour, self.kind or word)))

    def plural(self, word: str = "shape") -> str:
        """Return the plural."""
        kind = self.kind or word
        return " ".join(filter(None, (self.colour, kind + ("es" if kind == "cross" else "s"))))


def found(scene: Scene, wanted: Wanted) -> list[Shape]:
    """Return the shapes that answer to the description."""
    return [shape for shape in scene.shapes if wanted.matches(shape)]


def with_article(noun: str) -> str:
    """Put "a" or "an" before a noun phrase."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def size_word(shape: Shape) -> str | None:
    """Return small, medium or large, or None between them."""
    for word, (low, high) in SIZES.items():
        if low <= shape.size <= high:
            return word
    return None


def region(shape: Shape) -> str | None:
    """Return the ninth of the picture that holds the centre, such as "top left"."""
    words: list[str] = []
    for value, names in ((shape.y, ("top", "", "bottom")), (shape.x, ("left", "", "right"))):
        if any(abs(value - edge) < REGION_MARGIN for edge in REGION_EDGES):
            return None
        words.append(names[sum(value > edge for edge in REGION_EDGES)])
    return " ".join(filter(None, words)) or "center"


def stands(a: Shape, relation: str, b: Shape) -> bool | None:
    """Say whether ``a`` is left of (right of, above, below) ``b``, judged by their centres."""
    ahead = b.x - a.x if relation in ("left of", "right of") else b.y - a.y
    if relation in ("right of", "below"):
        ahead = -ahead
    return None if abs(ahead) < SIDE_MARGIN else ahead > 0


def any_stands(scene: Scene, wanted: Wanted, relation: str, anchor: Shape) -> bool | None:
    """Say whether some other shape that answers to ``wanted`` stands so to ``anchor``."""
    verdicts = [stands(s, relation, anchor) for s in found(scene, wanted) if s is not anchor]
    if True in verdicts:
        return True
    return None if None in verdicts else False


def extreme(scene: Scene, largest: bool) -> Shape | None:
    """Return the largest (smallest) shape if it is so by a clear ratio."""
    ranked = sorted(scene.shapes, key=lambda shape: shape.size, reverse=largest)
    if len(ranked) < 2:
        return None
    ratio = ranked[0].size / ranked[1].size
    return ranked[0] if (ratio if largest else 1 / ratio) >= LARGER else None


def outermost(scene: Scene, relation: str) -> Shape | None:
    """Return the shape at the very left, right, top ("above") or bottom ("below")."""
    for shape in scene.shapes:
        others = [stands(shape, relation, other) for other in scene.shapes if other is not shape]
        if others and all(others):
            return shape
    return None


def background_phrase(scene: Scene) -> str:
    """Return the background as captions name it."""
    background = scene.background
    return with_article(f"{background.name or background.kind} background")


def shape_phrase(shape: Shape) -> str:
    """Return a shape as captions name it; medium goes without saying."""
    size = size_word(shape)
    noun = f"{shape.colour} {shape.kind}"
    return with_article(noun if size in ("medium", None) else f"{size} {noun}")


def caption(scene: Scene) -> str:
    """Return the one caption of a strict scene."""
    if not scene.strict:
        raise ValueError("only a strict scene has a caption; this one is free")
    shapes, ground = scene.shapes, background_phrase(scene)
    if not shapes:
        return f"An empty {ground.split(' ', 1)[1]}."
    if len(shapes) > 3:
        return f"{len(shapes)} shapes on {ground}."
    if len(shapes) == 1:
        text = f"{shape_phrase(shapes[0])} on {ground}."
        return text[0].upper() + text[1:]
    lined_up = order(shapes)
    assert lined_up is not None, "a strict scene of two or three shapes has an order"
    axis, ordered = lined_up
    phrases = [shape_phrase(shape) for shape in ordered]
    if len(shapes) == 2:
        text = f"{phrases[0]} {'left of' if axis == 'x' else 'above'} {phrases[1]} on {ground}."
        return text[0].upper() + text[1:]
    lead = "From left to right" if axis == "x" else "From top to bottom"
    return f"{lead}: {phrases[0]}, {phrases[1]} and {phrases[2]} on {ground}."
