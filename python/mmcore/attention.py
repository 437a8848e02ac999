"""Attention for decoders, over the paged KV cache, and for encoders.

A KV cache is one tensor a layer, [2, blocks, block size, kv heads, head size]: keys, then values.
An empty tensor stands for "no cache": attention then runs over the batch alone, which is what
profiling does before there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from mmcore import ops
from mmcore.errors import CheckpointError, ValidationError

__all__ = [
    "Attention",
    "AttentionKind",
    "AttentionMetadata",
    "AttentionPlan",
    "RotaryTable",
    "VisionAttention",
]


class AttentionKind(NamedTuple):
    """What layers have in common that can share a plan; `window` 0 for none."""

    num_heads: int
    num_kv_heads: int
    head_size: int
    window: int


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How a step's attention is divided over a GPU.

    Parameters
    ----------
    words
        int32, what :meth:`mmcore.ops.AttentionPlanShape.plan` wrote.
    workspace
        uint8, for partial results.
    max_query_len
        That the plan was made for.
    """

    words: Tensor
    workspace: Tensor
    max_query_len: int


@dataclass(slots=True)
class AttentionMetadata:
    """Which rows of a step belong to which sequence, and where their keys and values lie.

    Rows are tokens; sequences that decode come before those that prefill. T rows, N sequences.

    Parameters
    ----------
    slot_mapping
        int64 [T]: block * block size + offset of each token in the cache.
    query_start
        int32 [N + 1]: first row of each sequence, and T.
    seq_lens
        int32 [N]: tokens of each sequence in the cache, this step's included.
    block_tables
        int32 [N, W]: the blocks of each sequence, padded with 0.
    num_prefills, num_prefill_tokens, num_decode_tokens
        Sequences that prefill, their rows, and the rows of the others.
    max_query_len, max_seq_len
        Most rows of a sequence, and most tokens of one.
    plans
        A plan for each kind of layer, on a GPU; None elsewhere.
    """

    slot_mapping: Tensor
    query_start: Tensor
    seq_lens: Tensor
    block_tables: Tensor
    num_prefills: int
    num_prefill_tokens: int
    num_decode_tokens: int
    max_query_len: int
    max_seq_len: int
    plans: Mapping[AttentionKind, AttentionPlan] | None = None

    @classmethod
    def without_cache(
        cls, lengths: Sequence[int], device: torch.device | str = "cpu"
    ) -> AttentionMetadata:
        """Describe whole prompts that run without a KV cache, one after the other."""

        def ints(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int32, device=device)

        total, longest = sum(lengths), max(lengths, default=0)
        return cls(
            slot_mapping=torch.full((total,), -1, dtype=torch.int64, device=device),
            query_start=ints([0, *accumulate(lengths)]),
            seq_lens=ints(lengths),
            block_tables=torch.zeros((len(lengths), 0), dtype=torch.int32, device=device),
            num_prefills=len(lengths),
            num_prefill_tokens=total,
            num_decode_tokens=0,
            max_query_len=longest,
            max_seq_len=longest,
        )


class RotaryTable(Protocol):
    """What :class:`Attention` needs of a rotary embedding, to rotate while it writes the cache."""

    is_neox_style: bool

    def table_on(self, device: torch.device) -> Tensor:
        """Give the float32 [max position, rotary dim] table of cosines and sines."""
        ...


