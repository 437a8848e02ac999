"""Each CPU op against what a torch program would write for it, in the same run.

    python -m benchmarks.ops_vs_torch [--only NAME] [--dtype float32] [--threads N] [--json FILE]

A result is checked before it is timed. The floor is what this machine needs at least (see
ceilings.py): no implementation can be faster than that where its data do not fit a cache.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.ceilings import floor_seconds
from benchmarks.harness import (
    compare,
    machine_facts,
    print_table,
    use_threads,
    warn_if_busy,
    write_results,
)
from benchmarks.op_cases import Case, all_cases
from benchmarks.op_cases.case import check


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result, times in microseconds."""

    op: str
    shape: str
    dtype: str
    mmcore_us: float
    mmcore_low_us: float
    mmcore_high_us: float
    torch_us: float
    speedup: float
    rate: float
    rate_unit: str
    floor_us: float


def measure(case: Case, seconds: float) -> Row:
    """Check and time one case."""
    check(case)
    ours, theirs = compare([case.ours, case.theirs], seconds)
    # An op that computes much for each byte is told by its arithmetic, the others by their bytes.
    by_flops = case.flops > 8 * case.moved_bytes
    amount = case.flops if by_flops else case.moved_bytes
    return Row(
        op=case.op,
        shape=case.shape,
        dtype=str(case.dtype).removeprefix("torch."),
        mmcore_us=ours.median * 1e6,
        mmcore_low_us=ours.low * 1e6,
        mmcore_high_us=ours.high * 1e6,
        torch_us=theirs.median * 1e6,
        speedup=theirs.median / ours.median,
        rate=amount / ours.median / 1e9,
        rate_unit="GFLOP/s" if by_flops else "GB/s",
        floor_us=floor_seconds(case.moved_bytes, case.flops, case.dtype) * 1e6,
    )


def cells(row: Row) -> list[str]:
    """Write a row for the table."""
    return [
        row.op, row.shape, row.dtype, f"{row.mmcore_us:.1f}", f"{row.torch_us:.1f}",
        f"{row.speedup:.2f}x", f"{row.rate:.1f} {row.rate_unit}", f"{row.floor_us:.1f}",
    ]  # fmt: skip


HEADER = ["op", "shape", "dtype", "mmcore us", "torch us", "torch / mmcore", "rate", "floor us"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="ops whose name holds this")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], action="append")
    parser.add_argument("--threads", type=int, help="for both sides; default: mmcore's own choice")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each case")
    parser.add_argument("--json", type=Path, help="store the rows here")
    options = parser.parse_args()

    torch.manual_seed(0)
    facts = machine_facts(use_threads(options.threads))
    warn_if_busy(facts)
    print(", ".join(f"{name} {value}" for name, value in facts.items()), "\n")
    rows = []
    for name in options.dtype or ["float32", "bfloat16"]:
        with torch.inference_mode():
            for case in all_cases(getattr(torch, name)):
                if options.only in case.op:
                    rows.append(measure(case, options.seconds))
                    print(f"  {' | '.join(cells(rows[-1]))}", flush=True)
    print()
    print_table(HEADER, [cells(row) for row in rows])
    if options.json is not None:
        write_results(options.json, facts, rows)


if __name__ == "__main__":
    main()
