"""The example that trains the bundled checkpoint: truths, renderer and training, by other means."""

from __future__ import annotations

import colorsys
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from train_tiny_llava import demo_picture, export, pool, questions, train, truth
from train_tiny_llava.colours import COLOURS, NAMES, sample_rgb
from train_tiny_llava.evaluate import chat_prompt
from train_tiny_llava.forms import KINDS, normalised, sample_form
from train_tiny_llava.model import TinyLlava, attention_plan
from train_tiny_llava.render import GRID, SIDE, Canvas, fit, patch_labels, render, sample_canvas
from train_tiny_llava.samples import TEXT, Codec, make_batch
from train_tiny_llava.scene import Background, Scene, Shape, order, sample_scene, visible_shares
from train_tiny_llava.tokenizer import BOS_ID, EOS_ID, IMAGE, SPECIALS, build_tokenizer

SEED = 31
WHITE = Background("plain", (255, 255, 255), (255, 255, 255), "white")
BOX = normalised([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])


def shape(kind: str, colour: str, x: float, y: float, size: float = 0.27) -> Shape:
    return Shape(kind, colour, COLOURS[colour].exact[0], x, y, size, BOX)


def scene(*shapes: Shape) -> Scene:
    return Scene(WHITE, shapes, strict=True)


def scenes(count: int, strict: bool) -> list[Scene]:
    rng = random.Random(SEED)
    return [sample_scene(rng, strict) for _ in range(count)]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(build_tokenizer())


# ------------------------------------------------------------------ scenes


def test_a_named_colour_lies_in_no_other_names_box() -> None:
    rng = random.Random(SEED)
    for name in NAMES:
        for _ in range(200):
            hue, saturation, value = colorsys.rgb_to_hsv(
                *(c / 255 for c in sample_rgb(name, rng, 0.0))
            )
            for other, box in COLOURS.items():
                # A channel's rounding moves a dark colour's hue by degrees: dark is told by value.
                low, high = (angle % 360 for angle in box.hue)
                degrees = hue * 360
                in_hue = low <= degrees <= high if low < high else not high < degrees < low
                inside = (
                    (in_hue or box.hue == (0, 360))
                    and box.saturation[0] <= saturation <= box.saturation[1]
                    and box.value[0] <= value <= box.value[1]
                )
                assert not inside or other == name, (name, other, hue, saturation, value)


@pytest.mark.parametrize("kind", KINDS)
def test_forms_are_centred_and_one_long(kind: str) -> None:
    rng = random.Random(SEED)
    for _ in range(50):
        points = np.array(sample_form(kind, rng))
        low, high = points.min(0), points.max(0)
        np.testing.assert_allclose(low + high, 0, atol=1e-9)
        assert (high - low).max() == pytest.approx(1)


@pytest.mark.parametrize("strict", [True, False])
def test_drawn_shapes_are_where_the_scene_says(strict: bool) -> None:
    """Paint every shape alone and measure its bounding box in pixels."""
    for drawn in scenes(60, strict):
        for one in drawn.shapes:
            alone = Scene(Background("plain", (1, 2, 3), (1, 2, 3)), (one,), strict)
            pixels = np.asarray(render(alone, Canvas(400, 400)))
            rows, columns = np.nonzero((pixels != (1, 2, 3)).any(-1))
            if strict:
                rim = max(2.5, 400 * one.line_width + 2)  # an outline lies half outside
                reach_x, reach_y = one.reach()
                assert abs(columns.min() - 400 * (one.x - reach_x)) <= rim
                assert abs(columns.max() - 400 * (one.x + reach_x)) <= rim
                assert abs(rows.min() - 400 * (one.y - reach_y)) <= rim
                assert abs(rows.max() - 400 * (one.y + reach_y)) <= rim
            assert (pixels == one.rgb).all(-1).any(), "the shape's own colour is to be seen"


