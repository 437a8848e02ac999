"""Timing kernels on a GPU: many calls in one CUDA graph, over more memory than the L2 cache holds.

One graph holds `CALLS` calls that go round over several sets of tensors, so that every call finds
its inputs in device memory as it would in a model. The graph is replayed; the median replay,
divided by the calls, is a call's time with the gap to the next kernel and without the host's part.
Rivals are timed in turns in the same process.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch

__all__ = ["COLD_BYTES", "buffer_sets", "time_calls"]

CALLS = 64
REPLAYS = 11
COLD_BYTES = 160 << 20
"""Bytes that the sets of tensors of one benchmark hold together: three times an H100's L2 cache."""


def buffer_sets(bytes_per_set: int, most: int = CALLS) -> int:
    """Say how many sets of tensors a benchmark needs for its inputs to be cold."""
    return max(1, min(most, -(-COLD_BYTES // max(1, bytes_per_set))))


def capture(calls: Sequence[Callable[[], object]], count: int) -> torch.cuda.CUDAGraph:
    """Record `count` calls, going round over `calls`, after warming each of them up."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:3]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(count):
            calls[i % len(calls)]()
    return graph


def time_calls(rivals: dict[str, Sequence[Callable[[], object]]]) -> dict[str, float]:
    """Time rivals in turns.

    Parameters
    ----------
    rivals
        Name to calls without arguments, one for each set of tensors.

    Returns
    -------
    dict
        Name to microseconds of one call.
    """
    count = {name: max(CALLS, len(calls)) for name, calls in rivals.items()}
    graphs = {name: capture(calls, count[name]) for name, calls in rivals.items()}
    samples: dict[str, list[float]] = {name: [] for name in rivals}
    for graph in graphs.values():
        graph.replay()
    for _ in range(REPLAYS):
        for name, graph in graphs.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            samples[name].append(begin.elapsed_time(end) * 1e3 / count[name])
    return {name: statistics.median(times) for name, times in samples.items()}
