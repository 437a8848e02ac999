"""Activation layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmcore import ops
from mmcore.errors import CheckpointError

__all__ = [
    "Activation",
    "FastGELU",
    "GeluAndMul",
    "NewGELU",
    "QuickGELU",
    "SiluAndMul",
    "get_act_fn",
    "kernel_activation",
]

# Names in Hugging Face configurations -> names of the kernels.
_KERNELS: Mapping[str, str] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "linear": "none",
}


def kernel_activation(name: str) -> str:
    """Translate the activation of a configuration into the kernels' name for it.

    Raises
    ------
    CheckpointError
        If there is no kernel for it.
    """
    kernel = _KERNELS.get(name.lower())
    if kernel is None:
        raise CheckpointError(
            f"Activation function {name!r} is not supported; known: {', '.join(_KERNELS)}."
        )
    return kernel


class Activation(nn.Module):
    """An activation by the name that configurations use for it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.kernel = kernel_activation(name)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to every element of `x`, of any shape."""
        return ops.activation(x, self.kernel)

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return self.kernel


class NewGELU(Activation):
    """GELU in its tanh form, as GPT-2 has it."""

    def __init__(self) -> None:
        super().__init__("gelu_new")


class FastGELU(Activation):
    """GELU in its tanh form."""

    def __init__(self) -> None:
        super().__init__("gelu_fast")


class QuickGELU(Activation):
    """``x * sigmoid(1.702 x)``, as CLIP has it."""

    def __init__(self) -> None:
        super().__init__("quick_gelu")


class SiluAndMul(nn.Module):
    """SwiGLU: ``silu(x[..., :d]) * x[..., d:]``, [..., 2 d] to [..., d]."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to the halves of `x`'s rows."""
        return ops.activation_mul(x, "silu")


class GeluAndMul(nn.Module):
    """GeGLU: ``gelu(x[..., :d]) * x[..., d:]``, [..., 2 d] to [..., d].

    Parameters
    ----------
    approximate
        ``"none"`` for the exact GELU, ``"tanh"`` for its tanh form.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f"Unknown approximate mode: {approximate}")
        self.approximate = approximate
        self._kernel = "gelu" if approximate == "none" else "gelu_tanh"

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to the halves of `x`'s rows."""
        return ops.activation_mul(x, self._kernel)

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return f"approximate={self.approximate!r}"


def get_act_fn(
    act_fn_name: str,
    quant_config: object = None,
    intermediate_size: int | None = None,
    input_is_parallel: bool = True,
    params_dtype: torch.dtype | None = None,
) -> nn.Module:
    """Make the activation layer of a configuration's name.

    Parameters
    ----------
    act_fn_name
        As in ``hidden_act`` of config.json.
    quant_config, intermediate_size, input_is_parallel, params_dtype
        Of the seed era's signature; without effect.

    Raises
    ------
    CheckpointError
        If it is not supported.
    """
    return Activation(act_fn_name)
