"""The frequencies of rotary embeddings, and the scalings that stretch them to longer contexts.

Each function follows the numbers that Hugging Face transformers computes, in float32, so that a
checkpoint rotates here by the same angles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmcore.errors import CheckpointError

__all__ = ["ROPE_TYPES", "rope_angles", "table_rows"]

Scaling = Mapping[str, Any]


def _inverse_frequencies(dim: int, base: float) -> Tensor:
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).to(torch.float32) / dim
    return torch.reciprocal(base**exponents)


def _positions(rows: int) -> Tensor:
    return torch.arange(rows, dtype=torch.float32)


def _outer(rows: int, inv_freq: Tensor) -> Tensor:
    return _positions(rows)[:, None] * inv_freq


def _number(scaling: Scaling, name: str, default: float | None = None) -> float:
    value = scaling.get(name)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CheckpointError(
            f"RoPE scaling {dict(scaling)} needs a number {name!r}, got {value!r}; "
            "correct rope_parameters (or rope_scaling) in config.json."
        )
    return float(value)


def _default(dim: int, base: float, rows: int, max_position: int, scaling: Scaling) -> Tensor:
    return _outer(rows, _inverse_frequencies(dim, base))


def _linear(dim: int, base: float, rows: int, max_position: int, scaling: Scaling) -> Tensor:
    return _outer(rows, _inverse_frequencies(dim, base) / _number(scaling, "factor"))


def _dynamic(dim: int, base: float, rows: int, max_position: int, scaling: Scaling) -> Tensor:
    # The base grows with the sequence. Row p has the base of a sequence that ends at p, as when it
    # is generated token by token: a function of the position alone, so that batches, chunks and
    # cached prefixes agree.
    factor = _number(scaling, "factor")
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).to(torch.float32) / dim
    lengths = (_positions(rows) + 1).clamp(min=max_position)
    stretch = factor * lengths / max_position - (factor - 1)
    bases = base * stretch ** (dim / (dim - 2))
    return _positions(rows)[:, None] / bases[:, None] ** exponents


def _llama3(dim: int, base: float, rows: int, max_position: int, scaling: Scaling) -> Tensor:
    inv_freq = _inverse_frequencies(dim, base)
    factor = _number(scaling, "factor")
    low, high = _number(scaling, "low_freq_factor"), _number(scaling, "high_freq_factor")
    original = _number(scaling, "original_max_position_embeddings", max_position)
    wavelength = 2 * math.pi / inv_freq
    # Short waves stay, long ones are slowed down by `factor`, those between are blended.
    slowed = torch.where(wavelength > original / low, inv_freq / factor, inv_freq)
    smooth = (original / wavelength - low) / (high - low)
    blended = (1 - smooth) * slowed / factor + smooth * slowed
    between = (wavelength >= original / high) & (wavelength <= original / low)
    return _outer(rows, torch.where(between, blended, slowed))


def _yarn(dim: int, base: float, rows: int, max_position: int, scaling: Scaling) -> Tensor:
    original = _number(scaling, "original_max_position_embeddings", max_position)
    factor = _number(scaling, "factor", max_position / original)
    beta_fast = _number(scaling, "beta_fast") if scaling.get("beta_fast") else 32.0
    beta_slow = _number(scaling, "beta_slow") if scaling.get("beta_slow") else 1.0

    def dimension_of(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = dimension_of(beta_fast), dimension_of(beta_slow)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # a ramp needs a width
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)

    waves = base ** (torch.arange(0, dim, 2).to(torch.float32) / dim)
    kept = 1 - ramp  # 1: as trained; 0: slowed down by `factor`
    return _outer(rows, 1.0 / (factor * waves) * (1 - kept) + 1.0 / waves * kept)


def _yarn_attention_factor(max_position: int, scaling: Scaling) -> float:
    given = scaling.get("attention_factor")
    if given is not None:
        return float(given)
    original = _number(scaling, "original_max_position_embeddings", max_position)
    factor = _number(scaling, "factor", max_position / original)

    def mscale(weight: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    one, all_dims = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return mscale(one) / mscale(all_dims) if one and all_dims else mscale()


_ANGLES: Mapping[str, Callable[[int, float, int, int, Scaling], Tensor]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
}
ROPE_TYPES = tuple(_ANGLES)
"""The kinds of rotary embedding that :func:`rope_angles` knows."""


def _check_type(rope_type: str) -> None:
    if rope_type not in _ANGLES:
        raise CheckpointError(
            f"RoPE type {rope_type!r} is not supported; known: {', '.join(ROPE_TYPES)}."
        )


def table_rows(rope_type: str, max_position: int, scaling: Scaling) -> int:
    """Count the positions that an embedding is made for."""
    _check_type(rope_type)
    if rope_type in ("linear", "dynamic"):
        return max(max_position, int(max_position * _number(scaling, "factor")))
    if rope_type == "yarn":
        original = _number(scaling, "original_max_position_embeddings", max_position)
        factor = _number(scaling, "factor", max_position / original)
        return max(max_position, int(original * factor))
    return max_position


def rope_angles(
    rope_type: str, dim: int, base: float, max_position: int, scaling: Scaling
) -> tuple[Tensor, float]:
    """Give the angle of each position and frequency, and the factor of their cosines and sines.

    Parameters
    ----------
    rope_type
        One of :data:`ROPE_TYPES`.
    dim
        Dimensions that are rotated, even.
    base
        The longest wave's base, ``rope_theta``.
    max_position
        ``max_position_embeddings`` of config.json.
    scaling
        The scaling's numbers, as in config.json.

    Returns
    -------
    tuple
        float32 [positions, dim / 2], and a number.

    Raises
    ------
    CheckpointError
        If the type is unknown or a number is missing.
    """
    rows = table_rows(rope_type, max_position, scaling)
    angles = _ANGLES[rope_type](dim, base, rows, max_position, scaling)
    factor = _yarn_attention_factor(max_position, scaling) if rope_type == "yarn" else 1.0
    return angles, factor