def test_visible_shares_count_pixels_left_uncovered() -> None:
    rng = random.Random(SEED)
    for _ in range(20):
        shapes = tuple(
            Shape(kind, "red", (255, 0, 0), rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), 0.5,
                  sample_form(kind, rng))
            for kind in rng.sample(KINDS, 3)
        )  # fmt: skip
        masks = []
        for one in shapes:
            image = Image.new("L", (900, 900))
            ImageDraw.Draw(image).polygon(
                [(300 + 300 * x, 300 + 300 * y) for x, y in one.points()], 1
            )
            masks.append(np.asarray(image).astype(bool))
        frame = np.zeros((900, 900), bool)
        frame[300:600, 300:600] = True
        for index, (mask, share) in enumerate(zip(masks, visible_shares(shapes), strict=True)):
            left = mask & frame & ~np.any([np.zeros_like(mask), *masks[index + 1 :]], 0)
            assert share == pytest.approx(left.sum() / mask.sum(), abs=0.1)  # a coarse raster


def test_strict_scenes_keep_their_promises() -> None:
    for drawn in scenes(300, True):
        assert all(truth.size_word(one) is not None for one in drawn.shapes)
        assert len(drawn.shapes) not in (2, 3) or order(drawn.shapes) is not None
        assert drawn.shapes == () or min(visible_shares(drawn.shapes)) > 0.6
        assert truth.caption(drawn).endswith("background.")


# ------------------------------------------------------------------ truths


@pytest.mark.parametrize(
    ("places", "axis", "order_by_index"),
    [
        ([(0.8, 0.5), (0.2, 0.4)], "x", [1, 0]),
        ([(0.5, 0.9), (0.4, 0.2)], "y", [1, 0]),
        ([(0.5, 0.1), (0.9, 0.5), (0.1, 0.4)], "x", [2, 0, 1]),
        ([(0.5, 0.9), (0.6, 0.1), (0.4, 0.5)], "y", [1, 2, 0]),
        ([(0.2, 0.2), (0.8, 0.75)], None, []),  # as far apart in x as in y
        ([(0.1, 0.5), (0.9, 0.5), (0.85, 0.4)], None, []),  # two of them level in x
    ],
)
def test_order(
    places: list[tuple[float, float]], axis: str | None, order_by_index: list[int]
) -> None:
    shapes = tuple(shape("star", "red", x, y) for x, y in places)
    found = order(shapes)
    if axis is None:
        assert found is None
    else:
        assert found == (axis, tuple(shapes[i] for i in order_by_index))


def test_captions() -> None:
    red = shape("circle", "red", 0.2, 0.5, 0.45)
    orange = shape("star", "orange", 0.8, 0.5, 0.15)
    blue = shape("square", "blue", 0.5, 0.6)
    low = shape("heart", "pink", 0.25, 0.95)
    assert truth.caption(scene()) == "An empty white background."
    assert truth.caption(scene(red)) == "A large red circle on a white background."
    assert truth.caption(scene(orange, red)) == (
        "A large red circle left of a small orange star on a white background."
    )
    assert truth.caption(scene(low, red)) == (
        "A large red circle above a pink heart on a white background."
    )
    assert truth.caption(scene(orange, blue, red)) == (
        "From left to right: a large red circle, a blue square and a small orange star "
        "on a white background."
    )
    assert truth.caption(scene(red, orange, blue, low)) == "4 shapes on a white background."
    with pytest.raises(ValueError, match="free"):
        truth.caption(Scene(WHITE, (red,), strict=False))


def test_relations_are_opposite_and_silent_when_level() -> None:
    a, b = shape("star", "red", 0.2, 0.50), shape("heart", "blue", 0.7, 0.55)
    assert truth.stands(a, "left of", b) is True
    assert truth.stands(b, "left of", a) is False
    assert truth.stands(b, "right of", a) is True
    assert truth.stands(a, "above", b) is None
    assert truth.any_stands(scene(a, b), truth.Wanted("circle"), "left of", b) is False
    assert truth.any_stands(scene(a, b), truth.Wanted(None, "red"), "left of", b) is True


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [(0.5, 0.5, "center"), (0.1, 0.1, "top left"), (0.9, 0.5, "right"), (0.5, 0.9, "bottom"),
     (0.36, 0.5, None)],
)  # fmt: skip
def test_region(x: float, y: float, words: str | None) -> None:
    assert truth.region(shape("star", "red", x, y)) == words


