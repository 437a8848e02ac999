"""Rotary embedding, the paged KV cache, and attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcore import _C
from mmcore.ops._attention_plan import AttentionPlanShape
from mmcore.ops._dispatch import is_traced, returned

__all__ = ["HEAD_DIMS", "copy_blocks", "paged_attention", "rope_kv_write", "varlen_attention"]

HEAD_DIMS = (32, 64, 72, 80, 96, 128, 256)
"""Widths of a head that the attention kernels take."""


def rope_kv_write(
    q: Tensor | None,
    k: Tensor,
    v: Tensor | None = None,
    *,
    positions: Tensor | None = None,
    cos_sin: Tensor | None = None,
    k_cache: Tensor | None = None,
    v_cache: Tensor | None = None,
    slot_mapping: Tensor | None = None,
    interleaved: bool = False,
    sections: Sequence[int] | None = None,
    sections_interleaved: bool = False,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    keep_k: bool = True,
) -> None:
    """Rotate queries and keys in place and write keys and values to the paged cache, in one pass.

    Parameters
    ----------
    q, k
        [T, Hq, D] and [T, Hkv, D], changed in place.
    v
        [T, Hkv, D]; needed for the write.
    positions
        int64 [T], or [3, T] with `sections`; no rotation when left out.
    cos_sin
        float32 [max position, R]: row p holds R/2 cosines, then R/2 sines. Dimensions from R on
        are not rotated.
    k_cache, v_cache
        [B, P, Hkv, D], of any float type or float8_e4m3fn; no write when left out.
    slot_mapping
        int64 [T]: block * P + offset for each token; a negative entry is not written.
    interleaved
        Pair dimensions 2i and 2i + 1 (GPT-J) instead of i and i + R/2 (Llama).
    sections
        M-RoPE: how many of the R/2 frequencies follow a token's position in time, in height and in
        width, which are the three rows of `positions`.
    sections_interleaved
        The frequencies of the axes take turns (Qwen3-VL) instead of lying one behind the other
        (Qwen2-VL).
    k_scale, v_scale
        A float8_e4m3fn cache receives keys and values divided by these, cut off at +-448.
    keep_k
        False if nobody reads `k` afterwards: with a cache, what it holds is not said then.

    Raises
    ------
    ValidationError
        If a position has no row in `cos_sin` or a slot is outside the cache (on the CPU; elsewhere
        the caller checks).
    """
    call = _rope_kv_write_op if is_traced(k) else _C.ops.rope_kv_write
    call(
        q,
        k,
        v,
        positions,
        cos_sin,
        k_cache,
        v_cache,
        slot_mapping,
        interleaved,
        [0, 0, 0] if sections is None else list(sections),
        sections_interleaved,
        k_scale,
        v_scale,
        keep_k,
    )


def copy_blocks(cache: Tensor, pairs: Tensor) -> None:
    """Copy whole blocks inside a cache: ``cache[dst] = cache[src]`` for each pair, in order.

    Parameters
    ----------
    cache
        [B, ...] with contiguous blocks.
    pairs
        int64 [n, 2]: source and destination.
    """
    (_copy_blocks_op if is_traced(cache) else _C.ops.copy_blocks)(cache, pairs)


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    query_start: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
    soft_cap: float = 0.0,
    window: int = 0,
    causal: bool = True,
    out: Tensor | None = None,
    plan: Tensor | None = None,
    workspace: Tensor | None = None,
    max_query_len: int = 0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
) -> Tensor:
    """Attend over the paged cache, for any mix of prefills, chunks and decodes.

    Parameters
    ----------
    q
        [T, Hq, D], D one of :data:`HEAD_DIMS`. Query i of sequence n is at position
        ``seq_lens[n] - number of its queries + i``.
    k_cache, v_cache
        [B, P, Hkv, D], with the newest tokens written; any float type or float8_e4m3fn.
    block_tables
        int32 [N, W].
    query_start
        int32 [N + 1]: rows of each sequence in `q`.
    seq_lens
        int32 [N]: tokens in the cache.
    scale
        Factor of the scores.
    soft_cap
        Scores become ``soft_cap * tanh(score / soft_cap)``; 0 for none.
    window
        Keys that a query sees at most, itself included; 0 for all.
    causal
        Whether a query sees no later keys.
    out
        [T, Hq, D]; allocated when left out.
    plan, workspace
        On a GPU, what :class:`AttentionPlanShape` describes: int32 [``plan_words``] with the
        lengths' plan, and uint8 [``workspace_bytes``]. Without a plan one is made here, which waits
        for the device to give the lengths: a convenience, not for serving, and not possible while a
        CUDA graph is recorded.
    max_query_len
        As in the plan's shape.
    k_scale, v_scale
        What keys and values of a float8_e4m3fn cache are to be multiplied by.
    """
    if is_traced(q):
        result = _paged_attention_op(
            q,
            k_cache,
            v_cache,
            block_tables,
            query_start,
            seq_lens,
            scale,
            soft_cap,
            window,
            causal,
            plan,
            workspace,
            max_query_len,
            k_scale,
            v_scale,
        )
        return returned(result, out)
    return _run_paged_attention(
        q,
        k_cache,
        v_cache,
        block_tables,
        query_start,
        seq_lens,
        scale,
        soft_cap,
        window,
        causal,
        out,
        plan,
        workspace,
        max_query_len,
        k_scale,
        v_scale,
    )


def _run_paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    query_start: Tensor,
    seq_lens: Tensor,
    scale: float,
    soft_cap: float,
    window: int,
    causal: bool,
    out: Tensor | None,
    plan: Tensor | None,
    workspace: Tensor | None,
    max_query_len: int,
    k_scale: float,
    v_scale: float,
) -> Tensor:
    if out is None:
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
    if not q.is_cuda:
        plan = workspace = None
    elif plan is None or workspace is None:
        shape = AttentionPlanShape.of(
            q, k_cache, seq_lens, max_query_len=max_query_len, window=window, causal=causal
        )
        if plan is None:
            plan = shape.plan(query_start.cpu(), seq_lens.cpu()).to(q.device)
        if workspace is None:
            workspace = torch.empty(shape.workspace_bytes, dtype=torch.uint8, device=q.device)
    _C.ops.paged_attention(
        q,
        k_cache,
        v_cache,
        block_tables,
        query_start,
        seq_lens,
        out,
        scale,
        soft_cap,
        window,
        causal,
        plan,
        workspace,
        max_query_len,
        k_scale,
        v_scale,
    )
    return out


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    *,
    scale: float,
    soft_cap: float = 0.0,
    window: int = 0,
    causal: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Attend within sequences of different lengths that lie one after the other.

    Parameters
    ----------
    q
        [Tq, Hq, D], D one of :data:`HEAD_DIMS`.
    k, v
        [Tk, Hkv, D].
    cu_q, cu_k
        int32 [N + 1]: sequence n has queries ``cu_q[n]`` to ``cu_q[n + 1]``, keys likewise.
    scale, soft_cap, window, out
        As for :func:`paged_attention`.
    causal
        Whether a query sees no later keys; the last query is aligned with the last key.
    """
    if is_traced(q):
        result = _varlen_attention_op(q, k, v, cu_q, cu_k, scale, soft_cap, window, causal)
        return returned(result, out)
    return _run_varlen_attention(q, k, v, cu_q, cu_k, scale, soft_cap, window, causal, out)


