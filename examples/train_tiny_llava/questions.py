"""Questions about a scene, in many phrasings, with their answers.

Each ``_ask_*`` function draws one question of its task; None where the scene offers none.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from . import truth
from .colours import NAMES
from .forms import KINDS
from .scene import Scene, Shape, order
from .truth import Wanted

Drawn = tuple[str, str] | None  # question and answer


@dataclass(frozen=True, slots=True)
class Question:
    """One question, its answer, and the task it belongs to."""

    task: str
    text: str
    answer: str


CAPTION_PROMPTS = (
    "Describe the image.", "Describe the picture.", "Describe this image.",
    "Describe this picture.", "What is in this image?", "What is in the image?",
    "What is in the picture?", "What is in this picture?", "What do you see?",
    "What can you see?", "What's in the image?", "What's in this image?", "What is this?",
    "What does the image show?", "What does the picture show?", "What is shown in the image?",
    "Caption this image.", "Write a caption.", "Caption:", "Describe what you see.",
    "Please describe the image.", "Describe the image in one sentence.",
    "Describe the image in detail.", "Describe the scene.",
)  # fmt: skip
PLACES = ("", "", "", " in the image", " in the picture", " in this image", " in this picture")
ANY_SHAPE = ("shape", "shape", "object")
EXTREMES = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}


def caption_question(scene: Scene, rng: random.Random) -> Question:
    """Ask for the caption of a strict scene."""
    return Question("caption", vary(rng.choice(CAPTION_PROMPTS), rng), truth.caption(scene))


def sample_question(scene: Scene, rng: random.Random) -> Question:
    """Draw a question other than the caption's."""
    while True:
        task = rng.choices(_TASKS, _WEIGHTS)[0]
        if task in _STRICT and not scene.strict:
            continue
        drawn = _ASK[task](scene, rng)
        if drawn is not None:
            return Question(task, vary(drawn[0], rng), drawn[1])


def vary(text: str, rng: random.Random) -> str:
    """Retype a question as people do: other spellings, case and punctuation."""
    if rng.random() < 0.5:
        text = text.replace("colour", "color")
    if rng.random() < 0.5:
        text = text.replace("gray", "grey")
    draw = rng.random()
    if draw < 0.12:
        text = text[0].lower() + text[1:]
    elif draw < 0.14:
        text = text.upper()
    draw = rng.random()
    if draw < 0.14:
        text = text.rstrip("?.:")
    elif draw < 0.17:
        text = text + rng.choice((" ", "\n", "?", "!"))
    draw = rng.random()
    if draw < 0.02:
        text += "\nAnswer the question using a single word or phrase."
    elif draw < 0.03:
        text += rng.choice((" Answer with one word.", " Answer briefly.", " Please."))
    elif draw < 0.04:
        text = (
            rng.choice(("Question: ", "Please tell me: ", "Hello! ", "Look at the image. ")) + text
        )
    return text


def _wanted(scene: Scene, rng: random.Random, present: float) -> Wanted:
    """Describe a shape of the scene, or with one trait or both taken at random."""
    kind, colour = rng.choice(KINDS), rng.choice(NAMES)
    if scene.shapes:
        shape, other = rng.choice(scene.shapes), rng.choice(scene.shapes)
        draw = rng.random()
        if draw < present:
            kind, colour = shape.kind, shape.colour
        elif draw < present + (1 - present) * 0.4:
            kind, colour = shape.kind, other.colour  # both here, perhaps not together
        elif draw < present + (1 - present) * 0.6:
            kind = shape.kind
        elif draw < present + (1 - present) * 0.8:
            colour = shape.colour
    form = rng.choice(("kind", "kind", "both", "colour"))
    return Wanted(None if form == "colour" else kind, None if form == "kind" else colour)


def _single(scene: Scene, rng: random.Random) -> tuple[Shape, Wanted] | None:
    """Return a shape and a description that fits it alone."""
    if not scene.shapes:
        return None
    shape = rng.choice(scene.shapes)
    options = [Wanted(shape.kind), Wanted(None, shape.colour), Wanted(shape.kind, shape.colour)]
    options = [w for w in options if truth.found(scene, w) == [shape]]
    return (shape, rng.choice(options)) if options else None


def _ask_count(scene: Scene, rng: random.Random) -> Drawn:
    wanted = _wanted(scene, rng, 0.7) if rng.random() < 0.72 else Wanted()
    things = wanted.plural(rng.choice(ANY_SHAPE))
    place = rng.choice(PLACES)
    text = rng.choice((
        f"How many {things} are there{place}?", f"How many {things} are there{place}?",
        f"How many {things} are there{place}?", f"How many {things} are{place or ' there'}?",
        f"How many {things}?", f"How many {things} do you see{place}?",
        f"How many {things} can you see{place}?", f"How many {things} does the image contain?",
        f"How many {things} does the picture show?", f"Count the {things}{place}.",
        f"What is the number of {things}{place}?", f"How many {things} can be seen{place}?",
    ))  # fmt: skip
    return text, str(len(truth.found(scene, wanted)))


