"""``python -m mmcore``: the command line, and where a C++ build finds headers and CMake files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

_PLACES = {
    "--cmake-dir": "lib/cmake/mmcore",
    "--pkg-config-dir": "lib/pkgconfig",
    "--include-dir": "include",
    "--lib-dir": "lib",
}


def package_roots() -> Iterator[Path]:
    """Yield the folders that hold the package: one, or two in an editable install."""
    import mmcore

    yield from map(Path, mmcore.__path__)


def find_place(option: str) -> Path:
    """Return what `option` names in the installed package.

    Raises
    ------
    FileNotFoundError
        If the package was not installed with its C++ part.
    """
    wanted = _PLACES[option]
    for root in package_roots():
        if (root / wanted).is_dir():
            return root / wanted
    raise FileNotFoundError(
        f"this mmcore has no {wanted}: it runs from a source tree. Install it: pip install ."
    )


def main(arguments: list[str] | None = None) -> int:
    """Print a place of the C++ part, or run the command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) == 1 and arguments[0] in _PLACES:
        try:
            print(find_place(arguments[0]))  # noqa: T201
        except FileNotFoundError as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
            return 2
        return 0
    from mmcore.entrypoints.cli import main as command_line

    command_line()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
