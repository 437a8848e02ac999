"""Norms, activations, embeddings, logits, the projector. Layer: unit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers.activations
from torch.nn import functional as F

from mmcore.errors import CheckpointError, ValidationError
from mmcore.model_executor.layers.activation import (
    FastGELU,
    GeluAndMul,
    NewGELU,
    QuickGELU,
    SiluAndMul,
    get_act_fn,
)
from mmcore.model_executor.layers.layernorm import LayerNorm, RMSNorm
from mmcore.model_executor.layers.logits_processor import LogitsProcessor
from mmcore.model_executor.layers.parameter import WeightShapeError, copy_weight
from mmcore.model_executor.layers.projector import VisionProjector
from mmcore.model_executor.layers.sampler import Sampler
from mmcore.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(2)


def filled(module: Any) -> Any:
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape))
    return module


def test_rms_norm_with_and_without_residual() -> None:
    norm = filled(RMSNorm(16, eps=1e-5))
    x, residual = torch.randn(3, 16), torch.randn(3, 16)
    total = x + residual
    torch.testing.assert_close(norm(x), F.rms_norm(x, (16,), norm.weight, 1e-5))
    out, same = norm(x, residual)
    assert same is residual
    torch.testing.assert_close(residual, total)
    torch.testing.assert_close(out, F.rms_norm(total, (16,), norm.weight, 1e-5))


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm(bias: bool) -> None:
    norm = filled(LayerNorm(16, eps=1e-3, bias=bias))
    x = torch.randn(2, 3, 16)
    torch.testing.assert_close(norm(x), F.layer_norm(x, (16,), norm.weight, norm.bias, 1e-3))


@pytest.mark.parametrize(
    "name",
    ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "silu", "swish", "relu",
     "linear"],
)  # fmt: skip
def test_activations_are_those_of_transformers(name: str) -> None:
    x = 3 * torch.randn(50)
    want = transformers.activations.get_activation(name)(x)
    torch.testing.assert_close(get_act_fn(name)(x), want, atol=2e-6, rtol=1e-5)


def test_named_activation_layers() -> None:
    x = torch.randn(4, 10)
    gate, up = x.chunk(2, dim=-1)
    torch.testing.assert_close(SiluAndMul()(x), F.silu(gate) * up)
    torch.testing.assert_close(GeluAndMul()(x), F.gelu(gate) * up)
    torch.testing.assert_close(
        GeluAndMul(approximate="tanh")(x), F.gelu(gate, approximate="tanh") * up
    )
    torch.testing.assert_close(QuickGELU()(x), x * torch.sigmoid(1.702 * x))
    for layer in (NewGELU(), FastGELU()):
        torch.testing.assert_close(layer(x), F.gelu(x, approximate="tanh"))
    with pytest.raises(ValueError, match="Unknown approximate mode: fast"):
        GeluAndMul(approximate="fast")
    with pytest.raises(CheckpointError, match=r"'mish' is not supported; known: gelu"):
        get_act_fn("mish")


def test_embedding_and_a_head_that_shares_it() -> None:
    table = filled(VocabParallelEmbedding(12, 8))
    ids = torch.tensor([[0, 11], [3, 3]])
    assert torch.equal(table(ids), table.weight[ids])
    assert torch.equal(table(ids.int()), table.weight[ids])
    with pytest.raises(ValidationError, match=r"token_ids\[0\] is 12"):
        table(torch.tensor([12]))
    head = ParallelLMHead(12, 8).tie_weights(table)
    assert head.weight is table.weight
    with pytest.raises(RuntimeError, match="should be used in the sampler"):
        head(ids)
    with pytest.raises(ValidationError, match="quant_config"):
        ParallelLMHead(12, 8, quant_config=object())


def test_logits_of_selected_rows() -> None:
    head = filled(ParallelLMHead(12, 8, bias=True))
    hidden = torch.randn(5, 8)
    full = F.linear(hidden, head.weight, head.bias)
    chosen: Any = SimpleNamespace(selected_token_indices=torch.tensor([4, 0]))
    everything: Any = SimpleNamespace(selected_token_indices=None)
    processor = LogitsProcessor(12)
    torch.testing.assert_close(processor(head, hidden, chosen), full[[4, 0]])
    torch.testing.assert_close(processor(head, hidden, everything), full)
    torch.testing.assert_close(processor(head, hidden), full)


def test_logits_are_cut_capped_and_scaled() -> None:
    table = filled(VocabParallelEmbedding(12, 8))
    hidden = torch.randn(3, 8)
    full = F.linear(hidden, table.weight)
    processor = LogitsProcessor(12, org_vocab_size=10, scale=0.5, soft_cap=2.0)
    want = 0.5 * 2.0 * torch.tanh(full[:, :10] / 2.0)
    torch.testing.assert_close(processor(table, hidden), want)
    torch.testing.assert_close(LogitsProcessor(12, logits_as_input=True)(table, full), full)


def test_sampler_asks_the_metadata() -> None:
    given: list[torch.Tensor] = []
    metadata: Any = SimpleNamespace(sample=lambda logits: given.append(logits) or "output")
    logits = torch.randn(2, 4)
    assert Sampler()(logits, metadata) == "output"
    assert given[0] is logits


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 10), (2, 3, 10), (600, 10)])
def test_projector(bias: bool, shape: tuple[int, ...]) -> None:
    layer = filled(VisionProjector(10, 12, 6, act="gelu", bias=bias))
    x = torch.randn(shape)
    one, two = layer.linear_1, layer.linear_2
    want = F.linear(F.gelu(F.linear(x, one.weight, one.bias)), two.weight, two.bias)
    torch.testing.assert_close(layer(x), want, atol=1e-4, rtol=1e-4)
    count = want.numel() // 6
    rows = torch.randperm(count + 3)[:count]
    rows[1::4] = -1
    out = torch.full((count + 3, 6), 5.0)
    assert layer(x, out=out, rows=rows) is out
    kept = rows >= 0
    torch.testing.assert_close(out[rows[kept]], want.view(-1, 6)[kept], atol=1e-4, rtol=1e-4)
    assert int((out == 5).all(-1).sum()) == count + 3 - int(kept.sum())


def test_copying_converts_the_dtype_and_checks_the_shape() -> None:
    target = torch.zeros(2, 3, dtype=torch.bfloat16)
    copy_weight(target, torch.full((2, 3), 1.00390625, dtype=torch.float64))
    assert target.unique().tolist() == [1.0]
    with pytest.raises(WeightShapeError, match=r"\[3, 2\], expected \[2, 3\]"):
        copy_weight(target, torch.zeros(3, 2))
