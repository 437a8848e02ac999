"""The programs of tests/cpp/native, which run the native library on files.

MMCORE_NATIVE_BUILD names the build that they are taken from, MMCORE_NATIVE_DEVICE the device that
models run on: with "cuda" and "cuda" the same tests hold for a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
BUNDLED = ROOT / "python" / "mmcore" / "assets" / "tiny_llava"
BUILDS = ("dev", "release", "cuda", "asan")


def program(name: str) -> Path:
    """Finds a program among the builds, MMCORE_NATIVE_BUILD's first; skips where there is none."""
    named = os.environ.get("MMCORE_NATIVE_BUILD")
    for build in [named] if named else BUILDS:
        path = ROOT / "build" / build / "tests" / "cpp" / "native" / f"mmcore_native_{name}"
        if path.exists():
            return path
    pytest.skip(f"mmcore_native_{name} is not built; `make test-cpp` does it")


def run(name: str, *arguments: str | Path, stdin: bytes = b"") -> bytes:
    """Runs a program that is to succeed and gives what it printed."""
    done = subprocess.run(
        [str(program(name)), *map(str, arguments)], input=stdin, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def run_job(name: str, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Runs a program on a job file, which is written to `folder`."""
    path = folder / f"{name}.json"
    job = {"device": os.environ.get("MMCORE_NATIVE_DEVICE", "cpu")} | job
    path.write_text(json.dumps(job), encoding="utf-8")
    result: dict[str, Any] = json.loads(run(name, path))
    return result


def picture_files(pictures: Sequence[Image.Image], folder: Path) -> list[dict[str, Any]]:
    """Writes pictures as raw bytes, as jobs name them."""
    named = []
    for picture in pictures:
        path = folder / f"{len(list(folder.glob('*.rgb')))}.rgb"
        path.write_bytes(picture.convert("RGB").tobytes())
        named.append({"file": str(path), "width": picture.width, "height": picture.height})
    return named


def encode(checkpoint: Path, texts: Sequence[str], folder: Path) -> list[list[int]]:
    """Tokenises prompts."""
    job = {"checkpoint": str(checkpoint), "encode": list(texts), "decode": []}
    ids: list[list[int]] = run_job("tokenize", folder, job)["ids"]
    return ids
