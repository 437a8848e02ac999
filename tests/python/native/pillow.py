"""Pictures that the installed Pillow resizes to other values than the native runner.

The runner resizes as Pillow does from version 13 on, which begins with the rows where a picture
loses more than twice as much height as width. Before that Pillow began with the columns, and some
values of such pictures differ by one.
"""

from __future__ import annotations

import json
from pathlib import Path

import PIL
from PIL import Image

OTHER_ORDER = int(PIL.__version__.partition(".")[0]) < 13
REASON = f"Pillow {PIL.__version__} resizes tall pictures in another order than 13 and later"


def is_tall(picture: Image.Image, checkpoint: Path) -> bool:
    """Whether the order matters for the picture with the checkpoint's processor, CLIP's."""
    size = json.loads((checkpoint / "preprocessor_config.json").read_text())["size"]
    edge = size["shortest_edge"]
    width, height = picture.size
    shorter = min(width, height)
    lost_rows = height - int(edge * height / shorter)
    lost_columns = width - int(edge * width / shorter)
    return lost_rows > 0 and lost_rows > 2 * lost_columns


def differs(picture: Image.Image, checkpoint: Path) -> bool:
    """Whether transformers prepares the picture with other values here."""
    return OTHER_ORDER and is_tall(picture, checkpoint)
