"""Compare what shared libraries export with the committed lists in cpp/abi/.

Usage: check_abi.py [--update] LIBRARY...

A symbol that is missing breaks programs that were linked before; one that is new was perhaps not
meant to be seen. Either is a difference; ``--update`` writes the lists anew, and the change of the
lists is what a review looks at. What a list leaves out are instantiations of the C++ standard
library's templates, which depend on the compiler.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LISTS = Path(__file__).resolve().parent.parent / "cpp" / "abi"
# "name kind value size"; a demangled name has spaces.
LINE = re.compile(r"(?P<name>.+) (?P<kind>[A-Za-z]) [0-9a-f]+(?: [0-9a-f]+)?")
OURS = re.compile(r"mmcore_\w+|.*\bmmcore::.*")
STANDARD = re.compile(
    r"(?:(?:typeinfo|typeinfo name|vtable|VTT|guard variable) for )?(?:\S+ )*(?:std|__gnu_cxx)::.*"
)
LINKER = {"__bss_start", "_edata", "_end", "_init", "_fini"}


def is_standard(name: str) -> bool:
    """Whether a symbol belongs to the standard library, whatever its template arguments are."""
    without_arguments = re.sub(r"<.*", "<", name) if "<" in name else name
    return "mmcore::" not in without_arguments and STANDARD.fullmatch(name) is not None


def exported(library: Path) -> set[str]:
    """Return the names, demangled, that a library offers to others."""
    command = ["nm", "--dynamic", "--defined-only", "--demangle", "--format=posix", str(library)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = set()
    for line in listing.splitlines():
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise SystemExit(f"{library}: nm printed a line that is not understood: {line}")
        if match["name"] not in LINKER and not is_standard(match["name"]):
            names.add(match["name"])
    return names


def list_of(library: Path) -> Path:
    """Return the committed list for a library."""
    return LISTS / f"{library.name.split('.')[0].removeprefix('lib')}.txt"


def read_list(path: Path) -> set[str]:
    """Return the names of a committed list; none if there is no list."""
    if not path.is_file():
        return set()
    return {line for line in path.read_text(encoding="utf-8").splitlines() if line}


def in_order(names: set[str]) -> list[str]:
    """Sort: C first, then C++."""
    return sorted(names, key=lambda name: ("::" in name, name))


def differences(library: Path) -> Iterator[str]:
    """Yield what differs between a library and its list."""
    wanted, found = read_list(list_of(library)), exported(library)
    if not wanted:
        yield f"{library.name}: {list_of(library).name} is missing"
        return
    for name in in_order(found - wanted):
        yield f"{library.name} exports what its list does not have: {name}"
    for name in in_order(wanted - found):
        yield f"{library.name} lacks: {name}"
    for name in in_order(found):
        if OURS.fullmatch(name) is None:
            yield f"{library.name} exports a name that is not mmcore's: {name}"


def main() -> int:
    """Compare or update."""
    arguments = sys.argv[1:]
    update = "--update" in arguments
    libraries = [Path(argument) for argument in arguments if argument != "--update"]
    if not libraries:
        print(__doc__)
        return 2
    if update:
        LISTS.mkdir(exist_ok=True)
        for library in libraries:
            names = in_order(exported(library))
            list_of(library).write_text("\n".join(names) + "\n", encoding="utf-8")
            print(f"{list_of(library)}: {len(names)} symbols")
        return 0
    found = [line for library in libraries for line in differences(library)]
    for line in found:
        print(line)
    count = len(libraries)
    print(f"abi: {len(found)} difference(s)" if found else f"abi: {count} libraries as listed")
    if found:
        print("If they are meant: check_abi.py --update LIBRARY..., and a line in CHANGELOG.md.")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
