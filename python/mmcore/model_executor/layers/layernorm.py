"""Normalisation layers."""

from __future__ import annotations

from typing import overload

from torch import Tensor, nn

from mmcore import ops
from mmcore.model_executor.layers.parameter import empty_parameter

__all__ = ["LayerNorm", "RMSNorm"]


class RMSNorm(nn.Module):
    """``x / rms(x) * weight``, with the residual addition in front of it fused.

    Parameters
    ----------
    hidden_size
        Width of a row.
    eps
        Added to the mean square.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = empty_parameter(hidden_size)
        self.variance_epsilon = eps

    @overload
    def forward(self, x: Tensor, residual: None = None) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Normalise `x`, or ``x + residual``.

        Parameters
        ----------
        x
            [..., hidden]. Overwritten with the result if there is a residual.
        residual
            [..., hidden]; `x` is added to it in place.

        Returns
        -------
        Tensor or tuple of Tensor
            The normalised rows; with a residual, also the residual.
        """
        if residual is None:
            return ops.rms_norm(x, self.weight, self.variance_epsilon)
        # The sum goes to the residual, so x is free to take the result.
        out = ops.rms_norm(x, self.weight, self.variance_epsilon, residual=residual, out=x)
        return out, residual

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return f"{self.weight.shape[0]}, eps={self.variance_epsilon}"


class LayerNorm(nn.Module):
    """Layer normalisation over the last dimension.

    Parameters
    ----------
    hidden_size
        Width of a row.
    eps
        Added to the variance.
    bias
        Whether there is one.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.weight = empty_parameter(hidden_size)
        self.bias = empty_parameter(hidden_size) if bias else None
        self.variance_epsilon = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the rows of `x`, [..., hidden]."""
        return ops.layer_norm(x, self.weight, self.bias, self.variance_epsilon)

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return f"{self.weight.shape[0]}, eps={self.variance_epsilon}, bias={self.bias is not None}"
