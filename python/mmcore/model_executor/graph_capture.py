"""Recording what a function launches on a GPU as a CUDA graph."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

__all__ = ["GRAPH_BYTES", "GraphCapture", "without_collections"]

T = TypeVar("T")

GRAPH_BYTES = 8 << 20
"""What a graph itself may take on the device, for the memory plan."""


class GraphCapture:
    """Captures functions into graphs that share memory: they must not run side by side.

    Parameters
    ----------
    device
        A GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = _capture_stream(device)
        self._pool: Any = torch.cuda.graph_pool_handle()

    def capture(
        self, work: Callable[[], T], prepare: Callable[[], object] = lambda: None
    ) -> tuple[torch.cuda.CUDAGraph, T]:
        """Capture one function, which is called twice; inside :func:`without_collections`.

        Parameters
        ----------
        work
            Launches kernels and waits for none. What it returns lies where every replay of the
            graph will write it.
        prepare
            Fills what `work` reads before its first call, which is not captured: libraries set
            themselves up when they are first called.

        Raises
        ------
        Exception
            If `work` cannot be captured. Stream and allocator are then as they were.
        """
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        try:
            with torch.cuda.device(stream.device), torch.cuda.stream(stream):
                prepare()
                work()
                stream.synchronize()
                return self._record(work)
        finally:
            torch.cuda.current_stream(stream.device).wait_stream(stream)

    def _record(self, work: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            result = work()
        except BaseException:
            self._give_up(graph)
            raise
        graph.capture_end()
        return graph, result

    def _give_up(self, graph: torch.cuda.CUDAGraph) -> None:
        """Leave stream and allocator as they were before a capture that failed."""
        with contextlib.suppress(RuntimeError):
            graph.capture_end()
        # capture_end() raises before it does this.
        with contextlib.suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(self._stream.device_index, self._pool)


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Give the stream that all captures on a device use: cuBLAS keeps a workspace for each."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Keep the garbage collector from freeing device memory while a graph is being captured."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
