"""Write cpp/src/native/unicode_ranges.h: which characters are letters, numbers and spaces.

The pre-tokenizer of a byte-level BPE splits text by these classes. They are asked of Hugging Face
tokenizers, whose results the native tokenizer has to give, and not of Python, whose Unicode may be
of another version.

Usage: generate_unicode_ranges.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

TARGET = Path(__file__).parent.parent / "cpp" / "src" / "native" / "unicode_ranges.h"
CLASSES = {"kLetters": r"\p{L}", "kNumbers": r"\p{N}", "kSpaces": r"\s"}
CHARACTERS = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
CHUNK = 4096
HEAD = """\
// Written by scripts/generate_unicode_ranges.py from the character classes of Hugging Face
// tokenizers; do not edit.
// clang-format off
#pragma once

#include <cstdint>

namespace mmcore::native {

struct CodeRange {
  uint32_t first, last;
};
"""
TAIL = """
}  // namespace mmcore::native
"""


def members(pattern: str) -> set[int]:
    """Give the code points that a class holds."""
    remove = Split(Regex(pattern), behavior="removed")
    others: set[int] = set()
    for start in range(0, len(CHARACTERS), CHUNK):
        text = "".join(map(chr, CHARACTERS[start : start + CHUNK]))
        for piece, _ in remove.pre_tokenize_str(text):
            others.update(map(ord, piece))
    return set(CHARACTERS) - others


def ranges(codes: set[int]) -> list[tuple[int, int]]:
    """Join neighbours."""
    found: list[tuple[int, int]] = []
    for code in sorted(codes):
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def table(name: str, pattern: str) -> str:
    """Write one class as an array of C++."""
    cells = [f"{{0x{first:X}, 0x{last:X}}}" for first, last in ranges(members(pattern))]
    lines, line = [], " "
    for cell in cells:
        if len(line) + len(cell) + 2 > 99:
            lines.append(line)
            line = " "
        line += f" {cell},"
    body = "\n".join([*lines, line])
    return f"\ninline constexpr CodeRange {name}[] = {{\n{body}\n}};\n"


def main() -> int:
    """Write the file, or compare it."""
    text = HEAD + "".join(table(*item) for item in CLASSES.items()) + TAIL
    if sys.argv[1:] == ["--check"]:
        return int(TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
