"""Make a program of the C++ in docs/embedding.md, to be compiled: documented.py > FILE.cpp"""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "embedding.md"


def main() -> int:
    """Print includes and classes as they are, and statements inside a function."""
    blocks = re.findall(r"```cpp\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    includes, classes, statements = (
        ["#include <iostream>", "#include <mmcore/queue_policy.h>"],
        [],
        [],
    )
    for block in blocks:
        classes += re.findall(r"^class .*?^};$", block, re.DOTALL | re.MULTILINE)
        for line in re.sub(
            r"^class .*?^};$", "", block, flags=re.DOTALL | re.MULTILINE
        ).splitlines():
            (includes if line.startswith("#include") else statements).append(line)
    arguments = "const std::string& folder, const uint8_t* rgb, int32_t width, int32_t height"
    print("\n".join([*includes, *classes, f"void documented({arguments}) {{"]))
    print("\n".join(["mmcore::EngineConfig config;", *statements, "}"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
