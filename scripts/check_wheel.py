"""Check what a wheel holds: all that it needs, nothing twice, nothing that does not belong.

Usage: check_wheel.py WHEEL

Unpacks the wheel into a temporary folder, imports mmcore from there, and prints its size. Then
installs it into a virtual environment whose PATH holds no compiler, and captions the bundled
picture there. Takes what mmcore requires from the environment that runs this.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 6_000_000  # without the bundled checkpoint
MAX_CHECKPOINT_BYTES = 8 * 2**20
CHECKPOINT = "mmcore/assets/tiny_llava/"
WANTED = (
    r"mmcore/_C\.[^/]+\.so",
    r"mmcore/_C/__init__\.pyi",
    r"mmcore/__init__\.py",
    r"mmcore/py\.typed",
    r"mmcore/assets/shapes\.png",
    r"mmcore/assets/tiny_llava/model\.safetensors",
    r"mmcore/lib/libmmcore_core\.so",
    r"mmcore/lib/libmmcore_kernels\.so",
    r"mmcore/lib/libmmcore_native\.so",
    r"mmcore/lib/cmake/mmcore/mmcoreConfig\.cmake",
    r"mmcore/lib/pkgconfig/mmcore-core\.pc",
    r"mmcore/include/mmcore/engine\.h",
    r"mmcore-[0-9.]+\.dist-info/licenses/LICENSE",
    r"mmcore-[0-9.]+\.dist-info/entry_points\.txt",
)
ALLOWED = re.compile(r"mmcore/|mmcore-[0-9.]+\.dist-info/")
REFUSED = re.compile(r"\.(a|o|cpp|cu|pyc|orig)$|/(tests|examples|benchmarks|__pycache__)/")

# An editable install in the same environment must not stand in front of the wheel.
IMPORT = """
import sys
sys.meta_path = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
sys.path.insert(0, sys.argv[1])
import mmcore
from mmcore import _C
assert mmcore.__file__.startswith(sys.argv[1]), mmcore.__file__
assert _C.__file__.startswith(sys.argv[1]), _C.__file__
print(_C.__version__)
"""


def problems(wheel: zipfile.ZipFile) -> Iterator[str]:
    """Yield what is wrong with the list of files."""
    files = [entry for entry in wheel.infolist() if not entry.is_dir()]
    names = [entry.filename for entry in files]
    for pattern in WANTED:
        if not any(re.fullmatch(pattern, name) for name in names):
            yield f"missing: {pattern}"
    for name in names:
        if not ALLOWED.match(name) or REFUSED.search(name):
            yield f"does not belong: {name}"
    seen: dict[str, str] = {}
    for entry in files:
        if entry.file_size < 1024:
            continue
        digest = hashlib.sha256(wheel.read(entry)).hexdigest()
        if digest in seen:
            yield f"{entry.filename} is a copy of {seen[digest]}"
        seen[digest] = entry.filename
    checkpoint = sum(e.compress_size for e in files if e.filename.startswith(CHECKPOINT))
    rest = sum(e.compress_size for e in files) - checkpoint
    print(f"{len(files)} files, {rest:,} bytes and {checkpoint:,} bytes of checkpoint, compressed")
    if rest > MAX_BYTES:
        yield f"{rest:,} bytes without the checkpoint; at most {MAX_BYTES:,}"
    if checkpoint > MAX_CHECKPOINT_BYTES:
        yield f"{checkpoint:,} bytes of checkpoint; at most {MAX_CHECKPOINT_BYTES:,}"


def import_from(wheel: zipfile.ZipFile) -> str | None:
    """Unpack and import; return what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        wheel.extractall(folder)
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [sys.executable, "-c", IMPORT, folder],
            capture_output=True,
            text=True,
            env=environment,
            cwd=folder,
        )
        return done.stderr if done.returncode else None


def caption_without_compiler(wheel: Path) -> str | None:
    """Install into a fresh environment and generate; return what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder)
        python = Path(folder, "bin", "python")
        install = ["-m", "pip", "-qq", "--python", python, "install", "--no-deps", "--no-index"]
        subprocess.run([sys.executable, *install, wheel], check=True)
        [site] = Path(folder, "lib").glob("python*/site-packages")
        # Requirements only: .pth files of that folder, an editable mmcore for one, are not read.
        packages = [entry for entry in sys.path if entry.endswith("-packages")]
        (site / "requirements.pth").write_text("\n".join(packages))
        picture = site / "mmcore" / "assets" / "shapes.png"
        command = ["generate", "--json", "--image", picture, "--prompt", "Describe the image."]
        done = subprocess.run(
            [Path(folder, "bin", "mmcore"), *command],
            capture_output=True,
            text=True,
            cwd=folder,
            env={"PATH": str(python.parent), "HOME": folder, "HF_HUB_OFFLINE": "1"},
        )
        return None if "a large red circle" in done.stdout else done.stdout + done.stderr


def main() -> int:
    """Check one wheel."""
    path = Path(sys.argv[1]).resolve()
    with zipfile.ZipFile(path) as wheel:
        found = list(problems(wheel))
        if failure := import_from(wheel):
            found.append(f"it cannot be imported: {failure}")
    if failure := caption_without_compiler(path):
        found.append(f"it does not run in an environment of its own: {failure}")
    for problem in found:
        print(problem)
    print(f"wheel: {'not as it should be' if found else 'as it should be'}")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
