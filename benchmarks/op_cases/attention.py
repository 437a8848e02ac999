"""Attention and what surrounds it: rotary embedding with the KV write, paged and varlen."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from benchmarks.op_cases.case import Case, nbytes
from mmcore._C import ops

BLOCK = 16


def attention_cases(dtype: torch.dtype) -> Iterator[Case]:
    """Yield the ops of an attention layer; (9, 3, 64) is SmolLM2-135M, (32, 8, 128) Llama-8B."""
    for tokens in (1, 32, 512):
        yield rope_kv_write(tokens, 9, 3, 64, dtype)
    yield rope_kv_write(512, 32, 8, 128, dtype)
    for sequences, length in ((1, 512), (32, 512), (32, 2048)):
        yield paged_decode(sequences, length, 9, 3, 64, dtype)
    yield paged_decode(8, 1024, 32, 8, 128, dtype)
    yield paged_prefill(512, 9, 3, 64, dtype)
    yield paged_prefill(1024, 32, 8, 128, dtype)
    yield vision_attention(1, 577, 16, 64, dtype)
    yield vision_attention(4, 65, 4, 32, dtype)


def rope_kv_write(tokens: int, heads: int, kv_heads: int, dim: int, dtype: torch.dtype) -> Case:
    """Rotate q and k, and write k and v to their slots."""
    q, k = torch.randn(tokens, heads, dim).to(dtype), torch.randn(tokens, kv_heads, dim).to(dtype)
    v = torch.randn(tokens, kv_heads, dim).to(dtype)
    positions = torch.arange(tokens)
    angles = torch.outer(torch.arange(4096.0), 10000.0 ** (-torch.arange(0, dim, 2) / dim))
    cos_sin = torch.cat([angles.cos(), angles.sin()], -1)
    cache = torch.zeros(2, tokens // BLOCK + 2, BLOCK, kv_heads, dim, dtype=dtype)
    theirs = torch.zeros_like(cache)
    slots = torch.randperm(tokens) + BLOCK

    def rotated(x: torch.Tensor) -> torch.Tensor:
        cos, sin = (t[:, None] for t in cos_sin[positions].chunk(2, -1))
        first, second = x.float().chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def in_torch() -> None:
        cos, sin = cos_sin[positions].to(dtype).chunk(2, -1)
        cos, sin = torch.cat([cos, cos], -1)[:, None], torch.cat([sin, sin], -1)[:, None]
        for x in (q, k):
            half = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1)
            x.copy_(x * cos + half * sin)
        theirs[0].view(-1, kv_heads, dim).index_copy_(0, slots, k)
        theirs[1].view(-1, kv_heads, dim).index_copy_(0, slots, v)

    return Case(
        "rope_kv_write", f"{tokens} tokens, {heads}/{kv_heads} x {dim}", dtype,
        ours=lambda: ops.rope_kv_write(q, k, v, positions, cos_sin, cache[0], cache[1], slots),
        theirs=in_torch,
        result=lambda: [q, k, cache[0].view(-1, kv_heads, dim)[slots],
                        cache[1].view(-1, kv_heads, dim)[slots]],
        expected=lambda: [rotated(q), rotated(k), rotated(k), v],
        moved_bytes=nbytes(q, q, k, k, k, v, v) + tokens * dim * 4,
    )  # fmt: skip


class PagedBatch:
    """Equal sequences in a paged cache with scattered blocks, and the same keys in one piece."""

    def __init__(
        self, sequences: int, length: int, kv_heads: int, dim: int, dtype: torch.dtype
    ) -> None:
        blocks = -(-length // BLOCK)
        self.cache = torch.randn(2, sequences * blocks + 1, BLOCK, kv_heads, dim).to(dtype)
        order = torch.randperm(sequences * blocks) + 1
        self.tables = order.view(sequences, blocks).to(torch.int32)
        self.lengths = torch.full((sequences,), length, dtype=torch.int32)
        # [2, N, kv heads, length, dim], contiguous: the best case for torch, gathered beforehand.
        whole = self.cache[:, self.tables.long()].flatten(2, 3)[:, :, :length]
        self.keys, self.values = whole.transpose(2, 3).contiguous()


def paged_decode(
    sequences: int, length: int, heads: int, kv_heads: int, dim: int, dtype: torch.dtype
) -> Case:
    """One new token a sequence. torch gets its keys in one piece; a paged program has to gather."""
    batch = PagedBatch(sequences, length, kv_heads, dim, dtype)
    q = torch.randn(sequences, heads, dim).to(dtype)
    out, scale = torch.empty_like(q), dim**-0.5
    starts = torch.arange(sequences + 1, dtype=torch.int32)
    return Case(
        "paged_attention, decode", f"{sequences} x {length}, {heads}/{kv_heads} x {dim}", dtype,
        ours=lambda: ops.paged_attention(
            q, batch.cache[0], batch.cache[1], batch.tables, starts, batch.lengths, out, scale
        ),
        theirs=lambda: F.scaled_dot_product_attention(
            q[:, :, None], batch.keys, batch.values, scale=scale, enable_gqa=True
        ),
        result=lambda: [out],
        expected=lambda: [F.scaled_dot_product_attention(
            q[:, :, None].float(), batch.keys.float(), batch.values.float(), scale=scale,
            enable_gqa=True,
        )[:, :, 0]],
        moved_bytes=nbytes(batch.keys, batch.values, q, out),
        flops=4 * sequences * length * heads * dim,
    )  # fmt: skip


def paged_prefill(tokens: int, heads: int, kv_heads: int, dim: int, dtype: torch.dtype) -> Case:
    """A whole prompt, causal."""
    batch = PagedBatch(1, tokens, kv_heads, dim, dtype)
    q = torch.randn(tokens, heads, dim).to(dtype)
    out, scale = torch.empty_like(q), dim**-0.5
    starts = torch.tensor([0, tokens], dtype=torch.int32)
    across = q.transpose(0, 1)[None]
    return Case(
        "paged_attention, prefill", f"{tokens}, {heads}/{kv_heads} x {dim}", dtype,
        ours=lambda: ops.paged_attention(
            q, batch.cache[0], batch.cache[1], batch.tables, starts, batch.lengths, out, scale
        ),
        theirs=lambda: F.scaled_dot_product_attention(
            across, batch.keys, batch.values, is_causal=True, scale=scale, enable_gqa=True
        ),
        result=lambda: [out],
        expected=lambda: [F.scaled_dot_product_attention(
            across.float(), batch.keys.float(), batch.values.float(), is_causal=True, scale=scale,
            enable_gqa=True,
        )[0].transpose(0, 1)],
        moved_bytes=nbytes(batch.keys, batch.values, q, out),
        flops=2 * tokens * tokens * heads * dim,  # half of the square
    )  # fmt: skip


def vision_attention(images: int, tokens: int, heads: int, dim: int, dtype: torch.dtype) -> Case:
    """A tower's attention: no cache, every token sees every other of its image."""
    q, k, v = (torch.randn(images * tokens, heads, dim).to(dtype) for _ in range(3))
    out, scale = torch.empty_like(q), dim**-0.5
    cu = torch.arange(images + 1, dtype=torch.int32) * tokens
    split = [x.view(images, tokens, heads, dim).transpose(1, 2) for x in (q, k, v)]
    return Case(
        "varlen_attention", f"{images} x {tokens}, {heads} x {dim}", dtype,
        ours=lambda: ops.varlen_attention(q, k, v, cu, cu, out, scale),
        theirs=lambda: F.scaled_dot_product_attention(*split, scale=scale),
        result=lambda: [out],
        expected=lambda: [
            F.scaled_dot_product_attention(*(x.float() for x in split), scale=scale)
            .transpose(1, 2).reshape(out.shape)
        ],
        moved_bytes=nbytes(q, k, v, out),
        flops=4 * images * tokens * tokens * heads * dim,
    )  # fmt: skip
