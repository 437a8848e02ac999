"""Paged attention over a cache of 8-bit floats, beside the same over 16 bits: equal tokens.

Both hold the same values. Decode is to run at 1.85 times the speed over 16 bits. `pub` in a label
is what TensorRT-LLM's XQA kernel took on an H100 over 8 bits, in pages of 64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.cuda.attention_rivals import FLOPS_PER_US, expected_rows
from benchmarks.cuda.graph_timing import buffer_sets
from benchmarks.cuda.table import Case
from mmcore.ops import AttentionPlanShape, paged_attention

__all__ = ["cases"]

PAGE = 16
LLAVA, LLAMA3, SMOLVLM = (32, 32, 128), (32, 8, 128), (9, 3, 64)
"""Query heads, key/value heads, width of a head."""

DECODES = (
    ("llama3 1x4096 (pub 10.4)", LLAMA3, 1, 4096),
    ("llama3 8x1024 (pub 11.3)", LLAMA3, 8, 1024),
    ("llama3 16x1024", LLAMA3, 16, 1024),
    ("llama3 32x1024 (pub 27.2)", LLAMA3, 32, 1024),
    ("llama3 32x4096 (pub 101)", LLAMA3, 32, 4096),
    ("llama3 128x1024 (pub 95.8)", LLAMA3, 128, 1024),
    ("llava7b 1x1024", LLAVA, 1, 1024),
    ("llava7b 32x1024", LLAVA, 32, 1024),
    ("smolvlm 8x1024", SMOLVLM, 8, 1024),
    ("smolvlm 32x512", SMOLVLM, 32, 512),
    ("smolvlm 128x1024", SMOLVLM, 128, 1024),
)
"""Label, heads, sequences, keys of each."""

PREFILLS = (
    ("llava7b 1x641+0", LLAVA, (1, 641, 0)),
    ("llava7b 4x2048+0", LLAVA, (4, 2048, 0)),
    ("llama3 4x2048+0", LLAMA3, (4, 2048, 0)),
    ("llama3 4x512+3584", LLAMA3, (4, 512, 3584)),
    ("smolvlm 4x2048+0", SMOLVLM, (4, 2048, 0)),
)
"""Label, heads, sequences, queries of each, keys before them."""

Calls = Sequence[Callable[[], object]]
Made = tuple[Calls, dict[str, Calls], Callable[[], float]]


class Batch:
    """One set of tensors: a cache in random order of pages, in 8 and in 16 bits."""

    def __init__(self, heads: tuple[int, int, int], batch: tuple[int, int, int], seed: int) -> None:
        (query_heads, kv_heads, dim), (sequences, queries, prefix) = heads, batch
        torch.manual_seed(seed)
        self.group, self.queries, self.keys = query_heads // kv_heads, queries, queries + prefix
        pages = math.ceil(self.keys / PAGE)
        self.scale = dim**-0.5
        options = {"dtype": torch.bfloat16, "device": "cuda"}
        self.q = torch.randn(sequences * queries, query_heads, dim, **options)  # type: ignore[call-overload]
        self.tables = torch.randperm(sequences * pages, device="cuda", dtype=torch.int32).view(
            sequences, pages
        )
        shape = (2, sequences * pages, PAGE, kv_heads, dim)
        self.float8 = torch.randn(shape, **options).to(torch.float8_e4m3fn)  # type: ignore[call-overload]
        self.bfloat16 = self.float8.to(torch.bfloat16)
        self.starts = torch.arange(sequences + 1, device="cuda", dtype=torch.int32) * queries
        self.seq_lens = torch.full((sequences,), self.keys, device="cuda", dtype=torch.int32)
        self.most = 1 if queries == 1 else 0
        plan_shape = AttentionPlanShape.of(
            self.q, self.float8[0], self.seq_lens, max_query_len=self.most
        )
        lengths = (self.starts.cpu(), self.seq_lens.cpu())
        self.plan = plan_shape.plan(*lengths, settled=queries == 1).cuda()
        self.workspace = torch.empty(plan_shape.workspace_bytes, dtype=torch.uint8, device="cuda")
        self.out = torch.empty_like(self.q)

    def attend(self, cache: Tensor) -> Tensor:
        """Run the op over one of the caches."""
        return paged_attention(
            self.q, cache[0], cache[1], self.tables, self.starts, self.seq_lens, scale=self.scale,
            out=self.out, plan=self.plan, workspace=self.workspace, max_query_len=self.most,
        )  # fmt: skip

    def over8(self) -> Tensor:
        """Attend over 8 bits."""
        return self.attend(self.float8)

    def over16(self) -> Tensor:
        """Attend over 16 bits."""
        return self.attend(self.bfloat16)

    def error(self) -> float:
        """Root mean square of the error over that of the result, for some rows of each sequence."""
        got = self.over8().view(-1, self.queries, *self.q.shape[1:])
        rows = torch.arange(0, self.queries, max(1, self.queries // 97), device="cuda")
        squares = torch.zeros(2, dtype=torch.float64, device="cuda")
        queries = self.q.view_as(got)
        for n in range(got.shape[0]):
            pages = self.tables[n].long()
            k, v = (cache[pages].flatten(0, 1)[: self.keys] for cache in self.bfloat16)
            want = expected_rows(queries[n], k, v, rows, scale=self.scale, causal=True)
            squares[0] += (got[n, rows].double() - want).square().sum()
            squares[1] += want.square().sum()
        return float((squares[0] / squares[1]).sqrt())


def make(heads: tuple[int, int, int], batch: tuple[int, int, int]) -> Made:
    """Build the tensors of one case."""
    sequences, queries, prefix = batch
    in_cache = 2 * sequences * (queries + prefix) * heads[1] * heads[2]
    sets = [Batch(heads, batch, seed) for seed in range(buffer_sets(in_cache))]
    return (
        [b.over8 for b in sets],
        {"16 bits": [b.over16 for b in sets]},
        sets[0].error,
    )


def cases() -> list[Case]:
    """List decodes, then prompts and chunks behind a prefix."""
    out = []
    for label, heads, sequences, keys in DECODES:
        floor = 2.2 + 2 * sequences * keys * heads[1] * heads[2] / 3.1e6
        batch = (sequences, 1, keys - 1)
        out.append(
            Case(
                "paged decode, float8",
                label,
                lambda heads=heads, batch=batch: make(heads, batch),  # type: ignore[misc]
                floor,
            )
        )
    for label, heads, batch in PREFILLS:
        sequences, queries, prefix = batch
        flops = 4 * sequences * (queries * prefix + queries * queries / 2) * heads[0] * heads[2]
        out.append(
            Case(
                "paged prefill, float8",
                label,
                lambda heads=heads, batch=batch: make(heads, batch),  # type: ignore[misc]
                flops / FLOPS_PER_US,
            )
        )
    return out
