"""Linear layers.

They keep the seed era's names and return values: ``forward`` gives ``(output, bias)``, the bias
only where ``skip_bias_add`` asks to leave its addition to the caller. On one device "column
parallel" and "row parallel" are the same; what differs is how checkpoints deliver the weights.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as torch_linear

from mmcore import ops
from mmcore.errors import ValidationError
from mmcore.model_executor.layers.parameter import (
    copy_weight,
    empty_parameter,
    record_loaded,
    set_weight_attrs,
)

__all__ = [
    "ColumnParallelLinear",
    "LinearBase",
    "MergedColumnParallelLinear",
    "QKVParallelLinear",
    "ReplicatedLinear",
    "RowParallelLinear",
    "apply_linear",
    "prefers_kernel",
    "prefers_projector",
]


def _kernel_rows(isa: str) -> dict[torch.dtype, int]:
    """Give the rows up to which mmcore's kernel is chosen on a CPU.

    Few rows are bound by reading the weight: there it is up to 2x faster in float32 and 1.5x to
    2.7x in bfloat16. With many, torch's blocked products are 1.1x to 1.4x faster; but torch
    emulates bfloat16 on a CPU without instructions for it, and is 4x to 10x slower there. Measured
    on a Xeon with AMX, and held to AVX-512 and AVX2 on it; one thread, weights of 576x576 to
    2048x2048.
    """
    if isa == "reference":
        return {}
    native = isa in ("avx512_bf16", "amx_bf16")
    half = 128 if native else sys.maxsize
    return {torch.float32: 32, torch.bfloat16: half, torch.float16: half}


_KERNEL_ROWS: Mapping[torch.dtype, int] = _kernel_rows(ops.cpu_isa())


# On a GPU: the dtypes of mmcore's kernels; float32 is cuBLAS's.
_CUDA_DTYPES: frozenset[torch.dtype] = frozenset({torch.bfloat16, torch.float16})
_CUDA_FEW_ROWS = 16
_CUDA_MOST_ROWS = 64
_CUDA_LARGE_WEIGHT = 1 << 22


def _cuda_kernel_rows(capability: tuple[int, int]) -> int:
    """Give the rows up to which mmcore's kernel is chosen on a GPU: large weights, aligned rows.

    Measured on an H100 with the products of a 7B model: over all of them 1.08x to 1.12x the speed
    of cuBLAS for 1 to 64 rows; 0.94x to 0.97x for a weight of 4096x4096 from 32 rows on, where what
    is read early makes up for it in a step.
    """
    return _CUDA_MOST_ROWS if capability == (9, 0) else _CUDA_FEW_ROWS


@cache
def _rows_on(device: int) -> int:
    return _cuda_kernel_rows(torch.cuda.get_device_capability(device))


def prefers_kernel(x: Tensor, weight: Tensor) -> bool:
    """Choose between mmcore's kernel and torch's for a product: the one place that does.

    Parameters
    ----------
    x, weight
        [..., K] and [N, K].
    """
    if x.is_cpu:
        return x.numel() <= x.shape[-1] * _KERNEL_ROWS.get(x.dtype, 0)
    if x.dtype not in _CUDA_DTYPES:
        return False
    elements, width = x.numel(), x.shape[-1]
    if elements <= width * _CUDA_FEW_ROWS:
        return True
    if elements > width * _CUDA_MOST_ROWS:  # a prompt's, whose launches the device waits for
        return False
    if weight.numel() < _CUDA_LARGE_WEIGHT or weight.shape[0] % 8 or weight.stride(0) % 8:
        return False
    return elements <= width * _rows_on(x.get_device())


def prefers_projector(x: Tensor, w1: Tensor) -> bool:
    """Choose between mmcore's vision projector and two products: features [..., K], [M, K]."""
    return prefers_kernel(x, w1) if x.is_cpu else x.dtype in _CUDA_DTYPES


def apply_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x @ weight.T + bias``, by mmcore's kernel or torch's.

    Parameters
    ----------
    x
        [..., K].
    weight, bias
        [N, K] and [N], of a model: nothing right in front of the call writes them.
    """
    if prefers_kernel(x, weight):
        return ops.linear(x, weight, bias, steady_weight=True)
    return torch_linear(x, weight, bias)


class LinearBase(nn.Module):
    """A weight [output, input], an optional bias, and how a checkpoint fills them.

    Parameters
    ----------
    input_size, output_size
        Columns and rows of the weight.
    bias
        Whether there is one.
    skip_bias_add
        Return the bias instead of adding it.
    params_dtype
        dtype of the parameters; torch's default when left out.
    quant_config
        Not supported; must be None.
    prefix
        The layer's name, for error messages.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        skip_bias_add: bool = False,
        params_dtype: torch.dtype | None = None,
        quant_config: object = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        if quant_config is not None:
            raise ValidationError(
                f"The linear layer {prefix or type(self).__name__} was given a quant_config; "
                "quantized weights are not supported, pass None."
            )
        self.input_size = input_size
        self.output_size = output_size
        self.skip_bias_add = skip_bias_add
        self.weight = empty_parameter(output_size, input_size, dtype=params_dtype)
        self.register_parameter(
            "bias", empty_parameter(output_size, dtype=params_dtype) if bias else None
        )
        for param in self.parameters(recurse=False):
            set_weight_attrs(param, {"weight_loader": self.weight_loader})

    def weight_loader(
        self,
        param: nn.Parameter,
        loaded_weight: Tensor,
        loaded_shard_id: str | int | None = None,
    ) -> None:
        """Copy a checkpoint's tensor into `param`.

        Raises
        ------
        WeightShapeError
            If it has another shape.
        """
        if loaded_shard_id is not None:
            raise ValidationError(
                f"{type(self).__name__} has no shards, got shard id {loaded_shard_id!r}."
            )
        copy_weight(param, loaded_weight)
        record_loaded(param)

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        """Multiply ``[..., input]`` to ``[..., output]``.

        Returns
        -------
        tuple
            The product, and the bias if it was not added.
        """
        # Read past nn.Module's attribute search, which takes longer than a small product.
        params = self._parameters
        weight, bias = params["weight"], params["bias"]
        assert weight is not None
        if self.skip_bias_add:
            return apply_linear(input_, weight), bias
        return apply_linear(input_, weight, bias), None

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return f"{self.input_size}, {self.output_size}, bias={self.bias is not None}"


