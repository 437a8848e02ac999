"""Activation functions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmcore import _C
from mmcore.ops._dispatch import is_traced, returned

__all__ = ["ACTIVATIONS", "activation", "activation_mul", "activation_number", "silu_mul"]

ACTIVATIONS: Mapping[str, int] = dict(_C.ops.ACTIVATIONS)
"""The kernels' activations by name: none, gelu (erf), gelu_tanh, quick_gelu, silu, relu."""


def activation_number(name: str) -> int:
    """Give the number that the kernels know an activation by.

    Raises
    ------
    ValueError
        If the kernels have none of that name.
    """
    number = ACTIVATIONS.get(name)
    if number is None:
        raise ValueError(f"No kernel for activation {name!r}; known: {', '.join(ACTIVATIONS)}.")
    return number


def activation(x: Tensor, act: str, *, out: Tensor | None = None) -> Tensor:
    """Apply an activation to every element.

    Parameters
    ----------
    x
        Any shape.
    act
        A name of :data:`ACTIVATIONS`: ``"gelu"`` is ``x / 2 (1 + erf(x / sqrt 2))``,
        ``"gelu_tanh"`` its tanh form, ``"quick_gelu"`` ``x sigmoid(1.702 x)``.
    out
        Of `x`'s shape, may be `x`; allocated when left out.
    """
    number = activation_number(act)
    if is_traced(x):
        return returned(_activation_op(x, act), out)
    return _run_activation(x, number, out)


def _run_activation(x: Tensor, number: int, out: Tensor | None) -> Tensor:
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    _C.ops.activation(x, number, out)
    return out


def activation_mul(x: Tensor, act: str, *, out: Tensor | None = None) -> Tensor:
    """Multiply the activated first half of each row with its second half.

    Parameters
    ----------
    x
        [..., 2 I]: gate, then up.
    act
        A name of :data:`ACTIVATIONS`.
    out
        [..., I]; allocated when left out.

    Returns
    -------
    Tensor
        ``act(gate) * up``, [..., I].
    """
    number = activation_number(act)
    if is_traced(x):
        return returned(_activation_mul_op(x, act), out)
    return _run_activation_mul(x, number, out)


def _run_activation_mul(x: Tensor, number: int, out: Tensor | None) -> Tensor:
    width = x.shape[-1]
    if out is None:
        out = x.new_empty((*x.shape[:-1], width // 2))
    if x.dim() == 2:
        _C.ops.activation_mul(x, number, out)
    else:
        _C.ops.activation_mul(x.reshape(-1, width), number, out.view(-1, width // 2))
    return out


def silu_mul(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Apply SwiGLU: :func:`activation_mul` with ``"silu"``."""
    return activation_mul(x, "silu", out=out)


@torch.library.custom_op(
    "mmcore::activation", mutates_args=(), schema="(Tensor x, str act) -> Tensor"
)
def _activation_op(x: Tensor, act: str) -> Tensor:
    return _run_activation(x, activation_number(act), None)


@_activation_op.register_fake
def _(x: Tensor, act: str) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op(
    "mmcore::activation_mul", mutates_args=(), schema="(Tensor x, str act) -> Tensor"
)
def _activation_mul_op(x: Tensor, act: str) -> Tensor:
    return _run_activation_mul(x, activation_number(act), None)


@_activation_mul_op.register_fake
def _(x: Tensor, act: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))
