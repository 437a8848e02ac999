"""Measuring fairly: results are checked first, rivals take turns in one process, medians are told.

Two functions that are compared run in alternating blocks, so that a busy neighbour or a changed
clock touches both. A sample repeats a short call until it lasts long enough to be timed.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

SAMPLE_SECONDS = 2e-3
MIN_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call: the median of the samples and the range of their middle 80%."""

    median: float
    low: float
    high: float
    samples: int


def summarize(samples: Sequence[float]) -> Timing:
    """Reduce samples to what is reported."""
    ordered = sorted(samples)
    edge = len(ordered) // 10
    return Timing(
        statistics.median(ordered), ordered[edge], ordered[len(ordered) - 1 - edge], len(ordered)
    )


def repeats_for(call: Callable[[], object]) -> int:
    """Warm a call up and say how often a sample has to repeat it."""
    call()
    repeats = 1
    while True:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        elapsed = time.perf_counter() - start
        if elapsed >= SAMPLE_SECONDS:
            return repeats
        repeats = max(repeats + 1, int(repeats * min(SAMPLE_SECONDS / max(elapsed, 1e-7), 10)))


def compare(calls: Sequence[Callable[[], object]], seconds: float = 0.5) -> list[Timing]:
    """Time calls in turns.

    Parameters
    ----------
    calls
        Functions without arguments; what they return is dropped.
    seconds
        About how long to measure all of them together; a slow call still gets its rounds.
    """
    repeats = [repeats_for(call) for call in calls]
    samples: list[list[float]] = [[] for _ in calls]
    gc.collect()
    gc.disable()
    try:
        deadline = time.perf_counter() + seconds
        while len(samples[0]) < MIN_ROUNDS or time.perf_counter() < deadline:
            for call, count, kept in zip(calls, repeats, samples, strict=True):
                call()  # the rival left the caches and its threads behind
                start = time.perf_counter()
                for _ in range(count):
                    call()
                kept.append((time.perf_counter() - start) / count)
    finally:
        gc.enable()
    return [summarize(kept) for kept in samples]


def cpu_name() -> str:
    """Name the processor as the kernel does."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine_facts(threads: int) -> dict[str, Any]:
    """Say what a figure was measured on; printed with every table and stored with every result."""
    import mmcore
    from mmcore._C import ops

    isa = {value: name for name, value in ops.CPU_ISAS.items()}[ops.cpu_isa()]
    return {
        "device": cpu_name(),
        "threads": threads,
        "isa": isa,
        "mmcore": mmcore.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def warn_if_busy(facts: dict[str, Any]) -> None:
    """Say when other programs compete for the cores: barriers then wait for whole time slices."""
    if facts["load"] > 0.5:
        print(
            f"warning: the load average is {facts['load']}. Other programs run on this machine; "
            "these figures compare nothing.",
            file=sys.stderr,
        )


def use_threads(threads: int | None) -> int:
    """Give both sides the same number of threads and return it."""
    from mmcore._C import ops

    if threads is not None:
        ops.set_num_threads(threads)
    torch.set_num_threads(ops.num_threads())
    return int(ops.num_threads())


def write_results(path: Path, facts: dict[str, Any], rows: Sequence[Any]) -> None:
    """Store facts and rows (dataclasses) as one JSON document."""
    document = {"machine": facts, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, so that a result can be pasted into a document."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    for line in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |")
