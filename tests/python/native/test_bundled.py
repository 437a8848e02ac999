"""The bundled checkpoint in float32: the native runner gives transformers' greedy tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from native.programs import BUNDLED, encode, picture_files, program, run_job
from PIL import Image, ImageDraw

pytestmark = pytest.mark.hf

MAX_TOKENS = 40
QUESTIONS = ("Describe the image.", "How many shapes are there?", "What colour is the star?")


def pictures() -> list[Image.Image]:
    """The bundled picture, turned and resized, and drawings."""
    bundled = Image.open(BUNDLED.parent / "shapes.png").convert("RGB")
    drawn = Image.new("RGB", (150, 90), "white")
    draw = ImageDraw.Draw(drawn)
    draw.ellipse((10, 10, 60, 60), fill="red")
    draw.rectangle((80, 20, 130, 80), fill="blue")
    return [bundled, bundled.rotate(90), bundled.resize((64, 200)), drawn]


def prompt(question: str) -> str:
    return f"USER: <image>\n{question} ASSISTANT:"


@pytest.fixture(scope="module")
def wanted() -> list[list[int]]:
    """What transformers generates for each picture and question, without the end of text."""
    program("generate")  # skips before the model is loaded
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor: Any = AutoProcessor.from_pretrained(BUNDLED)
    model: Any = LlavaForConditionalGeneration.from_pretrained(BUNDLED, dtype=torch.float32)
    answers = []
    for picture in pictures():
        for question in QUESTIONS:
            inputs = processor(text=prompt(question), images=picture, return_tensors="pt")
            with torch.inference_mode():
                ids = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_TOKENS)
            answers.append(ids[0, inputs["input_ids"].shape[1] :].tolist())
    return answers


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"together": False},
        {"max_num_batched_tokens": 48},
        {"prefix_caching": False, "max_num_batched_tokens": 301},
    ],
    ids=["together", "one by one", "chunks inside images", "uncached"],
)
def test_tokens_are_those_of_transformers(
    options: dict[str, Any], wanted: list[list[int]], tmp_path: Path
) -> None:
    prompts = encode(BUNDLED, [prompt(question) for question in QUESTIONS], tmp_path)
    requests = [
        {"tokens": ids, "images": [file], "max_tokens": MAX_TOKENS}
        for file in picture_files(pictures(), tmp_path)
        for ids in prompts
    ]
    job = {"checkpoint": str(BUNDLED), "dtype": "float32", "requests": requests, **options}
    result = run_job("generate", tmp_path, job)
    assert [output["tokens"] for output in result["outputs"]] == wanted
    if options.get("prefix_caching", True):
        assert result["items_encoded"] <= len(pictures())
    else:
        assert result["prefix_tokens_hit"] == 0


def test_the_caption_of_the_bundled_picture(tmp_path: Path) -> None:
    """In the checkpoint's own bfloat16."""
    ids = encode(BUNDLED, [prompt(QUESTIONS[0])], tmp_path)[0]
    request = {"tokens": ids, "images": picture_files(pictures()[:1], tmp_path), "max_tokens": 60}
    job = {"checkpoint": str(BUNDLED), "requests": [request]}
    tokens = run_job("generate", tmp_path, job)["outputs"][0]["tokens"]
    decoded = run_job(
        "tokenize", tmp_path, {"checkpoint": str(BUNDLED), "encode": [], "decode": [tokens]}
    )
    text = b"".join(map(bytes.fromhex, decoded["pieces"][0])).decode()
    assert "blue" in text and "star" in text and text.isascii()
