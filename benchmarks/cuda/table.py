"""One line a case: ours, the best rival of the run, the floor, and whether the result is right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from benchmarks.cuda.graph_timing import time_calls

__all__ = ["Case", "Row", "run_cases", "write_json"]

ERROR_BF16 = 2.6e-3
"""Largest root-mean-square error, relative to the result's, that a bfloat16 kernel may show."""


@dataclass(frozen=True, slots=True)
class Case:
    """One shape of one kernel.

    Parameters
    ----------
    op, shape
        What the table calls it.
    make
        Builds the tensors; returns calls of ours by set of tensors, rivals' likewise by name, and a
        function that runs ours once and gives its relative error against float64.
    floor_us
        The least time that the device's limits allow: bytes or operations.
    tolerance
        For the relative error.
    """

    op: str
    shape: str
    make: Callable[
        [],
        tuple[
            Sequence[Callable[[], object]],
            dict[str, Sequence[Callable[[], object]]],
            Callable[[], float],
        ],
    ]
    floor_us: float
    tolerance: float = ERROR_BF16


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured."""

    op: str
    shape: str
    ours_us: float
    floor_us: float
    best: str
    best_us: float
    error: float
    right: bool
    rivals_us: dict[str, float] = field(default_factory=dict)


def run_cases(cases: Sequence[Case]) -> list[Row]:
    """Check and time each case and print the table as it grows."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; microseconds, medians")
    print(
        f"{'op':22} {'shape':34} {'ours':>9} {'best rival':>24} {'rival/ours':>10} "
        f"{'floor':>8} {'ours/floor':>10} {'error':>9}"
    )
    rows = []
    for case in cases:
        ours, rivals, check = case.make()
        error = check()
        right = error <= case.tolerance
        times = time_calls({"ours": ours, **rivals})
        mine = times.pop("ours")
        best = min(times, key=times.__getitem__) if times else "-"
        best_us = times.get(best, float("nan"))
        row = Row(case.op, case.shape, mine, case.floor_us, best, best_us, error, right, times)
        print(
            f"{row.op:22} {row.shape:34} {mine:9.2f} {best + f' {best_us:.2f}':>24} "
            f"{best_us / mine:10.2f} {case.floor_us:8.2f} {mine / case.floor_us:10.2f} "
            f"{error:9.1e}{'' if right else '  WRONG'}",
            flush=True,
        )
        rows.append(row)
        del ours, rivals, check
        torch.cuda.empty_cache()
    return rows


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows with the device they were measured on."""
    document = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "rows": [asdict(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
