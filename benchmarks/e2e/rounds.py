"""Whole generations of two engines, in turns: tokens a second and time to first token."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.harness import print_table

Tokens = list[list[int]]
# Prompts (token ids or more) and a number of new tokens -> the new tokens of each prompt.
Generate = Callable[[int, int], Tokens]


@dataclass(frozen=True, slots=True)
class Row:
    """One engine at one batch size: medians over the rounds."""

    engine: str
    batch: int
    new_tokens: int
    first_token_ms: float
    output_tokens_per_s: float
    total_s: float
    low_tokens_per_s: float
    high_tokens_per_s: float


def run_rounds(
    engines: dict[str, Generate], batches: Sequence[int], new_tokens: int, rounds: int
) -> list[Row]:
    """Let the engines take turns at each batch size.

    The time to first token is that of a run of its own which makes one token; output tokens a
    second count the whole request, its prompt included.
    """
    rows = []
    for batch in batches:
        first: dict[str, list[float]] = {name: [] for name in engines}
        total: dict[str, list[float]] = {name: [] for name in engines}
        for generate in engines.values():
            generate(batch, 4)  # warm-up
        for _ in range(rounds):
            for name, generate in engines.items():
                first[name].append(timed(generate, batch, 1))
                total[name].append(timed(generate, batch, new_tokens))
        for name in engines:
            rates = [batch * new_tokens / seconds for seconds in total[name]]
            rows.append(
                Row(
                    engine=name,
                    batch=batch,
                    new_tokens=new_tokens,
                    first_token_ms=statistics.median(first[name]) * 1e3,
                    output_tokens_per_s=statistics.median(rates),
                    total_s=statistics.median(total[name]),
                    low_tokens_per_s=min(rates),
                    high_tokens_per_s=max(rates),
                )
            )
            print(f"  {' | '.join(cells(rows[-1]))}", flush=True)
    return rows


def timed(generate: Generate, batch: int, new_tokens: int) -> float:
    """Time one call, and insist that it made what was asked for."""
    start = time.perf_counter()
    tokens = generate(batch, new_tokens)
    elapsed = time.perf_counter() - start
    if len(tokens) != batch or any(len(row) != new_tokens for row in tokens):
        raise AssertionError(f"expected {batch} x {new_tokens} tokens")
    return elapsed


def agreement(ours: Tokens, theirs: Tokens) -> float:
    """Return the share of sequences that are the same from the first token to the last."""
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return same / len(ours)


def cells(row: Row) -> list[str]:
    """Write a row for the table."""
    spread = f"{row.low_tokens_per_s:.0f} to {row.high_tokens_per_s:.0f}"
    return [
        row.engine, str(row.batch), str(row.new_tokens), f"{row.first_token_ms:.1f}",
        f"{row.output_tokens_per_s:.1f}", spread,
    ]  # fmt: skip


def print_rows(rows: Sequence[Row]) -> None:
    """Print the rows as a Markdown table."""
    header = ["engine", "batch", "new tokens", "first token ms", "output tokens/s", "range"]
    print()
    print_table(header, [cells(row) for row in rows])


def dtype_of(name: str) -> torch.dtype:
    """Return the torch dtype of that name."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype
