"""Ops that work row by row: norms, activations, the embedding merge."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from benchmarks.op_cases.case import Case, nbytes
from mmcore._C import ops

ACT = ops.ACTIVATIONS
# (tokens, hidden): SmolLM2-135M and Llama-8B, one decode, a batch of decodes, a prefill.
SIZES = ((1, 576), (32, 576), (512, 576), (1, 4096), (32, 4096), (512, 4096))


def row_cases(dtype: torch.dtype) -> Iterator[Case]:
    """Yield norms, activations and the merge."""
    for tokens, hidden in SIZES:
        yield rms_norm(tokens, hidden, dtype)
        yield add_rms_norm(tokens, hidden, dtype)
    yield layer_norm(577, 1024, dtype)
    yield gelu_tanh(577, 4304, dtype)
    yield quick_gelu(577, 4096, dtype)
    for tokens, inner in ((1, 1536), (32, 1536), (512, 1536), (512, 14336)):
        yield silu_mul(tokens, inner, dtype)
    yield embedding_merge(640, 576, 32064, 4096, dtype)


def rms_norm(tokens: int, hidden: int, dtype: torch.dtype) -> Case:
    """out = x / rms(x) * weight."""
    x, weight = torch.randn(tokens, hidden).to(dtype), torch.rand(hidden).to(dtype)
    out = torch.empty_like(x)
    return Case(
        "rms_norm", f"[{tokens}, {hidden}]", dtype,
        ours=lambda: ops.rms_norm(x, weight, out, None, 1e-6),
        theirs=lambda: F.rms_norm(x, (hidden,), weight, 1e-6),
        result=lambda: [out],
        expected=lambda: [F.rms_norm(x.double(), (hidden,), weight.double(), 1e-6)],
        moved_bytes=nbytes(x, weight, out),
    )  # fmt: skip


def add_rms_norm(tokens: int, hidden: int, dtype: torch.dtype) -> Case:
    """residual += x, then its norm."""
    # Zeros are added, so that the residual stays the same however often the case runs.
    x, weight = torch.zeros(tokens, hidden, dtype=dtype), torch.rand(hidden).to(dtype)
    residual, out = torch.randn(tokens, hidden).to(dtype), torch.empty_like(x)
    return Case(
        "rms_norm + residual", f"[{tokens}, {hidden}]", dtype,
        ours=lambda: ops.rms_norm(x, weight, out, residual, 1e-6),
        theirs=lambda: F.rms_norm(residual.add_(x), (hidden,), weight, 1e-6),
        result=lambda: [out, residual],
        expected=lambda: [
            F.rms_norm((residual + x).double(), (hidden,), weight.double(), 1e-6), residual + x
        ],
        moved_bytes=nbytes(x, weight, residual, residual, out),
    )  # fmt: skip


def layer_norm(tokens: int, hidden: int, dtype: torch.dtype) -> Case:
    """The vision tower's norm."""
    x = torch.randn(tokens, hidden).to(dtype)
    weight, bias = torch.rand(hidden).to(dtype), torch.rand(hidden).to(dtype)
    out = torch.empty_like(x)
    return Case(
        "layer_norm", f"[{tokens}, {hidden}]", dtype,
        ours=lambda: ops.layer_norm(x, weight, bias, out, 1e-5),
        theirs=lambda: F.layer_norm(x, (hidden,), weight, bias, 1e-5),
        result=lambda: [out],
        expected=lambda: [
            F.layer_norm(x.double(), (hidden,), weight.double(), bias.double(), 1e-5)
        ],
        moved_bytes=nbytes(x, weight, bias, out),
    )  # fmt: skip


def gelu_tanh(tokens: int, inner: int, dtype: torch.dtype) -> Case:
    """SigLIP's activation."""
    x = torch.randn(tokens, inner).to(dtype)
    out = torch.empty_like(x)
    return Case(
        "gelu_tanh", f"[{tokens}, {inner}]", dtype,
        ours=lambda: ops.activation(x, ACT["gelu_tanh"], out),
        theirs=lambda: F.gelu(x, approximate="tanh"),
        result=lambda: [out],
        expected=lambda: [F.gelu(x.double(), approximate="tanh")],
        moved_bytes=nbytes(x, out),
    )  # fmt: skip


def quick_gelu(tokens: int, inner: int, dtype: torch.dtype) -> Case:
    """CLIP's activation."""
    x = torch.randn(tokens, inner).to(dtype)
    out = torch.empty_like(x)
    return Case(
        "quick_gelu", f"[{tokens}, {inner}]", dtype,
        ours=lambda: ops.activation(x, ACT["quick_gelu"], out),
        theirs=lambda: x * torch.sigmoid(1.702 * x),
        result=lambda: [out],
        expected=lambda: [x.double() * torch.sigmoid(1.702 * x.double())],
        moved_bytes=nbytes(x, out),
    )  # fmt: skip


def silu_mul(tokens: int, inner: int, dtype: torch.dtype) -> Case:
    """The decoders' gated activation."""
    x = torch.randn(tokens, 2 * inner).to(dtype)
    out = torch.empty(tokens, inner, dtype=dtype)
    return Case(
        "silu_mul", f"[{tokens}, 2 x {inner}]", dtype,
        ours=lambda: ops.activation_mul(x, ACT["silu"], out),
        theirs=lambda: F.silu(x[:, :inner]) * x[:, inner:],
        result=lambda: [out],
        expected=lambda: [F.silu(x[:, :inner].double()) * x[:, inner:].double()],
        moved_bytes=nbytes(x, out),
    )  # fmt: skip


def embedding_merge(tokens: int, rows: int, vocab: int, hidden: int, dtype: torch.dtype) -> Case:
    """Text rows from the table, image rows from the encoder."""
    table, media = torch.randn(vocab, hidden).to(dtype), torch.randn(rows, hidden).to(dtype)
    ids = torch.randint(vocab, (tokens,))
    source = torch.full((tokens,), -1)
    source[5 : 5 + rows] = torch.arange(rows)
    is_media = source >= 0
    out = torch.empty(tokens, hidden, dtype=dtype)

    def merged() -> torch.Tensor:
        embedded = F.embedding(ids, table)
        embedded[is_media] = media
        return embedded

    return Case(
        "embedding_merge", f"[{tokens}, {hidden}], {rows} of media", dtype,
        ours=lambda: ops.embedding_merge(ids, table, source, media, out),
        theirs=merged,
        result=lambda: [out],
        expected=lambda: [merged()],
        moved_bytes=2 * nbytes(out),
    )  # fmt: skip
