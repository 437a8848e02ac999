"""Recording what a function launches on a GPU as a CUDA graph."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

__all__ = ["GRAPH_BYTES", "GraphCapture", "capture_stream", "without_collections"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

GRAPH_BYTES = 8 << 20
"""What a graph itself may take on the device, for the memory plan."""


class GraphCapture:
    """Captures functions into graphs that share memory: they must not run side by side.

    Parameters
    ----------
    device
        A GPU.
    stream
        Where to capture. Graphs of one stream share cuBLAS's workspace, too, and must not run side
        by side either.
    """

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        self._device = device
        self._stream = capture_stream(device) if stream is None else stream
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
            If `work` cannot be captured. Stream, allocator and generator are then as they were.
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

    def capture_all(
        self, what: str, sizes: Sequence[int], capture_one: Callable[[int], object], seconds: float
    ) -> None:
        """Capture a graph for each of a few sizes, as far as time allows.

        The largest first, so that the others fit into their memory; what is missing then is
        captured when it is first needed.

        Parameters
        ----------
        what
            What is captured, for the log.
        sizes
            Ascending.
        capture_one
            Captures a size; None if nothing of the kind can be captured.
        """
        started = time.monotonic()
        before = torch.cuda.mem_get_info(self._device)[0]
        captured = 0
        with without_collections():
            for size in reversed(sizes):
                if time.monotonic() - started > seconds or capture_one(size) is None:
                    break
                captured += 1
        torch.cuda.empty_cache()  # of the calls before each capture, on a stream of their own
        logger.info(
            "captured %d of %d CUDA graphs of the %s in %.2f s, %.0f MiB",
            captured,
            len(sizes),
            what,
            time.monotonic() - started,
            (before - torch.cuda.mem_get_info(self._device)[0]) / 2**20,
        )

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
        """Leave stream, allocator and generator as they were before a capture that failed."""
        with contextlib.suppress(RuntimeError):
            graph.capture_end()
            return
        # capture_end() raised before it did this.
        with contextlib.suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(self._stream.device_index, self._pool)
        # The generator's state still takes itself for captured, and refuses to give numbers; a
        # copy of it has the same seed and place and does not.
        with contextlib.suppress(RuntimeError):
            generator = torch.cuda.default_generators[self._stream.device_index]
            generator.graphsafe_set_state(generator.clone_state())


@functools.cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Give the stream of a device's captures: cuBLAS keeps a workspace for each stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Keep the garbage collector from freeing device memory while a graph is being captured."""
    gc.collect(1)  # what is young; all of it would take longer than several captures
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
