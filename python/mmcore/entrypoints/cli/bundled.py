"""Where the checkpoint and the picture that come with the package are."""

from __future__ import annotations

from pathlib import Path

import mmcore

_ASSETS = Path(mmcore.__file__).parent / "assets"
MODEL = _ASSETS / "tiny_llava"
PICTURE = _ASSETS / "shapes.png"


def model_or_bundled(model: str | None) -> str:
    """Return `model`, or the bundled checkpoint if there is none."""
    return str(MODEL) if model is None else model
