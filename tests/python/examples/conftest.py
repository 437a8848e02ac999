"""Makes `examples/` importable, as running from that folder does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "examples"))

ASSETS = Path(__file__).parents[3] / "python" / "mmcore" / "assets"


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of what ships with the package."""
    return ASSETS


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The bundled checkpoint."""
    return ASSETS / "tiny_llava"
