"""Unit: `python -m mmcore` tells where the C++ part is, and runs the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmcore import __main__ as program

PLACES = {
    "--cmake-dir": "lib/cmake/mmcore",
    "--pkg-config-dir": "lib/pkgconfig",
    "--include-dir": "include",
    "--lib-dir": "lib",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for place in PLACES.values():
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(program, "package_roots", lambda: iter([tmp_path / "elsewhere", tmp_path]))
    return tmp_path


def test_places_of_an_installed_package(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, place in PLACES.items():
        assert program.main([option]) == 0
        assert capsys.readouterr().out == f"{installed / place}\n"


def test_a_source_tree_has_no_places(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(program, "package_roots", lambda: iter([tmp_path]))
    assert program.main(["--cmake-dir"]) == 2
    assert "pip install" in capsys.readouterr().err


def test_everything_else_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmcore", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mmcore ")