def _run_varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    scale: float,
    soft_cap: float,
    window: int,
    causal: bool,
    out: Tensor | None,
) -> Tensor:
    if out is None:
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
    _C.ops.varlen_attention(q, k, v, cu_q, cu_k, out, scale, soft_cap, window, causal)
    return out


@torch.library.custom_op(
    "mmcore::rope_kv_write",
    mutates_args=("q", "k", "k_cache", "v_cache"),
    schema="(Tensor(a!)? q, Tensor(b!) k, Tensor? v, Tensor? positions, Tensor? cos_sin,"
    " Tensor(c!)? k_cache, Tensor(d!)? v_cache, Tensor? slot_mapping, bool interleaved,"
    " int[] sections, bool sections_interleaved, float k_scale, float v_scale, bool keep_k) -> ()",
)
def _rope_kv_write_op(
    q: Tensor | None,
    k: Tensor,
    v: Tensor | None,
    positions: Tensor | None,
    cos_sin: Tensor | None,
    k_cache: Tensor | None,
    v_cache: Tensor | None,
    slot_mapping: Tensor | None,
    interleaved: bool,
    sections: Sequence[int],
    sections_interleaved: bool,
    k_scale: float,
    v_scale: float,
    keep_k: bool,
) -> None:
    _C.ops.rope_kv_write(
        q,
        k,
        v,
        positions,
        cos_sin,
        k_cache,
        v_cache,
        slot_mapping,
        interleaved,
        sections,
        sections_interleaved,
        k_scale,
        v_scale,
        keep_k,
    )


