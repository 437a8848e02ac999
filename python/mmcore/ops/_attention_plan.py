"""How a step of paged attention is divided over a GPU: made on the CPU, once for all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmcore import _C

__all__ = ["AttentionPlanShape"]


@dataclass(frozen=True, slots=True)
class AttentionPlanShape:
    """What plans of :func:`~mmcore.ops.paged_attention` on a GPU depend on besides the lengths.

    Sizes and launches depend on nothing else: one CUDA graph serves all lengths within a shape.
    Layers with the same shape share a plan; each other `window` or `causal` needs its own.

    Parameters
    ----------
    sequences
        Entries of the calls' `seq_lens`: the size of a bucket.
    tokens
        Rows of the calls' `q`.
    max_query_len
        No sequence has more queries; 0 for any number. Give 1 for a batch of decodes: nothing is
        launched for prefills then.
    heads, kv_heads, head_dim
        Of `q` and the cache.
    window, causal
        As in the calls.
    multiprocessors
        ``torch.cuda.get_device_properties(device).multi_processor_count``.
    """

    sequences: int
    tokens: int
    max_query_len: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int
    causal: bool
    multiprocessors: int

    @classmethod
    def of(
        cls,
        q: Tensor,
        k_cache: Tensor,
        seq_lens: Tensor,
        *,
        max_query_len: int = 0,
        window: int = 0,
        causal: bool = True,
    ) -> AttentionPlanShape:
        """Read the shape off the tensors of a call."""
        return cls(
            sequences=seq_lens.shape[0],
            tokens=q.shape[0],
            max_query_len=max_query_len,
            heads=q.shape[1],
            kv_heads=k_cache.shape[2],
            head_dim=q.shape[2],
            window=window,
            causal=causal,
            multiprocessors=torch.cuda.get_device_properties(q.device).multi_processor_count,
        )

    def _values(self) -> tuple[int, int, int, int, int, int, int, bool, int]:
        return (
            self.sequences,
            self.tokens,
            self.max_query_len,
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.window,
            self.causal,
            self.multiprocessors,
        )

    @property
    def plan_words(self) -> int:
        """int32 words of a plan; -1 if no kernel takes the shape."""
        return int(_C.ops.attention_plan_words(*self._values()))

    @property
    def workspace_bytes(self) -> int:
        """Bytes of a workspace, of any content; calls one after the other may share one."""
        return int(_C.ops.paged_attention_workspace_bytes(*self._values()))

    def plan(
        self, query_start: Any, seq_lens: Any, out: Tensor | None = None, *, settled: bool = False
    ) -> Tensor:
        """Write the plan of one step.

        Parameters
        ----------
        query_start, seq_lens
            int32 [n + 1] and [n] in the CPU's memory, tensors or numpy arrays, with n at most
            `sequences`: what is missing is empty, whatever the tensors of the calls hold there.
        out
            int32 [>= ``plan_words``] in the CPU's memory, as for a pinned buffer that is copied to
            the GPU without waiting; allocated when left out. It must not change until that copy has
            been made.
        settled
            Whether the kernel in front of each call writes no keys or values that the call reads
            but those of its sequences' own query tokens: as :func:`~mmcore.ops.rope_kv_write` in a
            step in which no sequence shares a block with another that fills it. The older ones are
            then read while that kernel may still run.

        Returns
        -------
        Tensor
            `out`. Copy its first ``plan_words`` words to the GPU, on the stream of the calls,
            before the first of them. The copy serves all layers of a step, and later steps whose
            lengths are the same.

        Raises
        ------
        ValidationError
            If the lengths do not fit the shape or each other.
        """
        if out is None:
            out = torch.empty(max(0, self.plan_words), dtype=torch.int32)
        _C.ops.plan_paged_attention(query_start, seq_lens, out, *self._values(), settled)
        return out
