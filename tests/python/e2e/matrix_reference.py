"""Greedy tokens from transformers in float32 for the prompts of the equality matrix.

    matrix_reference.py ORACLE_DIR CHECKPOINT... --out DIR [--seed N]

For each number of images 20 prompts, of which some begin alike, and longer continuations for the
companion that takes memory away. DIR/NAME.json belongs to the checkpoint NAME; images lie there,
too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IMAGES = (0, 1, 3)  # of one prompt
CANDIDATES = 20  # prompts for each number of images
PICTURES = 6
MAX_TOKENS = 16
COMPANION_TOKENS = 40
COMPANIONS = ("A small dog runs.", "Once upon a time", "Is it large?")
QUESTIONS = (
    "What is this?",
    "How many?",
    "Describe it in detail.",
    "Is it large?",
    "Which colour?",
)


def prompts(oracle: Any, images: int) -> list[tuple[str, list[int]]]:
    """Texts, and which pictures they show: neighbours share pictures, every fifth the question."""
    made = []
    for number in range(CANDIDATES):
        shown = [(number // 3 + place * (1 + number % 2)) % PICTURES for place in range(images)]
        question = QUESTIONS[number % len(QUESTIONS)]
        turn: list[str | None] = ["Look at this.", *[None] * images, f"{question} {number // 5}"]
        if images == 3 and number % 4 == 0:  # text between the images
            turn = [None, "Look at this.", None, question, None, f"{number}"]
        made.append((oracle.prompt([turn]), shown))
    return made


def reference(oracle: Any, pictures: list[tuple[str, Image.Image]]) -> dict[str, Any]:
    """All continuations of one checkpoint."""

    def continuation(prompt: str, shown: list[int], tokens: int) -> dict[str, Any]:
        inputs = oracle.encode(prompt, [pictures[i][1] for i in shown])
        output, logits = oracle.generate(inputs, tokens)
        top = logits.topk(2, dim=-1).values
        return {
            "prompt": prompt,
            "images": [pictures[i][0] for i in shown],
            "prompt_token_ids": inputs["input_ids"][0].tolist(),
            "output_token_ids": output,
            "margin": float((top[:, 0] - top[:, 1]).min()),
        }

    counts = IMAGES if oracle.modality == "image" else IMAGES[:1]
    return {
        "companions": [continuation(text, [], COMPANION_TOKENS) for text in COMPANIONS],
        "prompts": {
            str(count): [continuation(*made, MAX_TOKENS) for made in prompts(oracle, count)]
            for count in counts
        },
    }


def main() -> None:
    """Write the references."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import hf_reference
    import torch

    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([arguments.seed, 4])
    pictures = []
    for number in range(PICTURES):
        path = arguments.out / f"{number}.png"
        hf_reference.make_image(random, *random.integers(60, 160, 2).tolist()).save(path)
        pictures.append((path.name, Image.open(path).convert("RGB")))
    for checkpoint in arguments.checkpoints:
        oracle = hf_reference.Oracle(checkpoint, image_backend="pil")
        path = arguments.out / f"{checkpoint.name}.json"
        path.write_text(json.dumps(reference(oracle, pictures)) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(sys.argv.pop(1)).resolve()))
    main()
