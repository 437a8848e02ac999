"""From the host's memory to a device, without waiting for what the device has to do before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["to_device"]


def to_device(tensor: torch.Tensor, device: torch.types.Device) -> torch.Tensor:
    """Give a tensor of the host on a device.

    What lies in ordinary memory is copied to pinned memory first: from there the copy engine reads
    by itself, in the order of the stream, while the host goes on. The tensor may be overwritten at
    once. torch keeps the pinned memory until the copy is made, and uses it again.
    """
    import torch

    if not tensor.is_cpu or device is None or torch.device(device).type != "cuda":
        return tensor if device is None else tensor.to(device)
    if not tensor.is_pinned():
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        if tensor.dtype == torch.uint8:  # numpy copies at once, where torch wakes its threads up
            pinned.numpy()[...] = tensor.numpy()
        else:
            pinned.copy_(tensor)
        tensor = pinned
    return tensor.to(device, non_blocking=True)
