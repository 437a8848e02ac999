"""Check and time the CUDA kernels.

``python -m benchmarks.cuda [--json FILE] [--only EXPRESSION] [FAMILY ...]``
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path

from benchmarks.cuda.table import Row, run_cases, write_json

FAMILIES = (
    "decode", "float8", "linear", "prefill", "projector", "rows", "sampling", "vision_attention",
)  # fmt: skip
"""Modules of this folder, each with a function ``cases()``."""


def main() -> int:
    """Run the families named, all without a name; 1 if a result was wrong."""
    parser = argparse.ArgumentParser(prog="benchmarks.cuda", description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--only", default="", help="a regular expression to find in a case's shape")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in arguments.families or FAMILIES:
        if name not in FAMILIES:
            parser.error(f"no family {name!r}; expected one of {', '.join(FAMILIES)}")
        cases = importlib.import_module(f"benchmarks.cuda.{name}").cases()
        rows += run_cases([case for case in cases if re.search(arguments.only, case.shape)])
    if arguments.json:
        write_json(arguments.json, rows)
    return 0 if all(row.right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
