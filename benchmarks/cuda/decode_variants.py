"""Variants of decode over 8 bits, side by side: for a measurement, not to stay."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Sequence

import torch

from benchmarks.cuda.float8 import DECODES, LLAMA3, SMOLVLM, Batch
from benchmarks.cuda.graph_timing import buffer_sets, capture

REPLAYS = 9
MORE = (
    ("llama3 1x1024", LLAMA3, 1, 1024),
    ("llama3 16x1024", LLAMA3, 16, 1024),
    ("llama3 64x777", LLAMA3, 64, 777),
    ("smolvlm 8x1024", SMOLVLM, 8, 1024),
    ("smolvlm 32x512", SMOLVLM, 32, 512),
)


def measure(calls: Sequence[Callable[[], object]], count: int) -> float:
    """Microseconds of a call."""
    graph = capture(calls, count)
    graph.replay()
    times = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / count)
    return statistics.median(times)


def main() -> None:
    """Time all variants of all shapes."""
    variants = sys.argv[1].split(",")
    for label, heads, n, keys in (*DECODES, *MORE):
        in_cache = 2 * n * keys * heads[1] * heads[2]
        sets = [Batch(heads, (n, 1, keys - 1), seed) for seed in range(buffer_sets(in_cache))]
        line = []
        base = None
        count = max(64, len(sets))
        for variant in variants:
            os.environ["MMCORE_DECODE_VARIANT"] = variant
            sets[0].out.zero_()
            got = sets[0].over8().float().clone()
            if base is None:
                base = got
                print(f"{label}: error {sets[0].error():.2e}", flush=True)
            off = float((got - base).norm() / base.norm())
            row = measure([b.over8 for b in sets], count)
            flag = "" if off < 2e-3 else f" WRONG {off:.1e}"
            line.append(f"{variant}: {row:.2f}{flag}")
            if n <= 16 and int(variant) <= 2:

                def behind(b: Batch) -> None:
                    b.q.mul_(1.0)
                    b.over8()

                calls = [lambda b=b: behind(b) for b in sets]
                line.append(f"(behind {measure(calls, count):.2f})")
        print("   ", "  ".join(line), flush=True)


if __name__ == "__main__":
    main()
