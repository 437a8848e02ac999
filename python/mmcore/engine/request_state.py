"""A request in the engine: its prompt, its sequences, and the output they make together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mmcore.engine.sequence_state import SequenceState, to_logprobs
from mmcore.outputs import CompletionOutput, PromptLogprobs, RequestMetrics, RequestOutput
from mmcore.sampling_params import RequestOutputKind

if TYPE_CHECKING:
    from mmcore import _C
    from mmcore.engine.input_preprocessor import ProcessedPrompt
    from mmcore.engine.tokenizer import TokenizerAdapter
    from mmcore.errors import MmcoreError
    from mmcore.sampling_params import SamplingParams

__all__ = ["RequestState"]


class RequestState:
    """A request and its ``n`` sequences.

    Parameters
    ----------
    request_id
        The caller's name for it.
    prompt
        The prepared prompt.
    params
        What was asked for.
    seed
        Seed of the first sequence; the core derives the others'.
    adapter
        The tokenizer, or None.
    """

    __slots__ = (
        "_adapter",
        "_prompt_logprobs",
        "cache_salt",
        "core_id",
        "error",
        "metrics",
        "params",
        "priority",
        "prompt",
        "queue_timeout",
        "request_id",
        "seed",
        "sequences",
        "timeout",
    )

    def __init__(
        self,
        request_id: str,
        prompt: ProcessedPrompt,
        params: SamplingParams,
        *,
        seed: int,
        adapter: TokenizerAdapter | None,
        priority: int = 0,
        cache_salt: str = "",
        arrival_time: float | None = None,
        timeout: float | None = None,
        queue_timeout: float | None = None,
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.params = params
        self.seed = seed
        self.priority = priority
        self.cache_salt = cache_salt
        self.timeout = timeout
        self.queue_timeout = queue_timeout
        self.core_id: int | None = None
        self.error: MmcoreError | None = None
        now = time.time()
        arrived = now if arrival_time is None else arrival_time
        self.metrics = RequestMetrics(arrival_time=arrived, last_token_time=arrived)
        self.sequences = [
            SequenceState(i, params, prompt.token_ids, adapter) for i in range(params.n)
        ]
        self._adapter = adapter if params.detokenize else None
        self._prompt_logprobs: PromptLogprobs | None = (
            None if params.prompt_logprobs is None else [None]
        )

    @property
    def finished(self) -> bool:
        """Whether no sequence will grow any more."""
        return all(sequence.finished for sequence in self.sequences)

    def fail(self, error: MmcoreError) -> None:
        """End the request with an error; sequences that ended before keep their reasons."""
        error.request_id = self.request_id
        self.error = error
        for sequence in self.sequences:
            sequence.end_with("error")

    def note(self, output: _C.EngineOutput, sequence: SequenceState, now: float) -> None:
        """Keep what concerns the request as a whole."""
        if output.tokens:
            if self.metrics.first_token_time is None:
                self.metrics.first_token_time = now
            self.metrics.last_token_time = now
        if self._prompt_logprobs is not None and sequence.index == 0:
            for alternatives in output.prompt_logprobs:
                self._prompt_logprobs.append(to_logprobs(alternatives, self._adapter))
        if sequence.index == 0 and (output.finished or len(sequence.token_ids) <= 1):
            self.metrics.num_cached_tokens = output.num_cached_tokens
        if output.finished:
            self.metrics.num_preemptions += output.num_preemptions

    def scheduled_at(self, when: float) -> None:
        """Keep when the request first ran."""
        if self.metrics.first_scheduled_time is None:
            self.metrics.first_scheduled_time = when
            self.metrics.time_in_queue = when - self.metrics.arrival_time

    def output(self) -> RequestOutput | None:
        """Give the output to hand out now, by the request's output kind; None if there is none."""
        finished = self.finished
        kind = self.params.output_kind
        if kind is RequestOutputKind.FINAL_ONLY and not finished:
            return None
        if finished and self.metrics.finished_time is None:
            self.metrics.finished_time = time.time()
        if kind is RequestOutputKind.DELTA:
            completions = [sequence.delta() for sequence in self.sequences]
            if len(completions) > 1:
                completions = [c for c in completions if c.token_ids or c.finish_reason]
        else:
            completions = self._best()
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt.text,
            prompt_token_ids=self.prompt.token_ids,
            prompt_logprobs=self._prompt_logprobs,
            outputs=completions,
            finished=finished,
            metrics=self.metrics,
            error=self.error,
        )

    def _best(self) -> list[CompletionOutput]:
        wanted = self.params.real_n
        chosen = self.sequences
        if wanted < len(chosen):
            ranked = sorted(chosen, key=lambda s: -(s.cumulative_logprob or 0.0))
            chosen = ranked[:wanted]
        return [sequence.cumulative(place) for place, sequence in enumerate(chosen)]
