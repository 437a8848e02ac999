"""From the core's outputs to RequestOutputs, and back: which sequences a stop string ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcore import _C
    from mmcore.engine.request_state import RequestState
    from mmcore.outputs import RequestOutput

__all__ = ["OutputProcessor", "Processed"]


@dataclass(slots=True)
class Processed:
    """What a batch of core outputs led to.

    Parameters
    ----------
    outputs
        To hand out, in the order in which requests were touched.
    stopped
        Core id and index of sequences that a stop string ended; the core still runs them.
    failed
        Requests of which one sequence failed: the others must be given up.
    """

    outputs: list[RequestOutput] = field(default_factory=list)
    stopped: list[tuple[int, int]] = field(default_factory=list)
    failed: list[RequestState] = field(default_factory=list)


class OutputProcessor:
    """Knows which core id belongs to which request."""

    def __init__(self) -> None:
        self._by_core_id: dict[int, RequestState] = {}

    def __len__(self) -> int:
        return len(self._by_core_id)

    def track(self, core_id: int, request: RequestState) -> None:
        """Remember a request that was submitted."""
        request.core_id = core_id
        self._by_core_id[core_id] = request

    def forget(self, request: RequestState) -> int | None:
        """Ignore whatever the core still says of a request; its core id if it still ran."""
        if request.core_id is None or self._by_core_id.pop(request.core_id, None) is None:
            return None
        return request.core_id

    def note_scheduled(self, core_id: int, when: float) -> None:
        """Keep when a request first ran."""
        request = self._by_core_id.get(core_id)
        if request is not None:
            request.scheduled_at(when)

    def process(self, core_outputs: Sequence[_C.EngineOutput]) -> Processed:
        """Apply outputs in their order and build what to hand out."""
        now = time.time()
        processed = Processed()
        touched: dict[int, RequestState] = {}
        for output in core_outputs:
            request = self._by_core_id.get(output.id)
            if request is None:
                continue
            sequence = request.sequences[output.sequence]
            if sequence.finished:  # by a stop string; this is the core's last word on it
                continue
            touched[output.id] = request
            if output.error is not None:
                request.error = request.error or output.error
            if sequence.apply(output):
                processed.stopped.append((output.id, output.sequence))
            request.note(output, sequence, now)
        for request in touched.values():
            if request.error is not None:
                request.fail(request.error)
                processed.failed.append(request)
            made = request.output()
            if made is not None:
                processed.outputs.append(made)
            if request.finished:
                self.forget(request)
        return processed
