"""Which packages are installed. Layer: unit, on whatever is installed here."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from mmcore.distributions import packages_distributions, quick_distributions


def test_it_finds_what_the_standard_library_finds() -> None:
    expected = {k: sorted(v) for k, v in importlib.metadata.packages_distributions().items()}
    found = {k: sorted(v) for k, v in packages_distributions().items()}
    if sys.version_info >= (3, 12):
        assert found == expected
    else:  # the standard library takes other files than modules for packages, or none
        names = [name for name in expected if name.isidentifier()]
        assert {name: found.get(name) for name in names} == {n: expected[n] for n in names}
    assert found["torch"] == ["torch"] and found["PIL"] == ["pillow"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"top_level.txt": "one\ntwo\n", "RECORD": "three/__init__.py,,\n"}, {"one", "two"}),
        (
            {
                "RECORD": "one/__init__.py,sha256=x,1\nalone.py,,\nfast.cpython-39-x.so,,\n"
                '"with,comma/a.py",,\n../../bin/tool,,\nwhole-1.0.dist-info/RECORD,,\n'
            },
            {"one", "alone", "with,comma"},
        ),
        ({}, set()),
    ],
)
def test_names_from_lists_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: set[str]
) -> None:
    folder = tmp_path / "whole-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: Whole\nVersion: 1.0\n\nName: no")
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert packages_distributions() == {name: ["Whole"] for name in expected}


def test_the_standard_library_gets_its_own_back() -> None:
    original = importlib.metadata.packages_distributions
    with pytest.raises(RuntimeError), quick_distributions():
        now = importlib.metadata.packages_distributions
        assert (now is packages_distributions) == (sys.version_info >= (3, 12))
        raise RuntimeError
    assert importlib.metadata.packages_distributions is original
