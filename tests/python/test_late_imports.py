"""What an engine's start does not import. Layer: a process of its own, a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from mmcore import LLM
from mmcore.entrypoints.cli.bundled import MODEL

engine = LLM(str(MODEL), device="cpu", num_gpu_blocks_override=200)
heavy = {"scipy", "sklearn", "pandas", "matplotlib", "tensorflow", "jax", "av", "soundfile"}
assert not heavy & sys.modules.keys(), sorted(heavy & sys.modules.keys())

import transformers.generation.candidate_generator
from transformers.loss.loss_for_object_detection import linear_sum_assignment

assert not heavy & sys.modules.keys(), sorted(heavy & sys.modules.keys())
assert linear_sum_assignment([1], maximize=True) == ("assigned", [1], True)
assert "scipy.optimize" in sys.modules
import scipy.optimize
assert scipy.optimize.other() == 1, "it is the real one"
"""


def install(folder: Path, name: str, files: dict[str, str]) -> None:
    """Write a package as pip does."""
    for path, text in files.items():
        file = folder / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    information = folder / f"{name}-1.9.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.9.0\n")
    (information / "top_level.txt").write_text(f"{name}\n")


def test_an_engine_starts_without_packages_that_only_training_needs(tmp_path: Path) -> None:
    assign = (
        "def linear_sum_assignment(*args, **kwargs): return 'assigned', *args, *kwargs.values()"
    )
    install(
        tmp_path,
        "scipy",
        {"__init__.py": "", "optimize/__init__.py": f"{assign}\ndef other(): return 1\n"},
    )
    install(
        tmp_path,
        "sklearn",
        {"__init__.py": "", "metrics/__init__.py": "def roc_curve(*args): return args\n"},
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
