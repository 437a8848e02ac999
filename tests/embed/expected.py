"""What Python's LLM says about the bundled picture, for hosts to compare with.

Usage: expected.py FOLDER

Writes the picture as picture.ppm and, without a head, as picture.rgb, its size as size.txt; the
answer as expected.json, and its token ids alone as ids.txt.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path

from PIL import Image

from mmcore import LLM, SamplingParams

PROMPT = "USER: <image>\nDescribe the image. ASSISTANT:"


def main() -> int:
    """Write the files."""
    folder = Path(sys.argv[1])
    assets = files("mmcore") / "assets"
    picture = Image.open(str(assets / "shapes.png")).convert("RGB")
    picture.save(folder / "picture.ppm")
    (folder / "picture.rgb").write_bytes(picture.tobytes())
    (folder / "size.txt").write_text(f"{picture.width} {picture.height}\n")
    llm = LLM(str(assets / "tiny_llava"), dtype="float32")
    prompt = {"prompt": PROMPT, "multi_modal_data": {"image": picture}}
    [output] = llm.generate([prompt], SamplingParams(temperature=0.0, max_tokens=64))
    answer = output.outputs[0]
    ids = list(answer.token_ids)
    (folder / "ids.txt").write_text(" ".join(map(str, ids)) + "\n")
    (folder / "expected.json").write_text(json.dumps({"token_ids": ids, "text": answer.text}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
