"""Breaks the core on purpose, one mutation after the other, and demands that a test names it.

    check_mutations.py [--only WORD] [--build DIR] [--jobs N]

The table is tests/mutations/mutations.py. Each mutation is applied to a copy of the tree; its test
must fail and name the invariant. Before that all tests of the table must pass on the copy as it is.
The exit status is 1 if a mutation is not caught or not named, 2 if one does not apply or build.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from mutations.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parent.parent
TREE = ("CMakeLists.txt", "CMakePresets.json", "LICENSE", "cmake", "cpp", "cuda", "tests")


class BrokenTableError(Exception):
    """A mutation that cannot be tried."""


class Copy:
    """A copy of the tree with a build of its own.

    Parameters
    ----------
    folder
        Where it lies. What is there already is brought up to date, and built upon.
    jobs
        Compilers at a time.
    """

    def __init__(self, folder: Path, jobs: int) -> None:
        self.source = folder
        self._build = folder / "build" / "dev"  # as deep as a checkout's: ccache knows the files
        self._jobs = jobs
        for name in TREE:
            self._bring(ROOT / name, self.source / name)
        self._run("cmake", "--preset", "dev")

    def _bring(self, given: Path, copy: Path) -> None:
        """Copy what differs, and drop what is gone: times of files that stay are kept."""
        if given.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
            names = {child.name for child in given.iterdir()} - {"__pycache__"}
            for old in copy.iterdir():
                if old.name not in names:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            for name in sorted(names):
                self._bring(given / name, copy / name)
        elif not copy.exists() or copy.read_bytes() != given.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(given, copy)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, cwd=self.source, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stdout + done.stderr)[-3000:]
            raise BrokenTableError(f"{' '.join(command)} failed:\n{said}")

    def build(self, binary: str) -> None:
        """Build one test program."""
        jobs = str(self._jobs)
        self._run("cmake", "--build", str(self._build), "-j", jobs, "--target", binary)

    def test(self, binary: str, tests: str) -> tuple[int, str]:
        """Run some tests of it: the exit status (below zero: a signal), and what it printed."""
        [program] = [p for p in self._build.rglob(binary) if p.is_file()]
        done = subprocess.run(
            [program, f"--gtest_filter={tests}", "--gtest_fail_fast", "--gtest_brief=1"],
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


def mutated(mutation: Mutation, text: str) -> str:
    """The file's text with the mistake in it."""
    for old, new in mutation.edits:
        if text.count(old) != 1:
            raise BrokenTableError(
                f"'{mutation.name}' does not apply: {mutation.file} has "
                f"{text.count(old)} times\n{old}\nBring tests/mutations/mutations.py up to date."
            )
        text = text.replace(old, new)
    return text


def try_one(copy: Copy, mutation: Mutation) -> str:
    """Apply a mutation, run its test, restore. Empty if it was caught by name, else the reason."""
    path = copy.source / mutation.file
    sound = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutation, sound), encoding="utf-8")
    try:
        copy.build(mutation.binary)
        status, output = copy.test(mutation.binary, mutation.filter)
    finally:
        path.write_text(sound, encoding="utf-8")
    named = re.search(mutation.invariant, output)
    if status == 0:
        return "the test passes all the same"
    if named is None:
        return f"the test fails, but does not say '{mutation.invariant}':\n{output[-2000:]}"
    return ""


def main() -> int:
    """Try all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutations with this word in their name")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "mutations")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if arguments.only in m.name]
    if not chosen:
        print(f"check_mutations.py: no mutation has '{arguments.only}' in its name")
        return 2
    missed = 0
    begin = time.monotonic()
    try:
        for mutation in chosen:
            mutated(mutation, (ROOT / mutation.file).read_text(encoding="utf-8"))
        copy = Copy(arguments.build, arguments.jobs)
        for binary, tests in sorted({(m.binary, m.filter) for m in chosen}):
            copy.build(binary)
            status, output = copy.test(binary, tests)
            if status != 0:
                raise BrokenTableError(f"{binary} {tests} fails without a mutation:\n{output}")
        for mutation in chosen:
            reason = try_one(copy, mutation)
            missed += bool(reason)
            print(f"{'MISSED' if reason else 'caught'}  {mutation.name}", flush=True)
            if reason:
                print(reason)
    except BrokenTableError as error:
        print(f"check_mutations.py: {error}")
        return 2
    seconds = time.monotonic() - begin
    print(f"mutations: {len(chosen)} tried, {len(chosen) - missed} caught by name, {seconds:.0f} s")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