class ReplicatedLinear(LinearBase):
    """A linear layer that every device holds whole."""


class ColumnParallelLinear(LinearBase):
    """A linear layer whose outputs could be split over devices.

    Parameters
    ----------
    gather_output, output_sizes
        Of the seed era's signature; without effect on one device.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        gather_output: bool = False,
        skip_bias_add: bool = False,
        params_dtype: torch.dtype | None = None,
        quant_config: object = None,
        output_sizes: Sequence[int] | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__(
            input_size, output_size, bias, skip_bias_add, params_dtype, quant_config, prefix
        )


class RowParallelLinear(LinearBase):
    """A linear layer whose inputs could be split over devices.

    Parameters
    ----------
    input_is_parallel, reduce_results
        Of the seed era's signature; without effect on one device.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        input_is_parallel: bool = True,
        skip_bias_add: bool = False,
        params_dtype: torch.dtype | None = None,
        reduce_results: bool = True,
        quant_config: object = None,
        prefix: str = "",
    ) -> None:
        super().__init__(
            input_size, output_size, bias, skip_bias_add, params_dtype, quant_config, prefix
        )


class _StackedLinear(LinearBase):
    """Several linear layers of one input, stacked so that they are one product.

    A checkpoint delivers each by its shard id, or all at once already stacked.
    """

    def _set_shards(self, sizes: dict[str | int, int]) -> None:
        self._rows: dict[str | int, tuple[int, int]] = {}
        start = 0
        for shard, size in sizes.items():
            self._rows[shard] = (start, size)
            start += size
        for param in self.parameters(recurse=False):
            set_weight_attrs(param, {"shard_ids": tuple(sizes)})

    def weight_loader(
        self,
        param: nn.Parameter,
        loaded_weight: Tensor,
        loaded_shard_id: str | int | None = None,
    ) -> None:
        """Copy one shard, or all of them, into `param`.

        Raises
        ------
        WeightShapeError
            If the tensor has another shape than the shard.
        ValidationError
            If there is no such shard.
        """
        if loaded_shard_id is None:
            copy_weight(param, loaded_weight)
            record_loaded(param)
            return
        if loaded_shard_id not in self._rows:
            raise ValidationError(
                f"{type(self).__name__} has shards {list(self._rows)}, got {loaded_shard_id!r}."
            )
        start, size = self._rows[loaded_shard_id]
        copy_weight(param.narrow(0, start, size), loaded_weight)
        record_loaded(param, loaded_shard_id)


class MergedColumnParallelLinear(_StackedLinear):
    """Linear layers of one input as one product; shard ids are 0, 1, ...

    Parameters
    ----------
    output_sizes
        Outputs of each.
    gather_output
        Of the seed era's signature; without effect on one device.
    """

    def __init__(
        self,
        input_size: int,
        output_sizes: Sequence[int],
        bias: bool = True,
        gather_output: bool = False,
        skip_bias_add: bool = False,
        params_dtype: torch.dtype | None = None,
        quant_config: object = None,
        prefix: str = "",
    ) -> None:
        self.output_sizes = list(output_sizes)
        super().__init__(
            input_size, sum(output_sizes), bias, skip_bias_add, params_dtype, quant_config, prefix
        )
        self._set_shards(dict(enumerate(output_sizes)))


class QKVParallelLinear(_StackedLinear):
    """Queries, keys and values as one product; shard ids are ``"q"``, ``"k"`` and ``"v"``.

    Parameters
    ----------
    hidden_size
        Width of the input.
    head_size
        Width of a head.
    total_num_heads, total_num_kv_heads
        Query heads, and key and value heads, as many when left out.
    """

    def __init__(
        self,
        hidden_size: int,
        head_size: int,
        total_num_heads: int,
        total_num_kv_heads: int | None = None,
        bias: bool = True,
        skip_bias_add: bool = False,
        params_dtype: torch.dtype | None = None,
        quant_config: object = None,
        prefix: str = "",
    ) -> None:
        self.hidden_size = hidden_size
        self.head_size = head_size
        self.total_num_heads = self.num_heads = total_num_heads
        kv_heads = total_num_heads if total_num_kv_heads is None else total_num_kv_heads
        self.total_num_kv_heads = self.num_kv_heads = kv_heads
        self.num_kv_head_replicas = 1
        q_size, kv_size = total_num_heads * head_size, kv_heads * head_size
        self.output_sizes = [q_size, kv_size, kv_size]
        super().__init__(
            hidden_size,
            sum(self.output_sizes),
            bias,
            skip_bias_add,
            params_dtype,
            quant_config,
            prefix,
        )
        self._set_shards({"q": q_size, "k": kv_size, "v": kv_size})
