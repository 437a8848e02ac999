"""Check that includes and imports point in the direction that ARCHITECTURE.md draws.

Prints one line for each violation and exits 1 if there is one. Files that are longer than the
style asks for are warnings: where count and sense disagree, sense wins.

Usage: check_layers.py [ROOT]
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# C++: each folder of cpp/src and what it may include; public headers count by LAYER_OF_HEADER.
ALLOWED = {
    "base": {"base"},
    "tensor": {"base", "tensor"},
    "ops": {"base", "tensor", "ops", "sampling"},
    "sampling": {"base", "tensor", "sampling"},
    "media": {"base", "media"},
    "kv": {"base", "media", "kv"},
    "sched": {"base", "media", "kv", "sched"},
    "engine": {"base", "media", "kv", "sched", "engine"},
    "c_api": {"base", "media", "kv", "sched", "engine", "c_api"},
    # A library of its own above both others: of their sources only what is wholly inline.
    "native": {"base", "tensor", "ops", "media", "engine", "c_api", "native"},
}
LAYER_OF_HEADER = {
    "tensor.h": "tensor",
    "ops.h": "ops",
    "gpu.h": "ops",
    "media.h": "media",
    "engine.h": "engine",
    "engine_loop.h": "engine",
    "c_api.h": "c_api",
    "c_api_cpp.h": "c_api",
    "native.h": "native",
    "native_c.h": "native",
}
# Public headers of plain data (status, types, config, request ...) may be seen from everywhere.

FOREIGN = re.compile(r"^(torch/|ATen/|c10/|pybind11/|Python\.h|nanobind/)")
CUDA = re.compile(r"^(cuda|cublas|cudnn|curand|nvtx|cub/|thrust/|cute/|cutlass/)|\.cuh$")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]')

# Python: a module may import modules of its own rank or below.
RANKS = [
    ("_C", "errors", "_version"),
    (),  # everything that is not named: inputs, multimodal, ops, attention, config, sequence ...
    ("model_executor",),
    ("engine",),
    ("entrypoints", "__main__"),
]
# Importing these must not import any of HEAVY.
LIGHT = ("mmcore", "mmcore.errors", "mmcore.sampling_params", "mmcore.entrypoints.cli")
HEAVY = ("torch", "transformers", "PIL", "numpy", "safetensors")

CODE = ("cpp", "cuda", "bindings", "python", "tests", "benchmarks", "examples", "scripts")
LINE_GOAL = {".py": 450, ".cpp": 450, ".h": 450, ".cu": 500, ".cuh": 450}


def sources(folder: Path, *suffixes: str) -> Iterator[Path]:
    """Yield the files below `folder` that have one of `suffixes`."""
    if folder.is_dir():
        yield from sorted(p for p in folder.rglob("*") if p.suffix in suffixes and p.is_file())


def includes(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, name) of every include of a file."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if match := INCLUDE.match(line):
            yield number, match[1]


def layer_of(name: str) -> str | None:
    """Return the folder of cpp/src that an include belongs to, if it belongs to one."""
    folder, _, rest = name.partition("/")
    if folder == "mmcore":
        return LAYER_OF_HEADER.get(rest)
    return folder if folder in ALLOWED else None


def check_cpp(root: Path) -> Iterator[str]:
    """Check cpp/: no foreign headers, and folders that include downwards only."""
    source_root = root / "cpp" / "src"
    for path in sources(root / "cpp", ".h", ".cpp"):
        own = path.relative_to(source_root).parts[0] if path.is_relative_to(source_root) else None
        for number, name in includes(path):
            where = f"{path.relative_to(root)}:{number}"
            if FOREIGN.match(name) or CUDA.search(name):
                yield f"{where}: cpp/ includes no torch, Python or CUDA header ({name})"
            if own is None and not name.startswith("mmcore/") and "/" in name:
                yield f"{where}: a public header includes only std and mmcore/ ({name})"
            target = layer_of(name)
            if own in ALLOWED and target is not None and target not in ALLOWED[own]:
                yield f"{where}: {own} must not include {target} ({name})"


def check_cuda(root: Path) -> Iterator[str]:
    """Check cuda/: kernels know nothing of the scheduler, Python or torch."""
    for path in sources(root / "cuda", ".h", ".cuh", ".cu", ".cpp"):
        device = "device" in path.relative_to(root / "cuda").parts[:1]
        for number, name in includes(path):
            where = f"{path.relative_to(root)}:{number}"
            if FOREIGN.match(name):
                yield f"{where}: cuda/ includes no torch or Python header ({name})"
            if layer_of(name) in {"kv", "sched", "engine", "c_api"}:
                yield f"{where}: cuda/ must not include {layer_of(name)} ({name})"
            if device and name.startswith("host/"):
                yield f"{where}: cuda/device includes only cuda/device ({name})"


def rank_of(module: str) -> int:
    """Return the rank of a module of mmcore; the package itself is the lowest."""
    parts = module.split(".")
    if len(parts) == 1:
        return 0
    for rank, names in enumerate(RANKS):
        if parts[1] in names:
            return rank
    return 1


def imported(tree: ast.AST, package: str, *, module_level: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of the imports of a module.

    `module_level` leaves out what is inside functions; TYPE_CHECKING blocks never count. For
    ``from a import b`` both a and a.b are given, since b may be a module.
    """
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack += node.orelse
            continue
        if module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                kept = parents[: len(parents) - node.level + 1]
                base = ".".join([*kept, base] if base else kept)
            yield node.lineno, base
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        stack += ast.iter_child_nodes(node)


