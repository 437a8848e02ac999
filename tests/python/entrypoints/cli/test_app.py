"""Unit: help is there for every command, and costs no heavy import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest

COMMANDS = ("generate", "demo", "info", "check")


def test_help_lists_the_commands(run: Callable) -> None:
    done = run("--help")
    assert done.status == 0
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Callable, command: str) -> None:
    done = run(command, "--help")
    assert done.status == 0
    assert f"mmcore {command}" in done.stdout


def test_version(run: Callable) -> None:
    assert run("--version").stdout == f"mmcore {version('mmcore')}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from mmcore.entrypoints.cli.app import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'PIL', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
