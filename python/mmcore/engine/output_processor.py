"""From the core's outputs to RequestOutputs, and back: which sequences a stop string ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcore import _C
    from mmcore.engine.request_state import RequestState
    from mmcore.engine.sequence_state import SequenceState
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
        Core ids of sequences that a stop string ended; the core still runs them.
    failed
        Requests of which one sequence failed: the others must be given up.
    ready
        Requests whose first sequence has put the prompt into the cache.
    """

    outputs: list[RequestOutput] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    failed: list[RequestState] = field(default_factory=list)
    ready: list[RequestState] = field(default_factory=list)


class OutputProcessor:
    """Knows which core id belongs to which sequence of which request."""

    def __init__(self) -> None:
        self._by_core_id: dict[int, tuple[RequestState, SequenceState]] = {}

    def __len__(self) -> int:
        return len(self._by_core_id)

    def track(self, core_id: int, request: RequestState, sequence: SequenceState) -> None:
        """Remember a sequence that was submitted."""
        sequence.core_id = core_id
        self._by_core_id[core_id] = (request, sequence)

    def forget(self, sequence: SequenceState) -> bool:
        """Ignore whatever the core still says of a sequence; True if it still ran."""
        if sequence.core_id is None:
            return False
        return self._by_core_id.pop(sequence.core_id, None) is not None

    def note_scheduled(self, core_id: int, when: float) -> None:
        """Keep when a sequence first ran."""
        entry = self._by_core_id.get(core_id)
        if entry is not None:
            entry[0].scheduled_at(when)

    def process(self, core_outputs: Sequence[_C.EngineOutput]) -> Processed:
        """Apply outputs in their order and build what to hand out."""
        now = time.time()
        processed = Processed()
        touched: dict[int, RequestState] = {}
        for output in core_outputs:
            entry = self._by_core_id.get(output.id)
            if entry is None:
                continue
            request, sequence = entry
            touched[id(request)] = request
            if output.error is not None:
                request.error = request.error or output.error
            if sequence.apply(output):
                processed.stopped.append(output.id)
            request.note(output, sequence, now)
            if sequence.finished:
                self.forget(sequence)
        for request in touched.values():
            if request.error is not None:
                request.fail(request.error)
                processed.failed.append(request)
            elif request.unsubmitted and request.sequences[0].token_ids:
                processed.ready.append(request)
            made = request.output()
            if made is not None:
                processed.outputs.append(made)
        return processed
