"""Ops over the vocabulary: sampling and log probabilities."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.op_cases.case import Case, nbytes
from mmcore._C import ops


def vocabulary_cases(dtype: torch.dtype) -> Iterator[Case]:
    """Yield the sampler, greedy and random, and logprobs."""
    for rows in (1, 32):
        yield greedy(rows, 49152, dtype)
        yield nucleus(rows, 49152, dtype)
    yield logprobs(32, 49152, dtype)


def random_logits(rows: int, vocab: int, dtype: torch.dtype) -> torch.Tensor:
    """Draw logits with one clear winner a row, so that there is one right greedy answer."""
    logits = 3 * torch.randn(rows, vocab)
    logits[torch.arange(rows), torch.randint(vocab, (rows,))] = 20.0
    return logits.to(dtype)


def greedy(rows: int, vocab: int, dtype: torch.dtype) -> Case:
    """The likeliest token."""
    logits = random_logits(rows, vocab, dtype)
    temperature = [0.0] * rows
    picked: list[int] = []

    def ours() -> None:
        picked[:] = ops.sample(logits, temperature=temperature)[0]

    return Case(
        "sample, greedy", f"[{rows}, {vocab}]", dtype,
        ours=ours,
        theirs=lambda: logits.argmax(-1).tolist(),
        result=lambda: [torch.tensor(picked)],
        expected=lambda: [logits.float().argmax(-1)],
        moved_bytes=nbytes(logits),
    )  # fmt: skip


def nucleus(rows: int, vocab: int, dtype: torch.dtype) -> Case:
    """Temperature, top-k and top-p; checked by drawing only from what may be drawn."""
    logits = random_logits(rows, vocab, dtype)
    # A second likely token a row, so that there is something to draw from.
    logits.scatter_(1, torch.randint(vocab, (rows, 1)), 19.5)
    settings = {
        "temperature": [0.8] * rows, "top_k": [50] * rows, "top_p": [0.9] * rows,
        "seed": list(range(rows)), "counter": [0] * rows,
    }  # fmt: skip
    picked: list[int] = []

    def ours() -> None:
        picked[:] = ops.sample(logits, **settings)[0]

    def theirs() -> list[int]:
        top, ids = (logits.float() / 0.8).topk(50)
        probabilities = top.softmax(-1)
        kept = probabilities.cumsum(-1) - probabilities < 0.9
        drawn = torch.multinomial(probabilities * kept, 1)
        return list(ids.gather(1, drawn).flatten().tolist())

    def allowed() -> torch.Tensor:
        top, ids = (logits.float() / 0.8).topk(50)
        probabilities = top.softmax(-1)
        kept = probabilities.cumsum(-1) - probabilities < 0.9
        return (ids == torch.tensor(picked)[:, None]).logical_and(kept).any(-1)

    return Case(
        "sample, top-k 50, top-p 0.9", f"[{rows}, {vocab}]", dtype,
        ours=ours,
        theirs=theirs,
        result=lambda: [allowed()],
        expected=lambda: [torch.ones(rows, dtype=torch.bool)],
        moved_bytes=nbytes(logits),
    )  # fmt: skip


def logprobs(rows: int, vocab: int, dtype: torch.dtype) -> Case:
    """The log probability of a given token and of the five best."""
    logits = random_logits(rows, vocab, dtype)
    targets = torch.randint(vocab, (rows,))
    wanted, counts = targets.tolist(), [5] * rows
    values: list[float] = []

    def ours() -> None:
        values[:] = [entry[0][1] for entry in ops.logprobs(logits, wanted, counts)]

    def theirs() -> object:
        table = logits.float().log_softmax(-1)
        return table.gather(1, targets[:, None]).tolist(), [t.tolist() for t in table.topk(5)]

    return Case(
        "logprobs, 5 best", f"[{rows}, {vocab}]", dtype,
        ours=ours,
        theirs=theirs,
        result=lambda: [torch.tensor(values, dtype=torch.float64)],
        expected=lambda: [
            logits.double().log_softmax(-1).gather(1, targets[:, None]).flatten()
        ],
        moved_bytes=nbytes(logits),
    )  # fmt: skip
