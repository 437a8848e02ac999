"""Sampling of tokens without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from mmcore import _C
from mmcore.errors import ValidationError
from mmcore.ops._dispatch import is_traced, returned

__all__ = [
    "SampleOutput",
    "TokenLogprob",
    "logprobs",
    "sample",
    "sample_tensors",
    "sample_tokens",
    "uniform",
]

T = TypeVar("T", int, float)


class TokenLogprob(NamedTuple):
    """A token, its natural log probability under the raw logits, and its rank, 1 the likeliest."""

    token: int
    logprob: float
    rank: int


@dataclass(frozen=True, slots=True)
class SampleOutput:
    """What :func:`sample` picked.

    Parameters
    ----------
    tokens
        int64 [S], on the CPU.
    logprobs
        For each row that asked: the picked token's entry, then the likeliest ones.
    """

    tokens: Tensor
    logprobs: list[list[TokenLogprob]]


def sample(
    logits: Tensor,
    *,
    temperature: float | Sequence[float] = 1.0,
    top_p: float | Sequence[float] = 1.0,
    top_k: int | Sequence[int] = -1,
    min_p: float | Sequence[float] = 0.0,
    presence_penalty: float | Sequence[float] = 0.0,
    frequency_penalty: float | Sequence[float] = 0.0,
    repetition_penalty: float | Sequence[float] = 1.0,
    seed: int | Sequence[int] = 0,
    counter: int | Sequence[int] = 0,
    num_logprobs: int | Sequence[int] = -1,
    prompt_tokens: Sequence[Sequence[int]] = (),
    output_tokens: Sequence[Sequence[int]] = (),
    logit_bias: Sequence[Sequence[tuple[int, float]]] = (),
    allowed_tokens: Sequence[Sequence[int]] = (),
    banned_tokens: Sequence[Sequence[int]] = (),
) -> SampleOutput:
    """Pick one token a row. Rows never influence each other.

    The order is: log probabilities from the raw logits; allowed and banned tokens, bias;
    penalties; temperature; top-k, top-p, min-p; draw. Ties go to the smaller token id.

    Parameters
    ----------
    logits
        [S, V].
    temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, repetition_penalty
        One number for all rows, or one a row. A temperature below 1e-5 picks the likeliest token.
    seed, counter
        Key and place of the draw: the same pair gives the same draw in any batch.
    num_logprobs
        Likeliest tokens to report; -1 reports none, not even the picked token's.
    prompt_tokens, output_tokens
        A list of ids a row, for the penalties.
    logit_bias
        (token, bias) pairs a row.
    allowed_tokens, banned_tokens
        Ids a row; an empty list allows all, or bans none.

    Raises
    ------
    ValidationError
        If a row's logits hold a NaN or nothing is left to choose from; the message names the row.
    """
    rows = logits.shape[0]
    tokens, found, errors = _C.ops.sample(
        logits,
        temperature=_column(temperature, rows),
        top_p=_column(top_p, rows),
        top_k=_column(top_k, rows),
        min_p=_column(min_p, rows),
        presence_penalty=_column(presence_penalty, rows),
        frequency_penalty=_column(frequency_penalty, rows),
        repetition_penalty=_column(repetition_penalty, rows),
        seed=_column(seed, rows),
        counter=_column(counter, rows),
        num_logprobs=_column(num_logprobs, rows),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        logit_bias=logit_bias,
        allowed_tokens=allowed_tokens,
        banned_tokens=banned_tokens,
    )
    for row, error in enumerate(errors):
        if error is not None:
            raise ValidationError(f"row {row}: {error}") from error
    return SampleOutput(
        torch.tensor(tokens, dtype=torch.int64),
        [[TokenLogprob(*entry) for entry in entries] for entries in found],
    )


def sample_tokens(
    logits: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    top_k: Tensor,
    min_p: Tensor,
    seed: Tensor,
    counter: Tensor,
) -> Tensor:
    """Pick one token a row, with parameters in tensors of [S]: the form that can be traced.

    Returns
    -------
    Tensor
        int64 [S], on the device of `logits`.
    """
    if is_traced(logits):
        result: Tensor = _sample_op(logits, temperature, top_p, top_k, min_p, seed, counter)
        return result
    return _run_sample(logits, temperature, top_p, top_k, min_p, seed, counter)


def _run_sample(
    logits: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    top_k: Tensor,
    min_p: Tensor,
    seed: Tensor,
    counter: Tensor,
) -> Tensor:
    picked = sample(
        logits,
        temperature=temperature.tolist(),
        top_p=top_p.tolist(),
        top_k=top_k.tolist(),
        min_p=min_p.tolist(),
        seed=seed.tolist(),
        counter=counter.tolist(),
    )
    return picked.tokens.to(logits.device)


def sample_tensors(
    logits: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    top_k: Tensor,
    seed: Tensor,
    counter: Tensor,
    *,
    out: Tensor | None = None,
    workspace: Tensor | None = None,
) -> Tensor:
    """Pick one token a row without waiting for the device: the form for CUDA graphs.

    Parameters
    ----------
    logits
        [S, V].
    temperature, top_p, min_p
        float32 [S].
    top_k
        int32 [S]; -1 for all.
    seed, counter
        int64 [S], the bits of unsigned numbers.
    out
        int32 [S]; allocated when left out.
    workspace
        uint8, as large as ``sample_tensors_workspace_bytes`` says; allocated when left out. Not
        used on the CPU.

    Returns
    -------
    Tensor
        int32 [S]; -1 for a row with a NaN, with nothing left to choose, or with parameters out of
        range.
    """
    if is_traced(logits):
        result = _sample_tensors_op(logits, temperature, top_p, min_p, top_k, seed, counter)
        return returned(result, out)
    if out is None:
        out = logits.new_empty((logits.shape[0],), dtype=torch.int32)
    if workspace is None and logits.device.type != "cpu":
        size = _C.ops.sample_tensors_workspace_bytes(logits.shape[0], logits.shape[1])
        workspace = logits.new_empty((size,), dtype=torch.uint8)
    _C.ops.sample_tensors(logits, temperature, top_p, min_p, top_k, seed, counter, out, workspace)
    return out


def uniform(seed: int, counter: int) -> float:
    """Draw from [0, 1) with 24 bits: the generator behind :func:`sample`, same on every device."""
    return float(_C.ops.uniform(seed, counter))


def logprobs(
    logits: Tensor, targets: Sequence[int], num: int | Sequence[int] = 0
) -> list[list[TokenLogprob]]:
    """Give log probabilities of given tokens, and of the `num` likeliest ones.

    Parameters
    ----------
    logits
        [S, V].
    targets
        A token a row.
    num
        Likeliest tokens to add, one number for all rows or one a row.
    """
    found = _C.ops.logprobs(logits, list(targets), _column(num, logits.shape[0]))
    return [[TokenLogprob(*entry) for entry in entries] for entries in found]


def _column(value: T | Sequence[T], rows: int) -> list[T]:
    return [value] * rows if isinstance(value, (int, float)) else list(value)


@torch.library.custom_op(
    "mmcore::sample",
    mutates_args=(),
    schema="(Tensor logits, Tensor temperature, Tensor top_p, Tensor top_k, Tensor min_p,"
    " Tensor seed, Tensor counter) -> Tensor",
)
def _sample_op(
    logits: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    top_k: Tensor,
    min_p: Tensor,
    seed: Tensor,
    counter: Tensor,
) -> Tensor:
    return _run_sample(logits, temperature, top_p, top_k, min_p, seed, counter)


@_sample_op.register_fake
def _(
    logits: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    top_k: Tensor,
    min_p: Tensor,
    seed: Tensor,
    counter: Tensor,
) -> Tensor:
    return logits.new_empty((logits.shape[0],), dtype=torch.int64)


@torch.library.custom_op(
    "mmcore::sample_tensors",
    mutates_args=(),
    schema="(Tensor logits, Tensor temperature, Tensor top_p, Tensor min_p, Tensor top_k,"
    " Tensor seed, Tensor counter) -> Tensor",
)
def _sample_tensors_op(
    logits: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    top_k: Tensor,
    seed: Tensor,
    counter: Tensor,
) -> Tensor:
    return sample_tensors(logits, temperature, top_p, min_p, top_k, seed, counter)


@_sample_tensors_op.register_fake
def _(
    logits: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    top_k: Tensor,
    seed: Tensor,
    counter: Tensor,
) -> Tensor:
    return logits.new_empty((logits.shape[0],), dtype=torch.int32)
