"""The prompts of one call on their way into an engine, in order.

Decoding and hashing a picture takes the host about a millisecond. Where a device works meanwhile,
only as many prompts as fill two steps are submitted at a time; the others are prepared while the
host would wait for the device. When a prompt is submitted depends on what the engine holds, never
on time, so that the same calls give the same steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mmcore.engine.llm_engine import LLMEngine
    from mmcore.sampling_params import SamplingParams

__all__ = ["PromptsAhead"]

# Prompts that are prepared and not submitted: each holds its pictures.
_MOST_AHEAD = 128


class Event(Protocol):
    """What a device reaches some time, such as a torch.cuda.Event."""

    def query(self) -> bool:
        """Tell whether it was reached."""
        ...


class PromptsAhead:
    """Submits the prompts of one call. Prepares them ahead inside a with statement.

    Parameters
    ----------
    engine
        That they go to.
    prompts, params
        One of each a request. An exception among the prompts stays what it is.
    at_once
        Submit all prompts before the first step. So it is, too, where it matters who waits: to a
        policy that chooses, to a limit, or because no device works while the host prepares.
    """

    def __init__(
        self,
        engine: LLMEngine,
        prompts: Sequence[Any],
        params: Sequence[SamplingParams],
        *,
        at_once: bool = False,
    ) -> None:
        scheduler = engine.get_scheduler_config()
        limited = scheduler.max_queued_requests or scheduler.max_queued_tokens
        self._engine = engine
        self._ahead = engine.model_runner.ahead
        self._at_once = at_once or bool(limited) or scheduler.policy != "fcfs"
        self._enough = 2 * scheduler.max_num_batched_tokens  # the next step, and the one behind it
        self._prompts = prompts
        self._params = params
        self._next = 0  # to be prepared
        self._ready: deque[Any] = deque()

    def __enter__(self) -> PromptsAhead:
        if self._ahead is not None:
            self._ahead.then = self
        return self

    def __exit__(self, *_: object) -> None:
        if self._ahead is not None:
            self._ahead.then = None

    def __len__(self) -> int:
        """Count the prompts that may be prepared now."""
        return min(len(self._prompts) - self._next, _MOST_AHEAD - len(self._ready))

    def work_until(self, done: Event) -> None:
        """Prepare prompts, one after the other, until the device is done."""
        while len(self) > 0 and not done.query():
            self._ready.append(self._prepare(self._next))
            self._next += 1

    def submit(self, add: Callable[[int, Any], None]) -> bool:
        """Submit what the next steps need; give whether prompts are left.

        Parameters
        ----------
        add
            Takes a prompt's place in the call, and the prompt, prepared or not, or its error.
        """
        while self._ready or self._next < len(self._prompts):
            if self._is_supplied():
                return True
            place = self._next - len(self._ready)
            if self._ready:
                add(place, self._ready.popleft())
            else:
                self._next += 1
                add(place, self._prompts[place])
        return False

    def _is_supplied(self) -> bool:
        if self._at_once or self._ahead is None:
            return False
        return self._engine.metrics()["waiting_tokens"] >= self._enough

    def _prepare(self, place: int) -> Any:
        prompt = self._prompts[place]
        if isinstance(prompt, Exception):
            return prompt
        try:
            return self._engine.preprocess(prompt, self._params[place])
        except Exception as error:  # told when its turn comes
            return error