# ------------------------------------------------------------------ questions

_COUNT = re.compile(
    r"how many (?P<what>[a-z ]*?) (?:are|do|can|does)\b|how many (?P<all>[a-z ]+)\??$"
)


def _named(text: str) -> tuple[str | None, str | None]:
    words = text.replace("grey", "gray").split()
    kinds = [k for k in KINDS if k in words or k + "s" in words or k + "es" in words]
    colours = [c for c in NAMES if c in words]
    return (kinds[0] if kinds else None), (colours[0] if colours else None)


def test_count_and_existence_answers_hold_for_what_the_text_says() -> None:
    """Read the question back and count again."""
    rng = random.Random(SEED)
    read = {"count": 0, "exists": 0}
    for drawn in scenes(150, True) + scenes(150, False):
        for _ in range(6):
            asked = questions.sample_question(drawn, rng)
            text = asked.text.lower()
            if asked.task == "count" and (match := _COUNT.search(text)):
                what = match["what"] or match["all"]
            elif asked.task == "exists":
                what = re.sub(r"[^a-z ]", " ", text)
            else:
                continue
            kind, colour = _named(what)
            count = sum(kind in (None, s.kind) and colour in (None, s.colour) for s in drawn.shapes)
            expected = str(count) if asked.task == "count" else "yes" if count else "no"
            assert asked.answer == expected, asked
            read[asked.task] += 1
    assert min(read.values()) > 100, read


def test_free_scenes_are_not_asked_what_only_strict_ones_settle() -> None:
    rng = random.Random(SEED)
    tasks = {questions.sample_question(s, rng).task for s in scenes(100, False) for _ in range(10)}
    assert tasks == {"count", "colour", "kind", "exists", "relation"}


def test_yes_and_no_are_about_as_frequent() -> None:
    rng = random.Random(SEED)
    replies: list[str] = []
    for drawn in scenes(200, True):
        asked = [questions.sample_question(drawn, rng) for _ in range(10)]
        replies += [q.answer for q in asked if q.task in ("exists", "relation")]
    assert 0.35 < replies.count("yes") / len(replies) < 0.65


# ------------------------------------------------------------------ pictures and samples


def test_the_same_seed_draws_the_same_picture() -> None:
    def draw() -> bytes:
        rng = random.Random(SEED)
        return b"".join(
            fit(render(sample_scene(rng), sample_canvas(rng))).tobytes() for _ in range(20)
        )

    assert draw() == draw()


def test_render_has_the_canvas_size_and_fit_the_models() -> None:
    rng = random.Random(SEED)
    for _ in range(20):
        canvas = sample_canvas(rng)
        image = render(sample_scene(rng), canvas)
        assert image.size == (canvas.width, canvas.height)
        assert fit(image).shape == (SIDE, SIDE, 3)


def test_patch_labels_name_the_shape_under_each_patch() -> None:
    labels = patch_labels(scene(shape("square", "blue", 0.5, 0.5, 0.4))).reshape(2, GRID, GRID)
    inside = labels[0] == KINDS.index("square")
    assert inside[6:8, 6:8].all() and not inside[:3].any()
    assert ((labels[1] == NAMES.index("blue")) == inside).all()
    assert (labels[0][~inside] == len(KINDS)).all()


@pytest.mark.parametrize("text", ["How many circles?", "Grüße, 图片 \n\t<b>", "  two  spaces", ""])
def test_any_text_survives_the_tokenizer(codec: Codec, text: str) -> None:
    ids = codec.tokenizer.encode(text).ids
    assert ids[0] == BOS_ID
    assert codec.tokenizer.decode(ids) == text.removeprefix(" ")  # the decoder drops one space


