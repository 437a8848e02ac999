"""Which packages are installed, found quickly.

transformers asks when it is imported. From Python 3.12 on, the standard library then looks at each
file of each distribution on the disk, tens of thousands of them. The lists of these files say as
much.
"""

from __future__ import annotations

import csv
import importlib.metadata
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["packages_distributions", "quick_distributions"]


@contextmanager
def quick_distributions() -> Iterator[None]:
    """Have ``importlib.metadata.packages_distributions`` be quick, where it is slow."""
    original = importlib.metadata.packages_distributions
    if sys.version_info >= (3, 12):
        importlib.metadata.packages_distributions = packages_distributions  # type: ignore[assignment]
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = original


def packages_distributions() -> Mapping[str, list[str]]:
    """Give the names of the distributions that each top-level package or module comes from."""
    found: dict[str, list[str]] = {}
    for distribution in importlib.metadata.distributions():
        names = _top_level_names(distribution)
        if names:
            name = _name(distribution)
            for package in names:
                found.setdefault(package, []).append(name)
    return found


def _name(distribution: importlib.metadata.Distribution) -> str:
    """Read the name from the header's lines, without parsing the description behind them."""
    for line in (distribution.read_text("METADATA") or "").splitlines():
        if line.startswith("Name: "):
            return line.removeprefix("Name: ").strip()
        if not line:
            break
    return distribution.metadata["Name"]


def _top_level_names(distribution: importlib.metadata.Distribution) -> Iterable[str]:
    declared = (distribution.read_text("top_level.txt") or "").split()
    if declared:
        return declared
    record = distribution.read_text("RECORD")
    if record is None:
        paths = [str(path) for path in distribution.files or ()]
    else:
        paths = [_first_field(line) for line in record.splitlines() if line]
    firsts = dict.fromkeys(path.partition("/")[:2] for path in paths)
    names = (first if slash else inspect.getmodulename(first) or first for first, slash in firsts)
    return dict.fromkeys(name for name in names if "." not in name)


def _first_field(line: str) -> str:
    field: str = next(csv.reader([line]))[0] if line.startswith('"') else line.partition(",")[0]
    return field
