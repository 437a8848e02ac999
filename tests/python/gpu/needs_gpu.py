"""Marks of tests that run on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmcore import _C


def missing() -> str:
    """Say what a test on a GPU lacks here; nothing if it can run."""
    if not _C.with_cuda:
        return "this build of mmcore has no CUDA kernels (MMCORE_CUDA=on builds them)"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU"
    return ""


GPU = [pytest.mark.gpu, pytest.mark.skipif(bool(missing()), reason=missing() or "there is a GPU")]
"""For a file's ``pytestmark`` or a parameter's ``marks``."""


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    """Mark one test."""
    for mark in GPU:
        test = mark(test)
    return test
