"""Linear layers of a 7B decoder, from one token to a prefill, against torch (cuBLAS)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.cuda.graph_timing import buffer_sets
from benchmarks.cuda.rows import Calls, Made, bound, random, relative_error
from benchmarks.cuda.table import Case
from mmcore._C import ops

__all__ = ["cases"]

TOKENS = (1, 4, 8, 16, 32, 64, 512, 2048)
LAYERS = {
    "qkv": (4096, 12288),
    "o": (4096, 4096),
    "gate_up": (4096, 22016),
    "down": (11008, 4096),
    "lm_head": (4096, 32064),
}
"""Inputs and outputs of a Llama-7B's layers."""
READ_BYTES_PER_US = 3.1e6
LAUNCH_US = 2.2
FLOP_PER_US = 790e6
"""An H100's memory, read only, and its tensor cores as cuBLAS drives them for a short while."""


def cases() -> list[Case]:
    """List the layers at decode and prefill sizes."""
    torch.manual_seed(0)
    return [linear(name, tokens) for tokens in TOKENS for name in LAYERS]


def linear(name: str, tokens: int) -> Case:
    """out = x weight^T."""
    inputs, outputs = LAYERS[name]
    moved = 2 * (tokens * inputs + inputs * outputs + tokens * outputs)
    floor = max(moved / READ_BYTES_PER_US + LAUNCH_US, 2 * tokens * inputs * outputs / FLOP_PER_US)

    def make() -> Made:
        sets = [
            (
                random(tokens, inputs),
                random(outputs, inputs) / inputs**0.5,
                torch.empty(tokens, outputs, device="cuda").bfloat16(),
            )
            for _ in range(buffer_sets(moved))
        ]

        def check() -> float:
            x, weight, out = sets[0]
            ops.linear(x, weight, None, out)
            return relative_error(out, x.double() @ weight.double().T)

        none = ops.ACTIVATIONS["none"]
        ours: Calls = [  # weights that are steady, as a model's layers say of theirs
            bound(ops.linear, (x, weight, None, out, None, none, True)) for x, weight, out in sets
        ]
        return ours, {"torch": [bound(F.linear, (x, weight)) for x, weight, _ in sets]}, check

    return Case("linear " + name, f"[{tokens}, {inputs}] x [{outputs}, {inputs}]", make, floor)
