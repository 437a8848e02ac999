"""Serve the model: register it, make an LLM, ask it about two pictures.

python serve.py [--extended]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from make_checkpoint import write_checkpoint
from PIL import Image

from mmcore import LLM, ModelRegistry, SamplingParams

PROMPTS = ["<image>What is this?", "Text before <image> and after.", "No picture at all."]


def gradient(red: int, blue: int) -> Image.Image:
    """Draw a picture."""
    y, x = np.mgrid[0:80, 0:100]
    pixels = np.stack([x * red // 100, y * 2, np.full_like(x, blue)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def register(extended: bool) -> None:
    """Tell mmcore which class runs the architecture that config.json names."""
    # The string form imports the file when a checkpoint needs it.
    plain, split = "patch_vlm:PatchVlmForImage2Seq", "patch_vlm_extended:PatchVlmWithEncoder"
    ModelRegistry.register_model("PatchVlmForImage2Seq", split if extended else plain)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extended", action="store_true", help="the extended interface")
    args = parser.parse_args()
    register(args.extended)
    with tempfile.TemporaryDirectory() as folder:
        llm = LLM(str(write_checkpoint(Path(folder))), dtype="float32", max_num_seqs=8)
        images = iter([gradient(250, 30), gradient(20, 200)])
        prompts = [
            {"prompt": text, "multi_modal_data": {"image": next(images)}}
            if "<image>" in text
            else text
            for text in PROMPTS
        ]
        params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
        for output in llm.generate(prompts, params, use_tqdm=False):
            print(f"{output.prompt!r}: {list(output.outputs[0].token_ids)}")
        print(f"images encoded: {llm.llm_engine.metrics()['items_encoded']}")


if __name__ == "__main__":
    main()
