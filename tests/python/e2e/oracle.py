"""Runs the Hugging Face oracle in subprocesses: tiny checkpoints and their float32 references."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ORACLE = Path(__file__).resolve().parents[4] / "shared" / "oracle"
ABSENT = f"the Hugging Face oracle is not beside the checkout (looked for {ORACLE})"
VARIANTS = ("mistral", "llava_siglip")
SEED = int(os.environ.get("MMCORE_TEST_ORACLE_SEED", "0"))


@dataclass(frozen=True)
class Case:
    """One prompt with its media, and what transformers made of it in float32."""

    id: str
    kind: str
    prompt: dict[str, Any]
    prompt_token_ids: list[int]
    output_token_ids: list[int]
    margins: list[float]
    first_logits: np.ndarray


@dataclass(frozen=True)
class Reference:
    """A checkpoint and its cases."""

    arch: str
    checkpoint: Path
    cases: list[Case]

    @property
    def multimodal(self) -> bool:
        return any("multi_modal_data" in case.prompt for case in self.cases)


def run_script(script: str | Path, *args: str | Path) -> None:
    """Runs a Python script; an assertion fails with what it said."""
    done = subprocess.run(
        [sys.executable, str(script), *map(str, args)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (
        f"{Path(script).name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    )


def make_checkpoints(archs: Sequence[str], root: Path) -> list[Path]:
    """Writes the checkpoints `archs` below `root` unless they are there already."""
    missing = [a for a in archs if not (root / a / "mmcore_oracle.json").exists()]
    variants: list[str | Path] = [Path(__file__).with_name("variants.py"), ORACLE]
    scripts: dict[bool, list[str | Path]] = {
        True: variants,
        False: [ORACLE / "make_tiny_checkpoints.py"],
    }
    for is_variant, script in scripts.items():
        some = [arch for arch in missing if (arch in VARIANTS) == is_variant]
        if some:
            run_script(*script, "--out", root, "--seed", str(SEED), "--arch", *some)
    return [root / arch for arch in archs]


def make_reference(arch: str, root: Path) -> Reference:
    """Writes the checkpoint and the reference of `arch` below `root`, and reads them."""
    [checkpoint] = make_checkpoints([arch], root)
    path = root / "references" / f"{arch}.json"
    dump = root / "logits" / arch
    if not path.exists():
        run_script(
            ORACLE / "hf_reference.py", checkpoint, "--out", path, "--dump", dump,
            "--seed", str(SEED), "--image-backend", "pil",
        )  # fmt: skip
    return Reference(arch, checkpoint, [_case(c, path, dump) for c in _load(path)["cases"]])


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def _case(case: dict[str, Any], path: Path, dump: Path) -> Case:
    prompt: dict[str, Any] = {"prompt": case["prompt"]}
    if case["images"]:
        images = [Image.open(path.parent / i["file"]).convert("RGB") for i in case["images"]]
        prompt["multi_modal_data"] = {"image": images}
    with np.load(dump / f"{case['id']}.npz") as arrays:
        logits = arrays["logits"][0]
    return Case(
        case["id"], case["kind"], prompt, case["prompt_token_ids"], case["output_token_ids"],
        case["step_margins"], logits,
    )  # fmt: skip