def python_modules(root: Path) -> dict[str, Path]:
    """Map the names of the package's modules to their files."""
    base = root / "python"
    found = {}
    for path in sources(base / "mmcore", ".py"):
        parts = path.relative_to(base).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def check_python(root: Path) -> Iterator[str]:
    """Check that Python modules import downwards, and that light modules stay light."""
    modules = python_modules(root)
    heavy_of: dict[str, list[tuple[str, str]]] = {}
    needs: dict[str, set[str]] = {}
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        heavy_of[module], needs[module] = [], set()
        # Importing a module runs its parents' __init__ first.
        parents = module.split(".")
        needs[module] |= {".".join(parents[:i]) for i in range(1, len(parents))}
        for line, name in imported(tree, package, module_level=True):
            where = f"{path.relative_to(root)}:{line}"
            if name.split(".")[0] in HEAVY:
                heavy_of[module].append((where, name))
            if name in modules or name == "mmcore._C":
                needs[module].add(name)
                if rank_of(name) > rank_of(module):
                    yield f"{where}: {module} must not import {name}, which lies above it"
    for light in LIGHT:
        seen, stack = set(), [light]
        while stack:
            module = stack.pop()
            if module in seen or module not in modules:
                continue
            seen.add(module)
            stack += needs[module]
            for where, name in heavy_of[module]:
                yield f"{where}: importing {light} must not import {name}"


def long_files(root: Path) -> Iterator[str]:
    """Name files that are longer than the style's maximum."""
    for folder in CODE:
        for path in sources(root / folder, *LINE_GOAL):
            lines = path.read_text(encoding="utf-8").count("\n")
            if lines > LINE_GOAL[path.suffix]:
                name, goal = path.relative_to(root), LINE_GOAL[path.suffix]
                yield f"{name}: {lines} lines, the goal is at most {goal}"


def main() -> int:
    """Check the tree and report."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    for warning in long_files(root):
        print(f"warning: {warning}")
    # An import that is reachable from several light modules is still one problem a module.
    problems = dict.fromkeys([*check_cpp(root), *check_cuda(root), *check_python(root)])
    for problem in problems:
        print(problem)
    verdict = f"{len(problems)} problem(s)" if problems else "includes and imports point one way"
    print(f"layers: {verdict}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