def _ask_colour(scene: Scene, rng: random.Random) -> Drawn:
    if rng.random() < 0.05:
        return _absent(scene, rng, Wanted(rng.choice(KINDS)), ("What colour is the {}?",))
    if not scene.shapes:
        return None
    shape, draw = rng.choice(scene.shapes), rng.random()
    if draw < 0.2:
        return _colour_of_extreme(scene, rng)
    group = truth.found(scene, Wanted(shape.kind) if draw < 0.85 else Wanted())
    if len({s.colour for s in group}) > 1:
        return None
    name = shape.kind if draw < 0.85 else rng.choice(ANY_SHAPE)
    if len(group) > 1:
        plural = Wanted(name).plural()
        text = rng.choice((f"What colour are the {plural}?", f"What colour do the {plural} have?"))
        return text, shape.colour
    text = rng.choice((
        f"What colour is the {name}?", f"What colour is the {name}?",
        f"Which colour is the {name}?",
        f"What is the colour of the {name}?", f"What colour does the {name} have?",
        f"Which colour does the {name} have?", f"Tell me the colour of the {name}.",
        f"The {name} is what colour?", f"What colour is the {name}{rng.choice(PLACES)}?",
    ))  # fmt: skip
    return text, shape.colour


def _colour_of_extreme(scene: Scene, rng: random.Random) -> Drawn:
    phrase, shape = _extreme_phrase(scene, rng)
    if shape is None:
        return None
    return rng.choice((f"What colour is {phrase}?", f"Which colour is {phrase}?")), shape.colour


