"""LLaVA-1.5's projector, written into the decoder's rows, against torch's ways to do so.

"products alone" is no rival but what the two matrix products take in cuBLAS: without bias,
activation, and the way to the decoder's rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cuda.graph_timing import buffer_sets
from benchmarks.cuda.rows import Calls, Made, bound, compiled, random, relative_error
from benchmarks.cuda.table import Case
from mmcore._C import ops

__all__ = ["cases"]

FEATURES, INNER, HIDDEN = 1024, 4096, 4096
PATCHES, TEXT = 576, 65
"""Rows of a picture and of the text around it."""
FLOP_PER_US = 790e6


def cases() -> list[Case]:
    """List the projector for 1, 8 and 32 pictures."""
    torch.manual_seed(0)
    return [projector(images) for images in (1, 8, 32)]


def projector(images: int) -> Case:
    """out[rows] = gelu(x w1^T + b1) w2^T + b2."""
    tokens = images * PATCHES
    flop = 2 * tokens * INNER * (FEATURES + HIDDEN)
    moved = 2 * (tokens * (FEATURES + 2 * INNER + HIDDEN) + INNER * (FEATURES + HIDDEN))

    def make() -> Made:
        w1, b1 = random(INNER, FEATURES) / FEATURES**0.5, random(INNER)
        w2, b2 = random(HIDDEN, INNER) / INNER**0.5, random(HIDDEN)
        all_rows = images * (PATCHES + TEXT)
        rows = torch.cat(
            [torch.arange(PATCHES) + i * (PATCHES + TEXT) + 5 for i in range(images)]
        ).cuda()
        is_picture = torch.zeros(all_rows, dtype=torch.bool, device="cuda")
        is_picture[rows] = True
        sets = [(random(tokens, FEATURES), random(all_rows, HIDDEN)) for _ in range(
            buffer_sets(moved, 4)
        )]  # fmt: skip
        size = ops.vision_projector_workspace_bytes(tokens, INNER, w1)
        workspace = torch.empty(size, dtype=torch.uint8, device="cuda")

        def project(x: Tensor) -> Tensor:
            return F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)

        def copied(x: Tensor, embeddings: Tensor) -> Tensor:
            return embeddings.index_copy_(0, rows, project(x))

        def scattered(x: Tensor, embeddings: Tensor) -> Tensor:
            return embeddings.masked_scatter(
                is_picture.unsqueeze(-1).expand_as(embeddings), project(x)
            )

        def fused(x: Tensor, embeddings: Tensor) -> None:
            act = ops.ACTIVATIONS["gelu"]
            ops.vision_projector(x, w1, b1, w2, b2, rows, embeddings, workspace, act)

        def products(x: Tensor) -> Tensor:
            return F.linear(F.linear(x, w1), w2)

        def check() -> float:
            x, embeddings = sets[0]
            before = embeddings.clone()
            fused(x, embeddings)
            # The intermediate rounds to the dtype, as it does between two layers.
            middle = F.gelu(x.double() @ w1.double().T + b1.double()).bfloat16()
            want = middle.double() @ w2.double().T + b2.double()
            text = ~is_picture
            if not torch.equal(embeddings[text], before[text]):
                return float("inf")
            return relative_error(embeddings[rows], want)

        rivals: dict[str, Calls] = {
            "products alone": [bound(products, s[:1]) for s in sets],
            "index_copy": [bound(copied, s) for s in sets],
            "masked_scatter": [bound(scattered, s) for s in sets],
        }
        fast = compiled(copied, *sets[0])
        if fast is not None:
            rivals["torch.compile"] = [bound(fast, s) for s in sets]
        return [bound(fused, s) for s in sets], rivals, check

    shape = f"{images} x [{PATCHES}, {FEATURES}] -> {INNER} -> {HIDDEN}"
    return Case("vision_projector", shape, make, flop / FLOP_PER_US)
