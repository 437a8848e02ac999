"""Unit: what the package promises: its version, its names, its layers, its documents."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest

import mmcore

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN = sorted(
    p
    for pattern in ("*.md", "docs/*.md", "benchmarks/**/*.md", "tests/*.md", "examples/*/*.md")
    for p in ROOT.glob(pattern)
)


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_one_version_everywhere() -> None:
    declared = re.search(
        r"project\(mmcore VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()
    )
    assert declared is not None
    assert mmcore.__version__ == version("mmcore") == declared[1]
    from mmcore import _C

    assert _C.__version__ == declared[1]


@pytest.mark.parametrize("name", mmcore.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(mmcore, name) is getattr(mmcore, name)
    assert name in dir(mmcore)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LLMs'"):
        _ = mmcore.LLMs  # type: ignore[attr-defined]


def test_modules_are_reached_without_an_import_of_their_own() -> None:
    done = python("-c", "import mmcore; mmcore.ops.rms_norm; mmcore.errors.MediaError")
    assert done.returncode == 0, done.stderr


def test_the_package_is_typed_and_has_its_command() -> None:
    assert (Path(mmcore.__file__).parent / "py.typed").is_file()
    [command] = [e for e in entry_points(group="console_scripts") if e.name == "mmcore"]
    assert callable(command.load())


def test_requirements_of_the_metadata_are_those_of_the_script() -> None:
    printed = python(ROOT / "scripts" / "requirements.py", "runtime").stdout.split()
    normalized = {r.replace(" ", "") for r in requires("mmcore") or () if "extra ==" not in r}

    def name(requirement: str) -> str:
        return re.split(r"[<>=!;\[]", requirement)[0]

    assert {name(r) for r in normalized} == {name(r) for r in printed} | {"torch"}


class TestLayers:
    def test_this_tree_points_one_way(self) -> None:
        done = python(ROOT / "scripts" / "check_layers.py")
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize(
        ("path", "line", "complaint"),
        [
            ("cpp/src/kv/x.cpp", '#include "sched/y.h"', "kv must not include sched"),
            ("cpp/src/sched/x.h", '#include "mmcore/tensor.h"', "sched must not include tensor"),
            ("cpp/src/base/x.cpp", "#include <torch/torch.h>", "no torch, Python or CUDA"),
            ("cpp/src/ops/x.cpp", "#include <cuda_runtime.h>", "no torch, Python or CUDA"),
            ("cpp/include/mmcore/x.h", '#include "base/check.h"', "only std and mmcore/"),
            ("cuda/attention/x.cu", '#include "sched/y.h"', "cuda/ must not include sched"),
            ("cuda/device/x.cuh", '#include "host/launch.h"', "only cuda/device"),
            ("python/mmcore/ops.py", "import mmcore.engine", "which lies above it"),
            ("python/mmcore/errors.py", "import torch", "must not import torch"),
            ("python/mmcore/config.py", "from . import engine", "which lies above it"),
        ],
    )
    def test_a_wrong_turn_is_found(
        self, tmp_path: Path, path: str, line: str, complaint: str
    ) -> None:
        for name in ("python/mmcore/__init__.py", "python/mmcore/engine/__init__.py", path):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{line}\n" if name == path else "")
        done = python(ROOT / "scripts" / "check_layers.py", tmp_path)
        assert done.returncode == 1
        assert f"{path}:1: " in done.stdout and complaint in done.stdout

    def test_imports_in_functions_and_for_types_are_free(self, tmp_path: Path) -> None:
        package = tmp_path / "python" / "mmcore"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    import torch\n"
            "def f():\n    import transformers\n"
        )
        assert python(ROOT / "scripts" / "check_layers.py", tmp_path).returncode == 0


class TestDocuments:
    @pytest.mark.parametrize("path", MARKDOWN, ids=lambda p: str(p.relative_to(ROOT)))
    def test_links_inside_the_repository_lead_somewhere(self, path: Path) -> None:
        targets = re.findall(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)", path.read_text())
        missing = [t for t in targets if not (path.parent / t).exists()]
        assert missing == []

    def test_every_error_code_is_explained(self) -> None:
        codes: set[str] = set()
        for source in (ROOT / "python" / "mmcore").rglob("*.py"):
            text = source.read_text(encoding="utf-8")
            codes |= set(re.findall(r'code="([a-z_]+)"', text))
            codes |= set(re.findall(r'default_code = "([a-z_]+)"', text))
        for source in (ROOT / "bindings").glob("*.cpp"):
            codes |= set(re.findall(r'Error", "([a-z_]+)"\}', source.read_text(encoding="utf-8")))
        explained = set(
            re.findall(r"^\| `([a-z_]+)`", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
        )
        assert codes - explained == set(), "codes without a row in docs/errors.md"
        assert explained - codes == set(), "rows of docs/errors.md without a code"

    def test_invariants_that_the_code_cites_are_in_the_architecture(self) -> None:
        citation = re.compile(
            r"\b(?:invariant|docs):[\s/]+([a-z]+\.[a-z_]+)"  # in comments, over lines too
            r'|"((?:kv|sched|encoder|engine|step|model|runner)\.[a-z_]+): '  # in reports
        )
        cited: set[str] = set()
        for folder in ("cpp/src", "cpp/include", "cuda", "bindings", "python"):
            for source in (ROOT / folder).rglob("*"):
                if source.suffix in {".h", ".cpp", ".cu", ".cuh", ".py"}:
                    found = citation.findall(source.read_text(encoding="utf-8"))
                    cited |= {comment or violation for comment, violation in found}
        text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
        defined = set(re.findall(r"^#+ ([a-z]+\.[a-z_]+)$", text, re.MULTILINE))
        assert len(cited) > 20
        assert cited - defined == set(), "ids without a heading in ARCHITECTURE.md"
