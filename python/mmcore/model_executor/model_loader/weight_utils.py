"""Filling parameters with a checkpoint's tensors, or with random numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcore.model_executor.layers.parameter import copy_weight, record_loaded

__all__ = ["default_weight_loader", "initialize_dummy_weights"]

# Random numbers are drawn once and tiled: drawing billions would take longer than loading them.
_DUMMY_BLOCK = 1 << 20


def default_weight_loader(param: Tensor, loaded_weight: Tensor) -> None:
    """Copy a tensor into a parameter of the same shape, converting its dtype.

    Raises
    ------
    WeightShapeError
        If the shapes differ.
    """
    copy_weight(param, loaded_weight)
    record_loaded(param)


def initialize_dummy_weights(model: nn.Module, seed: int = 0) -> None:
    """Fill every parameter with small random numbers, the same for the same seed.

    Vectors named ``weight`` are norms' and get values around one, so that activations keep a
    sensible size.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(_DUMMY_BLOCK, generator=generator, device="cpu") * 0.02
    blocks: dict[tuple[float, torch.dtype, torch.device], Tensor] = {}
    offset = 0
    with torch.no_grad():
        for name, param in model.named_parameters():
            mean = 1.0 if param.dim() == 1 and name.endswith("weight") else 0.0
            key = (mean, param.dtype, param.device)
            block = blocks.get(key)
            if block is None:
                block = blocks[key] = (drawn + mean).to(device=param.device, dtype=param.dtype)
            flat = param.view(-1)
            done = 0
            while done < flat.numel():
                count = min(flat.numel() - done, _DUMMY_BLOCK - offset)
                flat[done : done + count].copy_(block[offset : offset + count])
                done += count
                offset = (offset + count) % _DUMMY_BLOCK
            record_loaded(param)
