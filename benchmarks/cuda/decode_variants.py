"""Variants of decode over 8 bits, side by side: for a measurement, not to stay."""

from __future__ import annotations

import os
import statistics
import sys

import torch

from benchmarks.cuda.float8 import DECODES, LLAMA3, Batch
from benchmarks.cuda.graph_timing import buffer_sets, capture
from mmcore.ops import AttentionPlanShape

REPLAYS = 11


def set_env(name: str, value: str) -> None:
    """Set or unset a variable."""
    if value:
        os.environ[name] = value
    else:
        os.environ.pop(name, None)


def main() -> None:
    """Time all variants of all shapes."""
    variants = sys.argv[1].split(",")
    orders = sys.argv[2].split(",")
    for label, heads, n, keys in (*DECODES, ("llama3 64x777", LLAMA3, 64, 777)):
        in_cache = 2 * n * keys * heads[1] * heads[2]
        sets = [Batch(heads, (n, 1, keys - 1), seed) for seed in range(buffer_sets(in_cache))]
        small = 2 * n * heads[1] <= 128
        line = []
        base = None
        for order in orders:
            set_env("MMCORE_DECODE_ORDER", order.strip("0"))
            for b in sets:
                shape = AttentionPlanShape.of(b.q, b.float8[0], b.seq_lens, max_query_len=1)
                b.plan = shape.plan(b.starts.cpu(), b.seq_lens.cpu(), settled=True).cuda()
            for variant in variants:
                set_env(
                    "MMCORE_DECODE_VARIANT", "1" + variant if small and variant != "0" else variant
                )
                sets[0].out.zero_()
                got = sets[0].over8().float().clone()
                if base is None:
                    base = got
                    print(f"{label}: error {sets[0].error():.2e}", flush=True)
                off = float((got - base).norm() / base.norm())
                calls = [b.over8 for b in sets]
                count = max(64, len(calls))
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
                flag = "" if off < 2e-3 else f" WRONG {off:.1e}"
                line.append(f"{order}/{variant} {statistics.median(times):.2f}{flag}")
        print("   ", "  ".join(line), flush=True)


if __name__ == "__main__":
    main()
