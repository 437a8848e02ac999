"""torch's attention on contiguous tensors, and the answer in float64 for some rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["FLOPS_PER_US", "expected_rows", "sdpa_cudnn", "sdpa_flash", "usable"]

FLOPS_PER_US = 790e6
"""bfloat16 products of an H100 in large matrix multiplications."""

Call = Callable[[], object]


def sdpa_flash(q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool) -> Call:
    """Attend with FlashAttention 2 over [batch, heads, rows, dim]; causal from the last key."""
    op = torch.ops.aten._scaled_dot_product_flash_attention
    return lambda: op(q, k, v, 0.0, causal, return_debug_mask=False, scale=scale)


def sdpa_cudnn(q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool) -> Call:
    """Attend with cuDNN; causal from the first key, so for as many queries as keys."""

    def call() -> Tensor:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return F.scaled_dot_product_attention(
                q, k, v, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
            )

    return call


def usable(rivals: dict[str, Sequence[Call]]) -> dict[str, Sequence[Call]]:
    """Leave out rivals that do not support a shape, and say so."""
    kept = {}
    for name, calls in rivals.items():
        try:
            calls[0]()
            kept[name] = calls
        except RuntimeError as error:
            print(f"{name} left out: {str(error).splitlines()[0]}")
    return kept


def expected_rows(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, *, scale: float, causal: bool
) -> Tensor:
    """Attend in float64 for the queries `rows` of one sequence: [rows, heads, dim].

    Parameters
    ----------
    q, k, v
        [queries, heads, dim] and [keys, key/value heads, dim].
    """
    group = q.shape[1] // k.shape[1]
    out = torch.empty(rows.shape[0], *q.shape[1:], dtype=torch.float64, device=q.device)
    positions = rows + k.shape[0] - q.shape[0]
    hidden = torch.arange(k.shape[0], device=q.device)[None, :] > positions[:, None]
    for head in range(q.shape[1]):
        scores = q[rows, head].double() @ k[:, head // group].double().T * scale
        if causal:
            scores = scores.masked_fill(hidden, float("-inf"))
        out[:, head] = scores.softmax(-1) @ v[:, head // group].double()
    return out
