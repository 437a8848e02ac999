"""Print the requirements of pyproject.toml, one a line, for `pip install`.

Usage: requirements.py GROUP...   with GROUP one of build, runtime, or an extra (test, dev ...).
torch is left out of `runtime`: the Makefile installs it first and says which (see TORCH there).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any


def load(path: Path) -> dict[str, Any]:
    """Read TOML with what every Python has: tomllib, or pip's copy of tomli before 3.11."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        from pip._vendor import tomli as tomllib
    return dict(tomllib.loads(path.read_text(encoding="utf-8")))


def select(pyproject: dict[str, Any], group: str) -> list[str]:
    """Return the requirements of one group, with references to our own extras resolved."""
    project = pyproject["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    if group == "build":
        # pip builds without isolation, so the tools that CMake needs come along.
        return [*pyproject["build-system"]["requires"], "cmake>=3.26", "ninja>=1.10"]
    if group == "runtime":
        return [r for r in project["dependencies"] if not re.match(r"torch\b", r)]
    if group not in extras:
        known = ", ".join(["build", "runtime", *extras])
        raise SystemExit(f"requirements.py: no group {group!r}; known: {known}")
    found: list[str] = []
    for requirement in extras[group]:
        own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
        found += (
            [r for name in own[1].split(",") for r in select(pyproject, name.strip())]
            if own
            else [requirement]
        )
    return found


def main() -> None:
    """Print the groups named on the command line."""
    pyproject = load(Path(__file__).resolve().parent.parent / "pyproject.toml")
    for group in sys.argv[1:]:
        print("\n".join(select(pyproject, group)))


if __name__ == "__main__":
    main()
