"""The bundled checkpoint through transformers: it loads, and it sees."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from train_tiny_llava import demo_picture
from train_tiny_llava.evaluate import chat_prompt, hf_generate
from train_tiny_llava.handdrawn import Drawing, drawings
from train_tiny_llava.model import TinyLlava
from train_tiny_llava.render import fit, render, sample_canvas
from train_tiny_llava.scene import sample_scene
from train_tiny_llava.tokenizer import EOS, IMAGE_ID

pytestmark = pytest.mark.hf
SEED = 47


@pytest.fixture(scope="module")
def generate(checkpoint: Path) -> Callable[[list[Image.Image], list[str]], list[str]]:
    pytest.importorskip("transformers")
    return hf_generate(checkpoint)


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoProcessor.from_pretrained(checkpoint)


def test_it_fits_into_a_wheel(assets: Path) -> None:
    files = [path for path in assets.rglob("*") if path.is_file()]
    assert {"config.json", "tokenizer.json", "shapes.png"} <= {path.name for path in files}
    assert sum(path.stat().st_size for path in files) <= 7_500_000


def test_it_captions_the_demo_picture(
    assets: Path, generate: Callable[[list[Image.Image], list[str]], list[str]]
) -> None:
    picture = Image.open(assets / "shapes.png").convert("RGB")
    asked = ["Describe the image.", "How many shapes are there?", "What colour is the star?"]
    replies = generate([picture] * 3, [chat_prompt(text) for text in asked])
    assert replies == [demo_picture.CAPTION, "3", "yellow"]


def test_it_answers_about_pictures_that_no_generator_drew(
    generate: Callable[[list[Image.Image], list[str]], list[str]],
) -> None:
    """Thirty of the hand-drawn pictures, two questions each."""
    chosen: list[tuple[Drawing, str, str]] = [
        (drawing, *ask) for drawing in drawings()[::2][:30] for ask in drawing.asks[:2]
    ]
    replies: list[str] = []
    for start in range(0, len(chosen), 20):
        part = chosen[start : start + 20]
        replies += generate([d.image() for d, _, _ in part], [chat_prompt(q) for _, q, _ in part])
    wrong = [(d.name, q, a, r) for (d, q, a), r in zip(chosen, replies, strict=True) if a != r]
    assert len(chosen) == 60 and not wrong


def test_the_chat_template_writes_dialogues(processor: Any) -> None:
    dialogue = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "How many circles?"}, {"type": "image"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "2"}]},
        {"role": "user", "content": "Which colour?"},
    ]
    text = processor.apply_chat_template(dialogue, add_generation_prompt=True)
    assert text == (
        "Be brief. USER: <image>\nHow many circles? ASSISTANT: 2</s>USER: Which colour? ASSISTANT:"
    )
    assert processor.tokenizer.eos_token == EOS and processor.tokenizer.padding_side == "left"


def test_fit_is_the_image_processor(processor: Any) -> None:
    rng = random.Random(SEED)
    sizes = processor.image_processor
    for _ in range(20):
        image = render(sample_scene(rng, strict=False), sample_canvas(rng))
        pixels = sizes(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        restored = 255 * (pixels * sizes.image_std + sizes.image_mean)
        difference = np.abs(restored - fit(image))
        # Pillow's processor agrees to the bit; torchvision's resizes a little differently.
        exact = type(sizes).__name__.endswith("Pil")
        assert difference.max() < (0.01 if exact else 60) and difference.mean() < 1


def test_the_training_model_computes_what_transformers_does(
    checkpoint: Path, processor: Any
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlavaForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32
    ).eval()
    ours = TinyLlava().eval()
    weights = load_file(checkpoint / "model.safetensors")
    missing = ours.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    assert all(name.startswith("patch_") for name in missing.missing_keys)
    assert not missing.unexpected_keys
    rng = random.Random(SEED)
    image = render(sample_scene(rng), sample_canvas(rng))
    inputs = processor(text=chat_prompt("Describe it."), images=image, return_tensors="pt")
    ids = inputs["input_ids"]
    start = int((ids[0] == IMAGE_ID).nonzero()[0])
    stop = int((ids[0] == IMAGE_ID).nonzero()[-1]) + 1
    restored = inputs["pixel_values"].permute(0, 2, 3, 1) * ours.std + ours.mean
    with torch.inference_mode():
        expected = theirs(**inputs).logits[0, stop:]
        text = ids[:, stop:]
        logits, _ = ours(restored, ids[:, :start], text, torch.ones_like(text))
    torch.testing.assert_close(logits[0], expected, atol=1e-3, rtol=1e-3)