def test_words_of_the_task_are_single_tokens(codec: Codec) -> None:
    for word in (*KINDS, *NAMES, "large", "small", "background", "left", "above"):
        assert len(codec.ids(" " + word)) == 1, word
    assert [codec.tokenizer.token_to_id(token) for token in SPECIALS] == list(range(len(SPECIALS)))


def test_replies_are_the_targets(codec: Codec) -> None:
    batch = make_batch(random.Random(SEED), codec, 8)
    for text, branch, target in zip(batch["text"], batch["branch"], batch["target"], strict=True):
        places = np.nonzero(target >= 0)[0]
        assert (target[places] == text[places + 1]).all(), "a target is the next token"
        assert (branch[places] == branch[places + 1]).all()
        assert (np.bincount(branch, minlength=2)[1:] > 0).all() and len(text) == TEXT
        assert (target == EOS_ID).sum() >= branch.max()


def test_packed_branches_are_as_if_alone(codec: Codec) -> None:
    torch.manual_seed(SEED)
    model = TinyLlava().eval()
    batch = {k: torch.from_numpy(v) for k, v in make_batch(random.Random(SEED), codec, 2).items()}
    with torch.inference_mode():
        packed, _ = model(
            batch["image"], batch["opening"].int(), batch["text"].int(), batch["branch"]
        )
        for row in range(2):
            for branch in (1, int(batch["branch"][row].max())):
                here = batch["branch"][row] == branch
                text = batch["text"][row, here].int()[None]
                opening = batch["opening"][row : row + 1].int()
                alone, _ = model(
                    batch["image"][row : row + 1], opening, text, torch.ones_like(text)
                )
                torch.testing.assert_close(packed[row, here], alone[0], atol=2e-5, rtol=1e-4)


def test_attention_plan_counts_present_tokens_only() -> None:
    opening = torch.tensor([[1, 7, 8], [-1, -1, 1]])
    branch = torch.tensor([[1, 1, 2, 0], [1, 2, 2, 2]])
    positions, mask = attention_plan(opening, branch)
    patches = GRID * GRID
    assert positions[0, -4:].tolist() == [3 + patches, 4 + patches, 3 + patches, positions[0, -1]]
    assert positions[1, -4:].tolist() == [1 + patches, 1 + patches, 2 + patches, 3 + patches]
    assert not mask[0, 0, -2, -4:-2].any(), "branch 2 does not see branch 1"
    assert not mask[1, 0, -1, :2].any(), "padding is not seen"


def test_train_and_export_end_to_end(
    tmp_path: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps on the CPU, drawn in this process; transformers loads what comes out."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(pool, "STACK", 8)
    (tmp_path / "start").mkdir()
    codec.tokenizer.save(str(tmp_path / "start" / "tokenizer.json"))
    save_file(TinyLlava().state_dict(), tmp_path / "start" / "model.safetensors")
    argv = "--steps 2 --batch 2 --workers 0 --pool 16 --fill 8 --check 1 --every 9 --device cpu"
    folders = ["--out", str(tmp_path / "run"), "--resume", str(tmp_path / "start")]
    train.main([*folders, *argv.split()])
    assert "captions" in (tmp_path / "run" / "log.txt").read_text()
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in ("start", "run"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    unread = {name for name in before if "layers.5." in name or "post_layernorm" in name}
    assert changed and not changed & unread and "language_model.lm_head.weight" in changed
    export.export(tmp_path / "run", tmp_path / "checkpoint")
    model = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "checkpoint")
    assert model.dtype is torch.bfloat16
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "checkpoint")
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi?"}]}
    prompt = processor.apply_chat_template([message], add_generation_prompt=True)
    assert prompt == chat_prompt("Hi?") and IMAGE in prompt


def test_the_demo_picture_is_the_one_that_ships(assets: Path) -> None:
    shipped = Image.open(assets / "shapes.png").convert("RGB")
    drawn = demo_picture.draw_picture()
    assert shipped.size == drawn.size
    assert np.abs(np.asarray(shipped, int) - np.asarray(drawn, int)).max() <= 8
