"""Draws docs/scheduler_cost.png from the table that mmcore_bench_scheduler_step prints.

    build/release/benchmarks/cpp/mmcore_bench_scheduler_step | python benchmarks/scheduler_chart.py

Needs matplotlib (the extra `bench`). Prints the slope of a line through the steps without a queue.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CHART = Path(__file__).resolve().parent.parent / "docs" / "scheduler_cost.png"


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    running: int
    waiting: int
    step_us: float
    bytes_waiting: float


def read(lines: list[str]) -> list[Row]:
    """The rows of the table; other lines are passed over."""
    rows = []
    for line in lines:
        columns = line.replace("|", " ").split()
        if len(columns) in (7, 8) and columns[0].isdigit():
            running, waiting, _, _, step, *_ = columns
            held = columns[7] if len(columns) == 8 else "nan"  # old tables are without
            rows.append(Row(int(running), int(waiting), float(step), float(held)))
    if not rows:
        raise SystemExit("scheduler_chart.py: no row of mmcore_bench_scheduler_step on stdin")
    return rows


def by_running(axes: Any, rows: list[Row]) -> None:
    """Step time over what runs, a line for each length of the queue."""
    for waiting in sorted({row.waiting for row in rows}):
        some = [row for row in rows if row.waiting == waiting]
        label = f"{waiting:,} waiting"
        axes.plot([r.running for r in some], [r.step_us for r in some], "o-", ms=3, label=label)
    axes.set(xscale="log", yscale="log", xlabel="running sequences", ylabel="step, us")
    axes.set_title("plan + commit of a decode step")
    axes.legend(frameon=False)


def by_waiting(axes: Any, rows: list[Row]) -> None:
    """Step time over what waits, a line for each number that runs."""
    for running in (64, 256, 1024, 4096):
        some = [row for row in rows if row.running == running]
        label = f"{running:,} running"
        # The queue may be empty, which a logarithm does not show: 0 stands at 100.
        waiting = [max(row.waiting, 100) for row in some]
        axes.plot(waiting, [row.step_us for row in some], "o-", ms=3, label=label)
    axes.set(xscale="log", yscale="log", xlabel="waiting requests (left end: none)")
    axes.set_title("the same, by the length of the queue")
    axes.legend(frameon=False)


def main() -> None:
    """Read standard input, write the chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CHART)
    arguments = parser.parse_args()
    rows = read(sys.stdin.readlines())
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    by_running(left, rows)
    by_waiting(right, rows)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(arguments.out, dpi=110)
    alone = [row for row in rows if row.waiting == 0]
    x, y = np.array([(row.running, row.step_us) for row in alone]).T
    power = np.polyfit(np.log(x[1:]), np.log(y[1:]), 1)[0]
    held = max(row.bytes_waiting for row in rows if row.waiting == max(r.waiting for r in rows))
    print(f"{np.polyfit(x, y, 1)[0] * 1000:.0f} ns a running sequence, power {power:.2f}")
    print(f"{held:.0f} bytes a waiting request")
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
