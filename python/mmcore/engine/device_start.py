"""Wakes a GPU up while Python is still importing."""

from __future__ import annotations

import logging
import threading

from mmcore.config import DeviceConfig
from mmcore.errors import MmcoreError

__all__ = ["start_device"]

logger = logging.getLogger(__name__)


def start_device(device: str) -> threading.Thread | None:
    """Begin to set CUDA up, in a thread of its own; None where there is nothing to do.

    The driver takes some tenths of a second for that, in which it needs nothing of Python. Whoever
    uses the device first waits for the rest. What goes wrong is told there, too.
    """
    try:
        config = DeviceConfig(device)
        if config.device_type != "cuda":
            return None
    except MmcoreError:
        return None
    import torch  # noqa: F401  # before the thread needs it: two threads must not import it

    name = "cuda" if config.device == "auto" else config.device
    thread = threading.Thread(target=_touch, args=(name,), name="mmcore-device", daemon=True)
    thread.start()
    return thread


def _touch(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        logger.debug("%s does not start: %s", device, error)