def _extreme_phrase(scene: Scene, rng: random.Random) -> tuple[str, Shape | None]:
    """Name the largest, smallest or outermost shape, and return it where there is one."""
    name = rng.choice(ANY_SHAPE)
    if rng.random() < 0.5:
        largest = rng.random() < 0.5
        words: tuple[str, ...] = ("smallest", "smaller")
        if largest:
            words = ("largest", "biggest", "larger", "bigger")
        if len(scene.shapes) != 2:
            words = words[: len(words) // 2]
        return f"the {rng.choice(words)} {name}", truth.extreme(scene, largest)
    relation = rng.choice(truth.RELATIONS)
    side = EXTREMES[relation]
    phrases = [f"the {name} {'on' if side in ('left', 'right') else 'at'} the {side}"]
    if side in ("left", "right"):
        phrases.append(f"the {side}most {name}")
    return rng.choice(phrases), truth.outermost(scene, relation)


def _ask_kind(scene: Scene, rng: random.Random) -> Drawn:
    if rng.random() < 0.05:
        return _absent(scene, rng, Wanted(None, rng.choice(NAMES)), ("What shape is {}?",))
    if not scene.shapes:
        return None
    shape, draw = rng.choice(scene.shapes), rng.random()
    if draw < 0.2:
        phrase, extreme = _extreme_phrase(scene, rng)
        return (f"What is {phrase}?", extreme.kind) if extreme else None
    if draw < 0.3:
        if len(scene.shapes) > 1:
            return None
        text = rng.choice((
            "What shape is it?", "What shape is this?", "Which shape is this?",
            "What shape do you see?", "What is the shape?",
        ))  # fmt: skip
        return text, shape.kind
    group = truth.found(scene, Wanted(None, shape.colour))
    if len({s.kind for s in group}) > 1:
        return None
    colour = shape.colour
    place = rng.choice(PLACES)
    text = rng.choice((
        f"What shape is {colour}?", f"Which shape is {colour}?", f"What is {colour}?",
        f"What is the {colour} shape?", f"What shape is the {colour} object?",
        f"What is the {colour} object{place}?", f"What is the shape of the {colour} object?",
        f"Which shape is {colour}{place}?", f"What kind of shape is {colour}?",
    ))  # fmt: skip
    return text, shape.kind


def _absent(scene: Scene, rng: random.Random, wanted: Wanted, forms: tuple[str, ...]) -> Drawn:
    if truth.found(scene, wanted):
        return None
    return rng.choice(forms).format(wanted.kind or wanted.colour), f"There is no {wanted.noun()}."


def _ask_exists(scene: Scene, rng: random.Random) -> Drawn:
    wanted = _wanted(scene, rng, 1.0)
    if rng.random() < 0.5 or not scene.shapes:
        while truth.found(scene, wanted):
            wanted = _wanted(scene, rng, 0.0)
    one, many, place = truth.with_article(wanted.noun()), wanted.plural(), rng.choice(PLACES)
    text = rng.choice((
        f"Is there {one}{place}?", f"Is there {one}{place}?", f"Is there {one}?",
        f"Are there any {many}{place}?", f"Are there {many}{place}?", f"Do you see {one}{place}?",
        f"Can you see {one}?", f"Does the image contain {one}?", f"Does the picture show {one}?",
        f"Is {one} in the picture?", f"Is there any {wanted.noun()}{place}?",
    ))  # fmt: skip
    return text, "yes" if truth.found(scene, wanted) else "no"


def _ask_relation(scene: Scene, rng: random.Random) -> Drawn:
    picked = _single(scene, rng)
    if picked is None:
        return None
    anchor, target = picked
    relation = rng.choice(truth.RELATIONS)
    said = relation
    if relation in ("left of", "right of") and rng.random() < 0.4:
        said = "to the " + relation
    elif relation == "below" and rng.random() < 0.2:
        said = "under"
    other = _single(scene, rng)
    if other is not None and other[0] is not anchor and rng.random() < 0.6:
        verdict = truth.stands(other[0], relation, anchor)
        subject = f"Is the {other[1].noun()}"
    else:
        wanted = _wanted(scene, rng, 0.8)
        verdict = truth.any_stands(scene, wanted, relation, anchor)
        subject = f"Is there {truth.with_article(wanted.noun())}"
        if wanted.matches(anchor) and rng.random() < 0.8:
            return None  # odd to ask, such as "is there a star left of the star"
    if verdict is None:
        return None
    return f"{subject} {said} the {target.noun()}?", "yes" if verdict else "no"


def _ask_size(scene: Scene, rng: random.Random) -> Drawn:
    picked = _single(scene, rng)
    if picked is None:
        return None
    shape, wanted = picked
    word, noun = truth.size_word(shape), wanted.noun()
    if word is None:
        return None
    if rng.random() < 0.4:
        guess = rng.choice(("small", "large", word))
        if guess == "medium":
            return None
        return f"Is the {noun} {guess}?", "yes" if guess == word else "no"
    text = rng.choice((
        f"What size is the {noun}?", f"How big is the {noun}?", f"How large is the {noun}?",
        f"What is the size of the {noun}?",
    ))  # fmt: skip
    return text, word


def _ask_region(scene: Scene, rng: random.Random) -> Drawn:
    picked = _single(scene, rng)
    if picked is None:
        return None
    answer = truth.region(picked[0])
    if answer is None:
        return None
    return f"Where is the {picked[1].noun()}{rng.choice(PLACES)}?", answer


def _ask_background(scene: Scene, rng: random.Random) -> Drawn:
    ground = scene.background
    if ground.name and rng.random() < 0.8:
        return rng.choice((
            "What colour is the background?", "What is the colour of the background?",
            "What is the background colour?", "Which colour does the background have?",
            "What colour does the background have?", "What's the background colour?",
        )), ground.name  # fmt: skip
    return rng.choice((
        "What kind of background is it?", "What is the background?", "Describe the background.",
        "What does the background look like?", "What is in the background?",
    )), ground.name or ground.kind  # fmt: skip


def _ask_list(scene: Scene, rng: random.Random) -> Drawn:
    if not 1 <= len(scene.shapes) <= 3:
        return None
    lined_up = order(scene.shapes) if len(scene.shapes) > 1 else ("x", scene.shapes)
    assert lined_up is not None, "a strict scene of two or three shapes has an order"
    text = rng.choice((
        "What shapes are in the image?", "What shapes are there?", "Which shapes do you see?",
        "What shapes are in the picture?", "List the shapes.", "Which shapes are there?",
        "Name the shapes.", "What shapes can you see?",
    ))  # fmt: skip
    return text, ", ".join(shape.kind for shape in lined_up[1])


_ASK: dict[str, Callable[[Scene, random.Random], Drawn]] = {
    "count": _ask_count, "colour": _ask_colour, "kind": _ask_kind, "exists": _ask_exists,
    "relation": _ask_relation, "size": _ask_size, "region": _ask_region,
    "background": _ask_background, "list": _ask_list,
}  # fmt: skip
_SHARES = {
    "count": 23, "colour": 12, "kind": 12, "exists": 12, "relation": 28, "size": 6, "region": 8,
    "background": 2, "list": 3,
}  # fmt: skip
_STRICT = frozenset(("size", "region", "background", "list"))  # asked of strict scenes alone
_TASKS, _WEIGHTS = tuple(_SHARES), tuple(_SHARES.values())
TASKS = ("caption", *_TASKS)
