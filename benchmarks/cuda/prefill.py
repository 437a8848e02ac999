"""Paged prefill, causal, pages of 16: beside torch's attention, which reads contiguous keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from benchmarks.cuda.attention_rivals import (
    FLOPS_PER_US,
    expected_rows,
    sdpa_cudnn,
    sdpa_flash,
    usable,
)
from benchmarks.cuda.graph_timing import buffer_sets
from benchmarks.cuda.table import Case
from mmcore.ops import AttentionPlanShape, paged_attention

HEADS = {
    "llava7b": (32, 32, 128),
    "llama3": (32, 8, 128),
    "qwen2vl7b": (28, 4, 128),
    "smolvlm": (9, 3, 64),
}
"""Query heads, key/value heads, head dim."""

BATCHES = (
    (1, 641, 0),
    (1, 2048, 0),
    (4, 2048, 0),
    (8, 1024, 0),
    (1, 512, 3584),
    (4, 512, 3584),
    (1, 8192, 0),
)
"""Sequences, queries of each, keys before them."""

PAGE = 16

Calls = Sequence[Callable[[], object]]
Made = tuple[Calls, dict[str, Calls], Callable[[], float]]


class Batch:
    """One set of tensors: a cache in random order of pages, and the same keys side by side."""

    def __init__(self, heads: tuple[int, int, int], batch: tuple[int, int, int], seed: int) -> None:
        (query_heads, kv_heads, dim), (sequences, queries, prefix) = heads, batch
        torch.manual_seed(seed)
        keys = queries + prefix
        pages = math.ceil(keys / PAGE)
        self.scale = dim**-0.5
        options = {"dtype": torch.bfloat16, "device": "cuda"}
        self.q = torch.randn(sequences * queries, query_heads, dim, **options)  # type: ignore[call-overload]
        self.tables = torch.randperm(sequences * pages, device="cuda", dtype=torch.int32).view(
            sequences, pages
        )
        cache = torch.randn(2, sequences * pages, PAGE, kv_heads, dim, **options)  # type: ignore[call-overload]
        self.k_cache, self.v_cache = cache[0], cache[1]
        starts = torch.arange(sequences + 1, device="cuda", dtype=torch.int32)
        self.query_start = starts * queries
        self.seq_lens = torch.full((sequences,), keys, device="cuda", dtype=torch.int32)
        self.out = torch.empty_like(self.q)
        shape = AttentionPlanShape.of(self.q, self.k_cache, self.seq_lens)
        self.plan = shape.plan(self.query_start.cpu(), self.seq_lens.cpu()).cuda()
        self.workspace = torch.empty(shape.workspace_bytes, dtype=torch.uint8, device="cuda")
        self.q4 = self.q.view(sequences, queries, query_heads, dim).transpose(1, 2)
        self.k4, self.v4 = (
            c[self.tables.long()].view(sequences, -1, kv_heads, dim)[:, :keys].transpose(1, 2)
            for c in (self.k_cache, self.v_cache)
        )

    def ours(self) -> torch.Tensor:
        """Run the op under test."""
        return paged_attention(
            self.q,
            self.k_cache,
            self.v_cache,
            self.tables,
            self.query_start,
            self.seq_lens,
            scale=self.scale,
            out=self.out,
            plan=self.plan,
            workspace=self.workspace,
        )

    def error(self) -> float:
        """Root mean square of the error over that of the result, for some rows of each sequence."""
        self.ours()
        got = self.out.view_as(self.q4.transpose(1, 2))
        rows = torch.arange(0, got.shape[1], max(1, got.shape[1] // 97), device="cuda")
        squares = torch.zeros(2, dtype=torch.float64, device="cuda")
        for n in range(got.shape[0]):
            q, k, v = (t[n].transpose(0, 1) for t in (self.q4, self.k4, self.v4))
            want = expected_rows(q, k, v, rows, scale=self.scale, causal=True)
            squares[0] += (got[n, rows].double() - want).square().sum()
            squares[1] += want.square().sum()
        return float((squares[0] / squares[1]).sqrt())


def make(heads: tuple[int, int, int], batch: tuple[int, int, int]) -> Made:
    """Build the tensors of one case."""
    sequences, queries, prefix = batch
    rows = sequences * (queries * heads[0] + (queries + prefix) * heads[1])
    sets = [Batch(heads, batch, seed) for seed in range(buffer_sets(4 * rows * heads[2]))]
    rivals: dict[str, Calls] = {
        "sdpa flash": [sdpa_flash(b.q4, b.k4, b.v4, scale=b.scale, causal=True) for b in sets]
    }
    if prefix == 0:
        rivals["sdpa cudnn"] = [
            sdpa_cudnn(b.q4, b.k4, b.v4, scale=b.scale, causal=True) for b in sets
        ]
    return [b.ours for b in sets], usable(rivals), sets[0].error


def cases() -> list[Case]:
    """Shapes of prompts, and of chunks behind a prefix."""
    out = []
    for name, heads in HEADS.items():
        for batch in BATCHES:
            sequences, queries, prefix = batch
            pairs = queries * prefix + queries * queries / 2
            flops = 4 * sequences * pairs * heads[0] * heads[2]
            out.append(
                Case(
                    "paged prefill",
                    f"{name} {sequences}x{queries}+{prefix}",
                    lambda heads=heads, batch=batch: make(heads, batch),  # type: ignore[misc]
                    flops / FLOPS_PER_US,
                )
            )
    return out
