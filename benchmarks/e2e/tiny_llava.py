"""The bundled LLaVA-1.5 on drawn pictures, against Hugging Face transformers in the same run.

    python -m benchmarks.e2e.tiny_llava [--batch 1 --batch 32] [--new-tokens 32] [--json FILE]

Every request has a picture of its own that no other request shares, so that nothing comes from a
cache, and 32 new tokens are made whatever the model says. Both sides process their pictures
inside the measured time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.e2e.rounds import Generate, Tokens, agreement, print_rows, run_rounds
from benchmarks.harness import machine_facts, use_threads, warn_if_busy, write_results
from mmcore.entrypoints.cli.bundled import MODEL

PROMPT = "USER: <image>\nDescribe the image. ASSISTANT:"


class Pictures:
    """An endless row of different pictures: coloured noise, the same in every run."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def take(self, count: int) -> list[Image.Image]:
        """Return the next ones; none comes twice."""
        pixels = self.random.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        return [Image.fromarray(picture).resize((256, 256)) for picture in pixels]


def mmcore_engine(pictures: Pictures) -> Generate:
    """Serve with mmcore."""
    from mmcore import LLM, SamplingParams

    llm = LLM(str(MODEL), dtype="float32")

    def generate(batch: int, new_tokens: int) -> Tokens:
        params = SamplingParams(temperature=0.0, max_tokens=new_tokens, ignore_eos=True)
        requests: Any = [
            {"prompt": PROMPT, "multi_modal_data": {"image": picture}}
            for picture in pictures.take(batch)
        ]
        outputs = llm.generate(requests, params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    return generate


def transformers_engine(pictures: Pictures) -> Generate:
    """Serve with `generate` of transformers, as one batch of equal lengths."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(MODEL)
    model: Any = AutoModelForImageTextToText.from_pretrained(MODEL, dtype=torch.float32).eval()

    @torch.inference_mode()
    def generate(batch: int, new_tokens: int) -> Tokens:
        inputs = processor(text=[PROMPT] * batch, images=pictures.take(batch), return_tensors="pt")
        made = model.generate(
            **inputs,
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            eos_token_id=None,
            pad_token_id=0,
        )
        tokens: Tokens = made[:, inputs["input_ids"].shape[1] :].tolist()
        return tokens

    return generate


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="for both sides; default: mmcore's own choice")
    parser.add_argument("--json", type=Path, help="store the rows here")
    options = parser.parse_args()

    facts = machine_facts(use_threads(options.threads))
    warn_if_busy(facts)
    ours, theirs = mmcore_engine(Pictures()), transformers_engine(Pictures())
    # Both sides see the same pictures here, since both rows of pictures begin alike.
    same = agreement(ours(8, options.new_tokens), theirs(8, options.new_tokens))
    print(f"{same:.0%} of 8 generations agree with transformers token for token", flush=True)
    if same < 1.0:
        raise SystemExit("float32 generations differ from transformers: not measured")
    engines = {"mmcore float32": ours, "transformers float32": theirs}
    rows = run_rounds(engines, options.batch or [1, 32], options.new_tokens, options.rounds)
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print_rows(rows)
    if options.json is not None:
        write_results(options.json, facts, rows)


if __name__ == "__main__":
    main()
