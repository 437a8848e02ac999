"""Making model objects, whose constructors take different sets of arguments."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

__all__ = ["accepted_arguments", "construct_model", "default_dtype"]


def accepted_arguments(model_cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Keep the arguments that a constructor names, or all if it takes ``**kwargs``."""
    parameters = inspect.signature(model_cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in parameters}


def construct_model(model_cls: type[nn.Module], config: Any, **arguments: Any) -> nn.Module:
    """Make a model with as many of the arguments as its constructor takes.

    Parameters
    ----------
    config
        Its part of the Hugging Face configuration.
    arguments
        Any of the seed era's: multimodal_config, cache_config, quant_config, lora_config,
        scheduler_config, prefix.
    """
    return model_cls(**accepted_arguments(model_cls, {"config": config, **arguments}))


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make parameters of this dtype unless they ask for another one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
