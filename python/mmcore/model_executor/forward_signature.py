"""What a model's ``forward`` wants besides the arguments that every step has."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["required_media_arguments"]

_OF_EVERY_STEP = {"self", "input_ids", "positions", "kv_caches", "attn_metadata"}


def required_media_arguments(model: nn.Module) -> dict[str, None]:
    """Name the arguments of ``forward`` that have no default, each with None.

    The seed documents declare ``pixel_values: torch.Tensor`` without a default; a step without
    media has to pass something.
    """
    parameters = inspect.signature(type(model).forward).parameters.values()
    return {
        p.name: None
        for p in parameters
        if p.default is p.empty
        and p.name not in _OF_EVERY_STEP
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
