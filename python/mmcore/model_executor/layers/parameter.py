"""Parameters that the loader fills, and the record of what it filled."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "WeightShapeError",
    "copy_weight",
    "empty_parameter",
    "expected_shards",
    "loaded_shards",
    "record_loaded",
    "set_weight_attrs",
]


class WeightShapeError(ValueError):
    """A tensor of a checkpoint does not have the shape of the parameter it belongs to.

    Parameters
    ----------
    found, expected
        The two shapes. The loader adds the tensor's name and file.
    """

    def __init__(self, found: Sequence[int], expected: Sequence[int]) -> None:
        self.found, self.expected = list(found), list(expected)
        super().__init__(f"shape {self.found}, expected {self.expected}")


def empty_parameter(*shape: int, dtype: torch.dtype | None = None) -> nn.Parameter:
    """Make a parameter without values: the loader writes all of it, so initialising is waste."""
    return nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)


def set_weight_attrs(weight: Tensor, weight_attrs: dict[str, Any] | None) -> None:
    """Set attributes of a parameter, such as its ``weight_loader``.

    Raises
    ------
    ValueError
        If it has one of them already.
    """
    for name, value in (weight_attrs or {}).items():
        if hasattr(weight, name):
            raise ValueError(f"The parameter has an attribute {name!r} already.")
        setattr(weight, name, value)


def copy_weight(target: Tensor, source: Tensor) -> None:
    """Copy a checkpoint's tensor into (a part of) a parameter, converting its dtype.

    Raises
    ------
    WeightShapeError
        If the shapes differ.
    """
    if target.shape != source.shape:
        if target.numel() == 1 and source.numel() == 1:
            source = source.reshape(target.shape)  # a scalar may be stored with or without an axis
        else:
            raise WeightShapeError(source.shape, target.shape)
    with torch.no_grad():
        target.copy_(source)


def record_loaded(param: Tensor, shard: Hashable = None) -> None:
    """Note that a parameter, or one shard of it, got its values."""
    shards: set[Hashable] | None = getattr(param, "mmcore_loaded", None)
    if shards is None:
        shards = set()
        param.mmcore_loaded = shards  # type: ignore[attr-defined]
    shards.add(shard)


def loaded_shards(param: Tensor) -> frozenset[Hashable]:
    """Give what :func:`record_loaded` noted; ``None`` in it stands for the whole parameter."""
    return frozenset(getattr(param, "mmcore_loaded", ()))


def expected_shards(param: Tensor) -> tuple[Hashable, ...]:
    """Give the shards that a checkpoint may deliver a parameter in; empty for one that is whole."""
    return tuple(getattr(param, "shard_ids", ()))
