"""Linear layers and how checkpoints fill them. Layer: unit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import linear

from mmcore.errors import ValidationError
from mmcore.model_executor.layers import linear as layers
from mmcore.model_executor.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
    apply_linear,
)
from mmcore.model_executor.layers.parameter import (
    WeightShapeError,
    expected_shards,
    loaded_shards,
    set_weight_attrs,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 96), (5, 96), (33, 96), (2, 3, 96)])
def test_apply_linear_is_linear(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, w, b = (torch.randn(s).to(dtype) for s in (shape, (40, 96), (40,)))
    for bias in (None, b):
        want = linear(x.double(), w.double(), None if bias is None else bias.double())
        got = apply_linear(x, w, bias)
        limit = 1e-5 if dtype == torch.float32 else 0.02 * want.abs().max().item()
        assert got.dtype == dtype
        assert (got.double() - want).abs().max() < limit


@pytest.mark.parametrize(
    ("capability", "features", "dtype", "rows"),
    [
        ((9, 0), 4096, torch.bfloat16, 64),
        ((9, 0), 4096, torch.float16, 64),
        ((9, 0), 4100, torch.bfloat16, 16),  # rows of the result are not aligned
        ((9, 0), 2048, torch.bfloat16, 16),  # a small weight
        ((8, 0), 4096, torch.bfloat16, 16),
        ((9, 0), 4096, torch.float32, 0),
    ],
)
def test_rows_that_a_gpus_kernel_takes(
    capability: tuple[int, int],
    features: int,
    dtype: torch.dtype,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers, "_rows_on", lambda device: layers._cuda_kernel_rows(capability))
    weight = torch.empty(features, 1024, dtype=dtype, device="meta")
    taken = [
        n
        for n in range(1, 200)
        if layers.prefers_kernel(torch.empty(n, 1024, dtype=dtype, device="meta"), weight)
    ]
    assert taken == list(range(1, rows + 1))


@pytest.mark.parametrize("cls", [ReplicatedLinear, ColumnParallelLinear, RowParallelLinear])
def test_forward_gives_output_and_bias(cls: Any) -> None:
    x = torch.randn(3, 8)
    weight, bias = torch.randn(6, 8), torch.randn(6)
    for skip in (False, True):
        layer = cls(8, 6, skip_bias_add=skip)
        layer.weight_loader(layer.weight, weight)
        layer.bias.weight_loader(layer.bias, bias)
        out, left = layer(x)
        torch.testing.assert_close(out, linear(x, weight, None if skip else bias))
        assert (left is layer.bias) if skip else (left is None)
        assert loaded_shards(layer.weight) == {None}
    assert cls(8, 6, bias=False)(x)[1] is None


def test_parameters_take_the_asked_for_dtype_and_no_gradient() -> None:
    layer = ReplicatedLinear(4, 2, params_dtype=torch.bfloat16)
    assert {p.dtype for p in layer.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in layer.parameters())


def test_qkv_shards() -> None:
    layer = QKVParallelLinear(8, 4, total_num_heads=3, total_num_kv_heads=1)
    q, k, v = torch.randn(12, 8), torch.randn(4, 8), torch.randn(4, 8)
    assert expected_shards(layer.weight) == ("q", "k", "v")
    for shard, weight in (("v", v), ("q", q)):
        layer.weight_loader(layer.weight, weight, shard)
    assert loaded_shards(layer.weight) == {"v", "q"}
    layer.weight_loader(layer.weight, k, "k")
    assert torch.equal(layer.weight, torch.cat([q, k, v]))
    assert (layer.num_heads, layer.num_kv_heads, layer.output_sizes) == (3, 1, [12, 4, 4])


def test_merged_shards_and_a_tensor_that_is_stacked_already() -> None:
    layer = MergedColumnParallelLinear(8, [3, 5], bias=False)
    up, gate = torch.randn(5, 8), torch.randn(3, 8)
    layer.weight_loader(layer.weight, up, 1)
    layer.weight_loader(layer.weight, gate, 0)
    assert torch.equal(layer.weight, torch.cat([gate, up]))
    whole = torch.randn(8, 8)
    layer.weight_loader(layer.weight, whole)
    assert torch.equal(layer.weight, whole)


def test_what_does_not_fit_is_refused() -> None:
    layer = QKVParallelLinear(8, 4, 2, 1)
    with pytest.raises(WeightShapeError, match=r"\[4, 8\], expected \[8, 8\]"):
        layer.weight_loader(layer.weight, torch.zeros(4, 8), "q")
    with pytest.raises(ValidationError, match=r"shards \['q', 'k', 'v'\], got 'x'"):
        layer.weight_loader(layer.weight, torch.zeros(4, 8), "x")
    plain = ReplicatedLinear(8, 4)
    with pytest.raises(ValidationError, match="has no shards"):
        plain.weight_loader(plain.weight, torch.zeros(4, 8), 0)
    with pytest.raises(ValidationError, match="quant_config"):
        ReplicatedLinear(8, 4, quant_config=object())
    with pytest.raises(ValueError, match="weight_loader"):
        set_weight_attrs(plain.weight, {"weight_loader": None})


def test_scalars_fit_with_or_without_an_axis() -> None:
    layer = ReplicatedLinear(1, 1)
    assert layer.bias is not None
    layer.weight_loader(layer.bias, torch.tensor(3.0))
    assert layer.bias.item() == 3
