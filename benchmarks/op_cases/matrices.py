"""Matrix products: linear layers at decode and prefill sizes, and the vision projector."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from benchmarks.op_cases.case import Case, nbytes
from mmcore._C import ops

ACT = ops.ACTIVATIONS
# (tokens, in, out): SmolLM2-135M's layers and its output head, then Llama-8B's.
SIZES = (
    (1, 576, 960), (32, 576, 960), (1, 576, 3072), (32, 576, 3072), (512, 576, 3072),
    (1, 1536, 576), (32, 1536, 576), (1, 576, 49152), (32, 576, 49152),
    (1, 4096, 4096), (32, 4096, 4096), (128, 4096, 4096),
)  # fmt: skip


def matrix_cases(dtype: torch.dtype) -> Iterator[Case]:
    """Yield linear layers and projectors."""
    for tokens, inputs, outputs in SIZES:
        yield linear(tokens, inputs, outputs, dtype)
    yield linear_gelu(577, 1024, 4096, dtype)
    yield vision_projector(64, 64, 128, 128, dtype)
    yield vision_projector(576, 1024, 4096, 4096, dtype)


def linear(tokens: int, inputs: int, outputs: int, dtype: torch.dtype) -> Case:
    """out = x weight^T."""
    x, weight = torch.randn(tokens, inputs).to(dtype), random_weight(outputs, inputs, dtype)
    out = torch.empty(tokens, outputs, dtype=dtype)
    return Case(
        "linear", f"[{tokens}, {inputs}] x [{outputs}, {inputs}]", dtype,
        ours=lambda: ops.linear(x, weight, None, out),
        theirs=lambda: F.linear(x, weight),
        result=lambda: [out],
        expected=lambda: [x.double() @ weight.double().T],
        moved_bytes=nbytes(x, weight, out),
        flops=2 * tokens * inputs * outputs,
    )  # fmt: skip


def linear_gelu(tokens: int, inputs: int, outputs: int, dtype: torch.dtype) -> Case:
    """A tower's first MLP layer: bias and activation in the same pass."""
    x, weight = torch.randn(tokens, inputs).to(dtype), random_weight(outputs, inputs, dtype)
    bias, out = torch.randn(outputs).to(dtype), torch.empty(tokens, outputs, dtype=dtype)
    return Case(
        "linear + gelu", f"[{tokens}, {inputs}] x [{outputs}, {inputs}]", dtype,
        ours=lambda: ops.linear(x, weight, bias, out, act=ACT["gelu"]),
        theirs=lambda: F.gelu(F.linear(x, weight, bias)),
        result=lambda: [out],
        expected=lambda: [F.gelu(x.double() @ weight.double().T + bias.double())],
        moved_bytes=nbytes(x, weight, bias, out),
        flops=2 * tokens * inputs * outputs,
    )  # fmt: skip


def vision_projector(tokens: int, inputs: int, inner: int, hidden: int, dtype: torch.dtype) -> Case:
    """LLaVA-1.5's projector, written straight into the decoder's rows."""
    x = torch.randn(tokens, inputs).to(dtype)
    w1, w2 = random_weight(inner, inputs, dtype), random_weight(hidden, inner, dtype)
    b1, b2 = torch.randn(inner).to(dtype), torch.randn(hidden).to(dtype)
    rows = torch.arange(tokens) + 5
    out = torch.zeros(tokens + 64, hidden, dtype=dtype)
    theirs = torch.zeros_like(out)
    size = ops.vision_projector_workspace_bytes(tokens, inner, x)
    workspace = torch.empty(size, dtype=torch.uint8)

    def expected() -> list[torch.Tensor]:
        # The intermediate rounds to the dtype, as it does between two layers.
        middle = F.gelu(x.double() @ w1.double().T + b1.double()).to(dtype).double()
        return [middle @ w2.double().T + b2.double()]

    return Case(
        "vision_projector", f"[{tokens}, {inputs}] -> {inner} -> {hidden}", dtype,
        ours=lambda: ops.vision_projector(
            x, w1, b1, w2, b2, rows, out, workspace, act=ACT["gelu"]
        ),
        theirs=lambda: theirs.index_copy_(
            0, rows, F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)
        ),
        result=lambda: [out[5 : 5 + tokens]],
        expected=expected,
        moved_bytes=nbytes(x, w1, b1, w2, b2) + tokens * hidden * x.element_size(),
        flops=2 * tokens * inner * (inputs + hidden),
    )  # fmt: skip


def random_weight(outputs: int, inputs: int, dtype: torch.dtype) -> torch.Tensor:
    """Draw weights that keep the size of activations, as trained ones do."""
    return (torch.randn(outputs, inputs) / inputs**0.5).to(dtype)
