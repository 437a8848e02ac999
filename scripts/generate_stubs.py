#!/usr/bin/env python3
"""Write the type stubs of mmcore._C into python/mmcore/_C, or check that they are up to date.

    generate_stubs.py [--check]

Needs pybind11-stubgen 3.0.0, ruff, and the extension beside the Python sources.
"""

from __future__ import annotations

import argparse
import difflib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python"))

from mmcore import _C  # noqa: E402

STUBS = ROOT / "python" / "mmcore" / "_C"

# Methods that enum classes get from Python itself; they differ between its versions.
_ENUM_METHODS = re.compile(
    r"    @classmethod\n    def __new__\(cls, value\):\n        \.\.\.\n"
    r"|    def __format__\(self, format_spec\):\n        \.\.\.\n"
)
# mypy wants members to have values: "member: ClassVar[Kind]" is an attribute to it.
_ENUM_MEMBER = re.compile(r"^    (\w+): typing\.ClassVar\[(\w+)\]$", re.MULTILINE)
# A table's content is no type.
_TABLE = re.compile(r"^(\w+): dict = \{.*?\}", re.MULTILINE)
_HEADER = "# Written by scripts/generate_stubs.py; do not edit.\n"


def generate() -> dict[str, str]:
    """Give the stubs by file name."""
    with tempfile.TemporaryDirectory() as folder:
        run(
            [sys.executable, "-m", "pybind11_stubgen", "mmcore._C", "-o", folder, "--exit-code"],
            cwd=ROOT / "python",
        )
        stubs = Path(folder) / "mmcore" / "_C"
        for path in stubs.glob("*.pyi"):
            text = _ENUM_METHODS.sub("", path.read_text())
            text = _TABLE.sub(r"\1: dict[str, int]", text)
            path.write_text(_HEADER + _ENUM_MEMBER.sub(member_with_value, text))
        config = ROOT / "pyproject.toml"
        run([sys.executable, "-m", "ruff", "format", "--config", str(config), str(stubs)])
        return {path.name: path.read_text() for path in sorted(stubs.glob("*.pyi"))}


def member_with_value(match: re.Match[str]) -> str:
    """Write an enum's member as an assignment."""
    name, cls = match.groups()
    return f"    {name} = {getattr(_C, cls)[name].value}"


def run(command: list[str], cwd: Path = ROOT) -> None:
    """Run a command, showing what it printed if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def differences(made: dict[str, str]) -> list[str]:
    """Compare with the committed stubs."""
    lines: list[str] = []
    committed = {path.name: path.read_text() for path in STUBS.glob("*.pyi")}
    for name in sorted(made.keys() | committed.keys()):
        lines += difflib.unified_diff(
            committed.get(name, "").splitlines(),
            made.get(name, "").splitlines(),
            f"committed/{name}",
            f"generated/{name}",
            lineterm="",
        )
    return lines


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if they differ")
    check = parser.parse_args().check
    made = generate()
    if check:
        lines = differences(made)
        if lines:
            print("\n".join(lines))
            sys.exit("The stubs are out of date; run scripts/generate_stubs.py.")
        return
    STUBS.mkdir(exist_ok=True)
    for path in STUBS.glob("*.pyi"):
        path.unlink()
    for name, text in made.items():
        (STUBS / name).write_text(text)


if __name__ == "__main__":
    main()