class Attention(nn.Module):
    """Causal self-attention of a decoder layer, with its KV cache.

    Parameters
    ----------
    num_heads, head_size
        Query heads and their width.
    scale
        Factor of the scores.
    num_kv_heads
        Key and value heads; `num_heads` when left out.
    alibi_slopes, quant_config
        Not supported; must be None.
    cache_config
        Only read for a ``sliding_window``.
    rotary
        Rotates queries and keys if ``forward`` gets positions. A model that rotates by itself
        leaves it out.
    sliding_window
        Keys that a query sees at most, itself included; None for all.
    logits_soft_cap
        Scores become ``cap * tanh(score / cap)``; None for none.
    prefix
        The layer's name, for error messages.
    """

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: Sequence[float] | None = None,
        cache_config: Any = None,
        quant_config: Any = None,
        *,
        rotary: RotaryTable | None = None,
        sliding_window: int | None = None,
        logits_soft_cap: float | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        layer = f" ({prefix})" if prefix else ""
        if alibi_slopes is not None:
            raise ValidationError(f"Attention{layer} does not support alibi_slopes; pass None.")
        if quant_config is not None:
            raise ValidationError(f"Attention{layer} does not support quant_config; pass None.")
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = float(scale)
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads % self.num_kv_heads:
            raise ValidationError(
                f"Attention{layer}: {num_heads} query heads cannot share {self.num_kv_heads} "
                "key/value heads evenly."
            )
        if sliding_window is None:
            sliding_window = getattr(cache_config, "sliding_window", None)
        self.window = sliding_window or 0
        self.soft_cap = logits_soft_cap or 0.0
        self.kind = AttentionKind(num_heads, self.num_kv_heads, head_size, self.window)
        # Of a float8_e4m3fn cache; a checkpoint may bring others.
        self.k_scale = self.v_scale = 1.0
        self._name = prefix
        # Not a submodule: layers share one table, which is no parameter of any of them.
        self._rotary = (rotary,)

    def load_cache_scale(self, kind: str, value: Tensor) -> None:
        """Take a checkpoint's ``"k_scale"`` or ``"v_scale"``, a single positive number.

        Only a float8_e4m3fn cache is scaled: others leave the value unused.

        Raises
        ------
        CheckpointError
            If it is not one finite number above 0.
        """
        scale = float(value.item()) if value.numel() == 1 else math.nan
        # Kernels multiply by the inverse in float32, which has to be finite as well.
        if not torch.finfo(torch.float32).tiny <= scale <= torch.finfo(torch.float32).max:
            raise CheckpointError(
                f"{kind} of {self._name or 'an attention layer'} is {value.tolist()}, expected one "
                "finite number above 0. Scales by head are not supported."
            )
        setattr(self, kind, scale)

    def prepare_on(self, device: torch.device) -> None:
        """Make the rotary table that the layer will need on a device."""
        if self._rotary[0] is not None:
            self._rotary[0].table_on(device)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor | None,
        attn_metadata: AttentionMetadata,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Write this step's keys and values to the cache and attend over it.

        Parameters
        ----------
        query
            [T, heads * head size] or [T, heads, head size]. Rotated in place if `positions` are
            given. What the keys hold afterwards is not said.
        key, value
            [T, kv heads * head size] or with heads apart.
        kv_cache
            [2, blocks, block size, kv heads, head size], or empty for none.
        attn_metadata
            Where the rows belong.
        positions
            int64 [T], for the rotary embedding given to the constructor.

        Returns
        -------
        Tensor
            Of `query`'s shape.
        """
        tokens = query.shape[0]
        q = query.view(tokens, self.num_heads, self.head_size)
        k = key.view(tokens, self.num_kv_heads, self.head_size)
        v = value.view(tokens, self.num_kv_heads, self.head_size)

        rotary = self._rotary[0] if positions is not None else None
        cos_sin = None if rotary is None else rotary.table_on(q.device)
        interleaved = rotary is not None and not rotary.is_neox_style
        if rotary is None:
            positions = None

        if kv_cache is None or kv_cache.numel() == 0:
            if cos_sin is not None:
                ops.rope_kv_write(
                    q, k, positions=positions, cos_sin=cos_sin, interleaved=interleaved
                )
            start = attn_metadata.query_start
            out = ops.varlen_attention(
                q, k, v, start, start,
                scale=self.scale, soft_cap=self.soft_cap, window=self.window, causal=True,
            )  # fmt: skip
            return out.view(query.shape)

        k_cache, v_cache = kv_cache.unbind(0)
        scaled = kv_cache.dtype is torch.float8_e4m3fn
        k_scale, v_scale = (self.k_scale, self.v_scale) if scaled else (1.0, 1.0)
        ops.rope_kv_write(
            q if cos_sin is not None else None,
            k,
            v,
            positions=positions,
            cos_sin=cos_sin,
            k_cache=k_cache,
            v_cache=v_cache,
            slot_mapping=attn_metadata.slot_mapping,
            interleaved=interleaved,
            k_scale=k_scale,
            v_scale=v_scale,
            keep_k=False,
        )
        plan = None if attn_metadata.plans is None else attn_metadata.plans.get(self.kind)
        out = ops.paged_attention(
            q,
            k_cache,
            v_cache,
            attn_metadata.block_tables,
            attn_metadata.query_start,
            attn_metadata.seq_lens,
            scale=self.scale,
            soft_cap=self.soft_cap,
            window=self.window,
            plan=None if plan is None else plan.words,
            workspace=None if plan is None else plan.workspace,
            max_query_len=0 if plan is None else plan.max_query_len,
            k_scale=k_scale,
            v_scale=v_scale,
        )
        return out.view(query.shape)

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return (
            f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}, "
            f"head_size={self.head_size}, window={self.window}"
        )


class VisionAttention(nn.Module):
    """Attention of an encoder layer: every row sees all rows of its item.

    Parameters
    ----------
    num_heads, head_size
        Query heads and their width.
    scale
        Factor of the scores; ``head_size ** -0.5`` when left out.
    """

    def __init__(self, num_heads: int, head_size: int, scale: float | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = head_size**-0.5 if scale is None else float(scale)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor | None = None
    ) -> Tensor:
        """Attend within each item.

        Parameters
        ----------
        query, key, value
            [items, rows, heads * head size]; or, with `cu_seqlens`, [all rows, heads * head size].
        cu_seqlens
            int32 [items + 1]: the rows of each item, where items have different numbers of rows.

        Returns
        -------
        Tensor
            Of `query`'s shape.
        """
        if cu_seqlens is not None:
            return self._ragged(query, key, value, cu_seqlens)
        items, rows, width = query.shape
        if self._prefers_kernel(query):
            starts = _equal_starts(items, rows, query.device)
            q, k, v = (t.reshape(items * rows, width) for t in (query, key, value))
            return self._ragged(q, k, v, starts).view(items, rows, width)
        q, k, v = (
            t.view(items, rows, self.num_heads, self.head_size).transpose(1, 2)
            for t in (query, key, value)
        )
        with nullcontext() if query.is_cpu else sdpa_kernel(_GPU_BACKENDS, set_priority=True):
            attended = scaled_dot_product_attention(q, k, v, scale=self.scale)
        return attended.transpose(1, 2).reshape(items, rows, width)

    def _ragged(self, query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor) -> Tensor:
        heads = (-1, self.num_heads, self.head_size)
        out = ops.varlen_attention(
            query.view(heads), key.view(heads), value.view(heads), cu_seqlens, cu_seqlens,
            scale=self.scale,
        )  # fmt: skip
        return out.view(query.shape)

    def _prefers_kernel(self, query: Tensor) -> bool:
        if self.head_size not in ops.HEAD_DIMS:
            return False
        # Items of one size are torch's best case: in bfloat16 on AMX its kernel is up to 9x faster,
        # in float32 ours is up to 1.3x. Xeon, one thread, [5, 577, 16 x 64].
        if query.is_cpu:
            return query.dtype == torch.float32
        # H100: 0.90x to 1.14x cuDNN's speed, 1.2x to 2.6x that of torch's other kernels. float32 is
        # torch's.
        return query.dtype != torch.float32


# What torch computes a tower's attention on a GPU with, the best first.
_GPU_BACKENDS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


_captured_starts: dict[tuple[int, int, torch.device], Tensor] = {}


def _equal_starts(items: int, rows: int, device: torch.device) -> Tensor:
    starts = _new_starts(items, rows, device)
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        _captured_starts.setdefault((items, rows, device), starts)  # graphs go on reading them
    return starts


@lru_cache(maxsize=32)
def _new_starts(items: int, rows: int, device: torch.device) -> Tensor:
    return torch.arange(0, items * rows + 1, rows, dtype=torch.int32, device=device)
