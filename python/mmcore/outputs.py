"""What a caller gets back for a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmcore.errors import MmcoreError

__all__ = ["CompletionOutput", "Logprob", "PromptLogprobs", "RequestMetrics", "RequestOutput"]


@dataclass(slots=True)
class Logprob:
    """The log probability of one token at one position.

    Parameters
    ----------
    logprob
        Natural logarithm of the probability under the raw logits.
    rank
        Place of the token in the vocabulary by probability, 1 for the most likely.
    decoded_token
        The token's text, when the output is detokenized.
    """

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


PromptLogprobs = list["dict[int, Logprob] | None"]
"""One entry a prompt token; the first is None because nothing precedes it."""


@dataclass(slots=True)
class RequestMetrics:
    """When things happened to a request, in seconds since the epoch, and how much was reused.

    Parameters
    ----------
    arrival_time
        When the engine took the request.
    last_token_time
        When the latest token was sampled.
    first_scheduled_time, first_token_time, finished_time
        None until it happened.
    time_in_queue
        Seconds between arrival and first scheduling.
    num_cached_tokens
        Prompt tokens whose keys and values came from the prefix cache.
    num_preemptions
        How often the request gave its blocks back and was recomputed.
    """

    arrival_time: float
    last_token_time: float
    first_scheduled_time: float | None = None
    first_token_time: float | None = None
    time_in_queue: float | None = None
    finished_time: float | None = None
    scheduler_time: float | None = None
    model_forward_time: float | None = None
    model_execute_time: float | None = None
    num_cached_tokens: int = 0
    num_preemptions: int = 0


@dataclass(slots=True)
class CompletionOutput:
    """One generated sequence of a request.

    Parameters
    ----------
    index
        Place among the request's ``n`` sequences.
    text, token_ids
        What was generated: all of it, or what is new, by ``SamplingParams.output_kind``.
    cumulative_logprob
        Sum of the sampled tokens' log probabilities, if they were asked for.
    logprobs
        One dictionary a generated token, if they were asked for.
    finish_reason
        ``"stop"``, ``"length"``, ``"abort"`` or ``"error"``; None while the sequence runs.
    stop_reason
        The stop string or stop token id that ended the sequence; None for the end-of-text token.
    """

    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: Any = None

    def finished(self) -> bool:
        """Tell whether the sequence ended."""
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestOutput:
    """The state of a request: its prompt and its generated sequences.

    Parameters
    ----------
    prompt_token_ids
        The ids the model saw: placeholders are expanded to one id an embedding row.
    error
        Why the request failed, or None. A failed request is finished; other requests go on.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    prompt_logprobs: PromptLogprobs | None
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = False
    metrics: RequestMetrics | None = None
    lora_request: Any = None
    encoder_prompt: str | None = None
    encoder_prompt_token_ids: list[int] | None = None
    error: MmcoreError | None = None
