"""Running the command line inside the test's process, as a user would type it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from mmcore.entrypoints.cli.app import app


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def run() -> Run:
    def run(*arguments: str, stdin: str | None = None) -> Done:
        result = CliRunner().invoke(app, list(arguments), input=stdin, prog_name="mmcore")
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def two_circles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture drawn here, which no training run saw: two circles and a square."""
    image = Image.new("RGB", (320, 320), (236, 233, 224))
    draw = ImageDraw.Draw(image)
    draw.ellipse((30, 40, 130, 140), fill=(214, 40, 40))
    draw.ellipse((190, 60, 280, 150), fill=(38, 84, 204))
    draw.rectangle((110, 195, 200, 285), fill=(46, 150, 70))
    path = tmp_path_factory.mktemp("pictures") / "two_circles.png"
    image.save(path)
    return path
