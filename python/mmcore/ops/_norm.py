"""Normalisation of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcore import _C
from mmcore.ops._dispatch import is_traced, returned

__all__ = ["layer_norm", "rms_norm"]


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float = 1e-6,
    *,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Divide each row by its root mean square and scale it.

    Parameters
    ----------
    x
        [..., H].
    weight
        [H].
    eps
        Added to the mean square.
    residual
        [..., H]; `x` is added to it in place first, and the norm is of the sum.
    out
        [..., H], may be `x`; allocated when left out.

    Returns
    -------
    Tensor
        ``x / sqrt(mean(x ** 2) + eps) * weight``, of `x`'s shape and dtype.
    """
    if is_traced(x):
        return returned(_rms_norm_op(x, weight, residual, eps), out)
    return _run_rms_norm(x, weight, eps, residual, out)


def _run_rms_norm(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None, out: Tensor | None
) -> Tensor:
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.dim() == 2:
        _C.ops.rms_norm(x, weight, out, residual, eps)
    else:
        width = x.shape[-1]
        _C.ops.rms_norm(
            x.reshape(-1, width),
            weight,
            out.view(-1, width),
            None if residual is None else residual.view(-1, width),
            eps,
        )
    return out


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Shift each row to mean 0, scale it to variance 1, then apply weight and bias.

    Parameters
    ----------
    x
        [..., H].
    weight, bias
        [H].
    eps
        Added to the variance, whose divisor is H.
    out
        [..., H], may be `x`; allocated when left out.
    """
    if is_traced(x):
        return returned(_layer_norm_op(x, weight, bias, eps), out)
    return _run_layer_norm(x, weight, bias, eps, out)


def _run_layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, out: Tensor | None
) -> Tensor:
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    width = x.shape[-1]
    _C.ops.layer_norm(x.reshape(-1, width), weight, bias, out.view(-1, width), eps)
    return out


@torch.library.custom_op(
    "mmcore::rms_norm",
    mutates_args=("residual",),
    schema="(Tensor x, Tensor weight, Tensor(a!)? residual, float eps) -> Tensor",
)
def _rms_norm_op(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> Tensor:
    return _run_rms_norm(x, weight, eps, residual, None)


@_rms_norm_op.register_fake
def _(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op(
    "mmcore::layer_norm",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, float eps) -> Tensor",
)
def _layer_norm_op(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return _run_layer_norm(x, weight, bias, eps, None)


@_layer_norm_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return x.new_empty(x.shape)
