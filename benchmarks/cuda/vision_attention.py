"""Attention of image encoders: varlen_attention beside torch's on the same tensors."""

from __future__ import annotations

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
from mmcore.ops import varlen_attention

ENCODERS = {
    "CLIP 577x16x64": (577, 16, 64),
    "SigLIP 729x16x72": (729, 16, 72),
    "SmolVLM 1024x12x64": (1024, 12, 64),
    "Qwen-VL 1024x16x80": (1024, 16, 80),
}
"""Tokens of an image, heads, head dim."""

IMAGES = (1, 8, 32)

Calls = Sequence[Callable[[], object]]
Made = tuple[Calls, dict[str, Calls], Callable[[], float]]


class Batch:
    """One set of tensors; q, k and v are parts of one projection, as in an encoder."""

    def __init__(self, encoder: tuple[int, int, int], images: int, seed: int) -> None:
        self.tokens, heads, dim = encoder
        torch.manual_seed(seed)
        self.scale = dim**-0.5
        qkv = torch.randn(images * self.tokens, 3, heads, dim, dtype=torch.bfloat16, device="cuda")
        self.q, self.k, self.v = qkv.unbind(1)
        starts = torch.arange(images + 1, device="cuda", dtype=torch.int32)
        self.starts = starts * self.tokens
        self.out = torch.empty(images * self.tokens, heads, dim, dtype=qkv.dtype, device="cuda")
        self.split = qkv.view(images, self.tokens, 3, heads, dim).permute(2, 0, 3, 1, 4).unbind(0)

    def ours(self) -> torch.Tensor:
        """Run the op under test."""
        return varlen_attention(
            self.q, self.k, self.v, self.starts, self.starts, scale=self.scale, out=self.out
        )

    def error(self) -> float:
        """Root mean square of the error over that of the result, for the last image."""
        self.ours()
        rows = torch.arange(self.tokens, device="cuda")
        q, k, v = (t[-self.tokens :] for t in (self.q, self.k, self.v))
        want = expected_rows(q, k, v, rows, scale=self.scale, causal=False)
        got = self.out[-self.tokens :].double()
        return float(((got - want).square().sum() / want.square().sum()).sqrt())


def make(encoder: tuple[int, int, int], images: int) -> Made:
    """Build the tensors of one case."""
    tokens, heads, dim = encoder
    sets = [
        Batch(encoder, images, seed)
        for seed in range(buffer_sets(8 * images * tokens * heads * dim))
    ]
    rivals: dict[str, Calls] = {
        "sdpa flash": [sdpa_flash(*b.split, scale=b.scale, causal=False) for b in sets],
        "sdpa cudnn": [sdpa_cudnn(*b.split, scale=b.scale, causal=False) for b in sets],
    }
    return [b.ours for b in sets], usable(rivals), sets[0].error


def cases() -> list[Case]:
    """Encoders by number of images."""
    out = []
    for name, encoder in ENCODERS.items():
        for images in IMAGES:
            tokens, heads, dim = encoder
            flops = 4 * images * tokens * tokens * heads * dim
            out.append(
                Case(
                    "vision attention",
                    f"{name} b{images}",
                    lambda encoder=encoder, images=images: make(encoder, images),  # type: ignore[misc]
                    flops / FLOPS_PER_US,
                )
            )
    return out
