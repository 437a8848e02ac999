"""Where the time of a first token and of a decode step goes, on the host and on the device.

The engine's functions are wrapped while a :class:`Timeline` is open. Each call notes the host's
clock and, on a GPU, records an event before and behind what it launches, so that one table shows
when the host launched a part and when the device ran it. Parts that an engine lacks are left out.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.harness import print_table

__all__ = ["Part", "Timeline", "busiest_kernels", "print_parts"]

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of what was measured: medians, in milliseconds from the start of the whole."""

    path: Path
    calls: float
    host_at: float
    host_ms: float
    device_at: float | None
    device_ms: float | None

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        return {**asdict(self), "path": "/".join(self.path)}


@dataclass(slots=True)
class _Call:
    path: Path
    begin: float
    begin_event: Any
    end: float = 0.0
    end_event: Any = None


class Timeline:
    """Notes calls of an engine's parts, from :meth:`open` to :meth:`close`.

    Parameters
    ----------
    engine
        An LLMEngine.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._on_gpu = engine.model_runner.device.type == "cuda"
        self._calls: list[_Call] = []
        self._path: Path = ()
        self._undo: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[Timeline]:
        """Wrap the engine's parts for the time of a with statement."""
        for owner, attribute, name in _targets(self._engine):
            if owner is not None and callable(getattr(owner, attribute, None)):
                self._wrap(owner, attribute, name)
        try:
            yield self
        finally:
            while self._undo:
                self._undo.pop()()

    def _wrap(self, owner: Any, attribute: str, name: str) -> None:
        original = getattr(owner, attribute)

        def noted(*args: Any, **kwargs: Any) -> Any:
            with self.note(name):
                return original(*args, **kwargs)

        own = attribute in vars(owner)
        try:
            setattr(owner, attribute, noted)
        except AttributeError:  # an object with slots
            return
        self._undo.append(
            (lambda: setattr(owner, attribute, original))
            if own
            else (lambda: delattr(owner, attribute))
        )

    @contextlib.contextmanager
    def note(self, name: str) -> Iterator[None]:
        """Note what a with statement does as one call."""
        before = self._path
        self._path = (*before, name)
        call = _Call(self._path, time.perf_counter(), self._event())
        self._calls.append(call)
        try:
            yield
        finally:
            call.end_event = self._event()
            call.end = time.perf_counter()
            self._path = before

    def _event(self) -> Any:
        if not self._on_gpu or torch.cuda.is_current_stream_capturing():
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def whole(self, name: str, work: Callable[[], object], rounds: int) -> list[Part]:
        """Measure some work several times, each as one whole."""
        measured = []
        for _ in range(rounds):
            self._calls = []
            self._synchronize()
            with self.note(name):
                work()
            self._synchronize()
            measured.append(_parts(self._calls))
        return _medians(measured)

    def steps(self, work: Callable[[], object], last: int) -> list[Part]:
        """Measure the last steps that some work takes, each as one whole."""
        self._calls = []
        work()
        self._synchronize()
        wholes: list[list[_Call]] = []
        for call in self._calls:
            if call.path == ("step",):
                wholes.append([])
            if wholes and call.path[0] == "step":
                wholes[-1].append(call)
        # The very last step also hands the whole outputs out.
        return _medians([_parts(calls) for calls in wholes[-last - 1 : -1]])

    def _synchronize(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()


def _targets(engine: Any) -> list[tuple[Any, str, str]]:
    """List object, attribute and name of every part, outer ones first."""
    from mmcore.multimodal import decode

    runner = engine.model_runner
    model = runner.model
    inputs, mapper, encoder = runner.inputs, runner.mapper, runner.encoder
    preprocessor = engine._preprocessor
    return [
        (engine, "add_request", "add request"),
        (engine, "preprocess", "preprocess"),
        (decode, "normalize_image", "upright RGB"),
        (preprocessor, "_run_input_processor", "expand placeholders"),
        (preprocessor, "_id", "content id"),
        (engine, "_submit", "submit"),
        (engine, "step", "step"),
        (runner, "execute", "runner"),
        (runner, "begin", "runner, begin"),
        (runner, "end", "runner, end"),
        (mapper, "map", "input mapper"),
        (encoder, "_run", "encoder"),
        (getattr(model, "vision_tower", None), "hidden_states", "tower"),
        (getattr(model, "multi_modal_projector", None), "forward", "projector"),
        (inputs, "read", "arrays to the device"),
        (inputs, "read_decode", "arrays to the device"),
        (runner, "_merge", "merge embeddings"),
        (runner.graphs, "run", "decoder, graph"),
        (model, "forward", "decoder"),
        (model, "compute_logits", "logits"),
        (runner, "_prepare_media", "media of other requests"),
        (model, "sample", "sampling, wait"),
    ]


def _parts(calls: Sequence[_Call]) -> dict[Path, Part]:
    """Join the calls of each part; the first call is the whole."""
    whole = calls[0]
    parts: dict[Path, Part] = {}
    for call in calls:
        known = parts.get(call.path)
        device_at = device_ms = None
        if None not in (call.begin_event, call.end_event, whole.begin_event):
            device_at = whole.begin_event.elapsed_time(call.begin_event)
            device_ms = call.begin_event.elapsed_time(call.end_event)
        host_ms = (call.end - call.begin) * 1e3
        if known is None:
            at = (call.begin - whole.begin) * 1e3
            parts[call.path] = Part(call.path, 1, at, host_ms, device_at, device_ms)
        else:
            parts[call.path] = Part(
                call.path,
                known.calls + 1,
                known.host_at,
                known.host_ms + host_ms,
                known.device_at,
                _sum(known.device_ms, device_ms),
            )
    return parts


def _medians(measured: Sequence[dict[Path, Part]]) -> list[Part]:
    """Take medians over the wholes in which a part occurs."""
    paths = dict.fromkeys(path for parts in measured for path in parts)
    rows = []
    for path in paths:
        found = [parts[path] for parts in measured if path in parts]
        rows.append(
            Part(
                path,
                statistics.median(part.calls for part in found),
                statistics.median(part.host_at for part in found),
                statistics.median(part.host_ms for part in found),
                _median([part.device_at for part in found]),
                _median([part.device_ms for part in found]),
            )
        )
    return rows


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def print_parts(title: str, parts: Sequence[Part]) -> None:
    """Print a table in which the parts of a part are indented below it.

    "Elsewhere" is the host's time in a part outside of all of its parts.
    """
    print(f"\n{title}: medians, ms from the start")
    inner: dict[Path, float] = {}
    for part in parts:
        inner[part.path[:-1]] = inner.get(part.path[:-1], 0.0) + part.host_ms
    rows = []
    for part in parts:
        elsewhere = f"{part.host_ms - inner[part.path]:.2f}" if part.path in inner else ""
        device = ["", ""]
        if part.device_at is not None and part.device_ms is not None:
            device = [f"{part.device_at:.2f}", f"{part.device_ms:.2f}"]
        name = "  " * (len(part.path) - 1) + part.path[-1]
        rows.append([
            name, f"{part.calls:g}", f"{part.host_at:.2f}", f"{part.host_ms:.2f}", elsewhere,
            *device,
        ])  # fmt: skip
    header = ["part", "calls", "host at", "host", "elsewhere", "device at", "device"]
    print_table(header, rows)


def busiest_kernels(title: str, work: Callable[[], object], most: int = 14) -> list[dict[str, Any]]:
    """Print which kernels the device spends some work's time in; nothing without a profiler."""
    from torch.profiler import ProfilerActivity, profile

    try:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            work()
            torch.cuda.synchronize()
        spans = [
            (event.time_range.start, event.time_range.end, event.name)
            for event in (profiler.events() or ())
            if event.device_type == torch.autograd.DeviceType.CUDA
            and not getattr(event, "is_user_annotation", False)
        ]
    except Exception as error:  # a profiler that does not work here must not cost the other figures
        print(f"\n{title}: torch.profiler fails ({type(error).__name__}: {error})")
        return []
    if not spans:
        print(f"\n{title}: torch.profiler saw no kernels")
        return []
    busy, reached = 0.0, 0.0
    for start, end, _ in sorted(spans):
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    by_name: dict[str, list[float]] = {}
    for start, end, name in spans:
        by_name.setdefault(name, []).append(end - start)
    ordered = sorted(by_name.items(), key=lambda item: -sum(item[1]))
    length = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    print(
        f"\n{title}: the device is busy {busy / 1e3:.2f} ms of {length / 1e3:.2f} from the first "
        f"of {len(spans)} kernels and copies to the last"
    )
    rows = [
        {"kernel": name, "calls": len(times), "ms": sum(times) / 1e3}
        for name, times in ordered[:most]
    ]
    print_table(
        ["kernel or copy", "calls", "ms"],
        [[str(row["kernel"])[:90], str(row["calls"]), f"{row['ms']:.3f}"] for row in rows],
    )
    return rows