@_rope_kv_write_op.register_fake
def _(
    q: Tensor | None,
    k: Tensor,
    v: Tensor | None,
    positions: Tensor | None,
    cos_sin: Tensor | None,
    k_cache: Tensor | None,
    v_cache: Tensor | None,
    slot_mapping: Tensor | None,
    interleaved: bool,
    sections: Sequence[int],
    sections_interleaved: bool,
    k_scale: float,
    v_scale: float,
    keep_k: bool,
) -> None:
    return None


@torch.library.custom_op(
    "mmcore::copy_blocks",
    mutates_args=("cache",),
    schema="(Tensor(a!) cache, Tensor pairs) -> ()",
)
def _copy_blocks_op(cache: Tensor, pairs: Tensor) -> None:
    _C.ops.copy_blocks(cache, pairs)


@_copy_blocks_op.register_fake
def _(cache: Tensor, pairs: Tensor) -> None:
    return None


@torch.library.custom_op(
    "mmcore::paged_attention",
    mutates_args=(),
    schema="(Tensor q, Tensor k_cache, Tensor v_cache, Tensor block_tables, Tensor query_start,"
    " Tensor seq_lens, float scale, float soft_cap, int window, bool causal, Tensor? plan=None,"
    " Tensor? workspace=None, int max_query_len=0, float k_scale=1.0, float v_scale=1.0) -> Tensor",
)
def _paged_attention_op(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    query_start: Tensor,
    seq_lens: Tensor,
    scale: float,
    soft_cap: float,
    window: int,
    causal: bool,
    plan: Tensor | None = None,
    workspace: Tensor | None = None,
    max_query_len: int = 0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
) -> Tensor:
    return _run_paged_attention(
        q,
        k_cache,
        v_cache,
        block_tables,
        query_start,
        seq_lens,
        scale,
        soft_cap,
        window,
        causal,
        None,
        plan,
        workspace,
        max_query_len,
        k_scale,
        v_scale,
    )


@_paged_attention_op.register_fake
def _(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    query_start: Tensor,
    seq_lens: Tensor,
    scale: float,
    soft_cap: float,
    window: int,
    causal: bool,
    plan: Tensor | None = None,
    workspace: Tensor | None = None,
    max_query_len: int = 0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.custom_op(
    "mmcore::varlen_attention",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor cu_q, Tensor cu_k, float scale, float soft_cap,"
    " int window, bool causal) -> Tensor",
)
def _varlen_attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    scale: float,
    soft_cap: float,
    window: int,
    causal: bool,
) -> Tensor:
    return _run_varlen_attention(q, k, v, cu_q, cu_k, scale, soft_cap, window, causal, None)


@_varlen_attention_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    scale: float,
    soft_cap: float,
    window: int,
    causal: bool,
) -> Tensor:
    return q.new_empty(q.shape)
