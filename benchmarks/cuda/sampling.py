"""Sampling on a GPU: tokens from logits, without a host in between.

Rivals are torch's: ``argmax`` for greedy rows, and for the others the sampler that one writes with
``topk`` or ``sort``, ``softmax``, ``cumsum`` and an inverse draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.cuda.graph_timing import buffer_sets
from benchmarks.cuda.table import Case
from mmcore._C import ops

__all__ = ["cases"]

Call = Callable[[], object]
Calls = Sequence[Call]
Made = tuple[Calls, dict[str, Calls], Callable[[], float]]

LAUNCH_US = 1.1
READ_BYTES_PER_US = 3.1e6
SIZES = ((1, 32064), (32, 32064), (256, 32064), (1, 151936), (256, 151936))


def cases() -> list[Case]:
    """List greedy rows, plain draws, and draws with top-k and top-p."""
    torch.manual_seed(0)
    listed = []
    for rows, vocab in SIZES:
        listed.append(sampled("greedy", rows, vocab, temperature=0.0))
        listed.append(sampled("temperature", rows, vocab))
        listed.append(sampled("top-k 50, top-p 0.9", rows, vocab, top_k=50, top_p=0.9))
        listed.append(sampled("top-p 0.95", rows, vocab, top_p=0.95))
    listed.append(sampled("top-p 0.95, flat", 1, 151936, top_p=0.95, deviation=1.0))
    return listed


def random_logits(rows: int, vocab: int, deviation: float) -> Tensor:
    """Draw bfloat16 logits with a heavy right tail, as a trained model's have."""
    bulk = deviation * torch.randn(rows, vocab, device="cuda")
    if deviation > 2.0:
        bulk[torch.rand(rows, vocab, device="cuda") < 30 / vocab] += 6.0
    return bulk.bfloat16()


def torch_sampler(
    logits: Tensor, temperature: float, top_k: int, top_p: float, u: Tensor
) -> Tensor:
    """Sample as one does in torch; greedy rows by argmax."""
    if temperature == 0.0:
        return logits.argmax(-1)
    scaled = logits.float() / temperature
    if top_k > 0:
        values, ids = scaled.topk(top_k)
    elif top_p < 1.0:
        values, ids = scaled.sort(descending=True)
    else:
        reached = scaled.softmax(-1).cumsum(-1)
        return (reached > u[:, None]).int().argmax(-1)
    probabilities = values.softmax(-1)
    kept = probabilities * (probabilities.cumsum(-1) - probabilities < top_p)
    reached = kept.cumsum(-1)
    drawn = (reached > u[:, None] * reached[:, -1:]).int().argmax(-1)
    return ids.gather(1, drawn[:, None]).flatten()


def probability_outside(
    logits: Tensor, picked: Tensor, temperature: float, top_k: int, top_p: float
) -> float:
    """Give 0 if every token is one that may be drawn, by float64; 1 otherwise."""
    if temperature == 0.0:
        # Of equal logits the smallest id.
        return 0.0 if torch.equal(picked.long(), logits.float().argmax(-1)) else 1.0
    values, ids = (logits.double() / temperature).sort(descending=True, stable=True)
    if top_k > 0:
        values, ids = values[:, :top_k], ids[:, :top_k]
    probabilities = values.softmax(-1)
    kept = probabilities.cumsum(-1) - probabilities < top_p + 1e-6
    allowed = (ids == picked.long()[:, None]) & kept
    return 0.0 if bool(allowed.any(-1).all()) else 1.0


def sampled(
    name: str,
    rows: int,
    vocab: int,
    temperature: float = 0.8,
    top_k: int = -1,
    top_p: float = 1.0,
    deviation: float = 2.5,
) -> Case:
    """Pick a token a row."""
    moved = 2 * rows * vocab

    def make() -> Made:
        def column(value: float, dtype: torch.dtype) -> Tensor:
            return torch.full((rows,), value, dtype=dtype, device="cuda")

        seeds = torch.arange(rows, device="cuda")
        parameters = (
            column(temperature, torch.float32),
            column(top_p, torch.float32),
            column(0.0, torch.float32),
            column(top_k, torch.int32),
            seeds,
            torch.zeros_like(seeds),
        )
        tokens = column(-1, torch.int32)
        size = ops.sample_tensors_workspace_bytes(rows, vocab)
        workspace = torch.empty(size, dtype=torch.uint8, device="cuda")
        u = torch.tensor([ops.uniform(i, 0) for i in range(rows)], device="cuda")
        sets = [random_logits(rows, vocab, deviation) for _ in range(buffer_sets(moved))]

        def ours(logits: Tensor) -> Call:
            return lambda: ops.sample_tensors(logits, *parameters, tokens, workspace)

        def theirs(logits: Tensor) -> Call:
            return lambda: torch_sampler(logits, temperature, top_k, top_p, u)

        def check() -> float:
            ours(sets[0])()
            return probability_outside(sets[0], tokens, temperature, top_k, top_p)

        return [ours(s) for s in sets], {"torch": [theirs(s) for s in sets]}, check

    floor = moved / READ_BYTES_PER_US + LAUNCH_US
    return Case(f"sample, {name}", f"[{rows}, {vocab}]", make, floor, tolerance=0.0)
