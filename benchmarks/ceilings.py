"""What this machine can do at best, measured beside the ops: the floor of an op's time.

A floor is the longer of two times: moving the op's bytes at the speed of a plain copy whose buffers
take as much memory, and doing its arithmetic at the speed of the best matrix product seen.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from benchmarks.harness import compare


@lru_cache(maxsize=64)
def copy_bandwidth(size: int) -> float:
    """Measure bytes read and written a second by a copy over buffers of `size` bytes in all."""
    half = max(size // 2, 4096)
    source = torch.ones(half, dtype=torch.uint8)
    target = torch.empty_like(source)
    [timing] = compare([lambda: target.copy_(source)], seconds=0.05)
    return 2 * half / timing.low


@lru_cache(maxsize=8)
def matmul_peak(dtype: torch.dtype) -> float:
    """Measure the floating-point operations a second of the fastest of a few matrix products."""
    best = 0.0
    for side in (1024, 2048):
        a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
        out = torch.empty_like(a)
        [timing] = compare([lambda a=a, b=b, out=out: torch.mm(a, b, out=out)], seconds=0.2)
        best = max(best, 2 * side**3 / timing.low)
    return best


def floor_seconds(moved_bytes: int, flops: int, dtype: torch.dtype) -> float:
    """Return the least time that the machine could need."""
    # Neighbouring sizes share one measurement: a quarter of an octave.
    step = 1 << max(moved_bytes.bit_length() - 3, 12)
    size = max(moved_bytes // step, 1) * step
    transfer = moved_bytes / copy_bandwidth(size)
    return max(transfer, flops / matmul_peak(dtype) if flops else 0.0)
