"""The committed stubs of mmcore._C describe the extension that is there. Layer: bindings."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "generate_stubs.py"


@pytest.mark.skipif(
    importlib.util.find_spec("pybind11_stubgen") is None
    or importlib.util.find_spec("ruff") is None,
    reason="pybind11-stubgen and ruff are needed to make the stubs",
)
def test_stubs_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
