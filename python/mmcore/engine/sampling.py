"""From a request's SamplingParams to the core's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from mmcore import _C
from mmcore.errors import ValidationError

if TYPE_CHECKING:
    from mmcore.sampling_params import SamplingParams

__all__ = ["SeedSource", "check_supported", "to_core_params"]

_UNLIMITED = 2**31 - 1


class SeedSource:
    """Draws a seed for each request that brings none: the same for the same order of requests."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def draw(self) -> int:
        """Give the next seed."""
        return self._random.getrandbits(64)


def check_supported(params: SamplingParams) -> None:
    """Refuse what this version cannot do.

    Raises
    ------
    ValidationError
        For guided decoding.
    """
    if params.guided_decoding is not None:
        raise ValidationError(
            "guided_decoding is not supported by this version; leave it out.", code="unsupported"
        )


def to_core_params(params: SamplingParams, seed: int, *, needs_logprob: bool) -> _C.SamplingParams:
    """Translate parameters; the core checks them against the model when it gets the request.

    Parameters
    ----------
    params
        What the request asked for.
    seed
        The seed of the first sequence.
    needs_logprob
        Ask for the sampled tokens' log probabilities even if the request does not.
    """
    core = _C.SamplingParams()
    core.temperature = params.temperature
    core.top_p = params.top_p
    core.top_k = params.top_k
    core.min_p = params.min_p
    core.presence_penalty = params.presence_penalty
    core.frequency_penalty = params.frequency_penalty
    core.repetition_penalty = params.repetition_penalty
    core.seed = seed
    core.max_tokens = _UNLIMITED if params.max_tokens is None else params.max_tokens
    core.min_tokens = params.min_tokens
    if params.logprobs is not None:
        core.num_logprobs = params.logprobs
    elif needs_logprob:
        core.num_logprobs = 0
    if params.prompt_logprobs is not None:
        core.num_prompt_logprobs = params.prompt_logprobs
    core.ignore_eos = params.ignore_eos
    core.reads_history = bool(params.logits_processors)
    if params.stop_token_ids:
        core.stop_token_ids = params.stop_token_ids
    if params.logit_bias:
        core.logit_bias = list(params.logit_bias.items())
    if params.allowed_token_ids:
        core.allowed_token_ids = params.allowed_token_ids
    return core
