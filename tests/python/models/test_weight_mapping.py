"""Names of tensors into names of parameters. Layer: unit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor, nn

from mmcore.attention import Attention
from mmcore.errors import CheckpointError
from mmcore.model_executor.layers.linear import QKVParallelLinear
from mmcore.model_executor.models.utils import (
    AutoWeightsLoader,
    UnexpectedTensorError,
    WeightsMapper,
)


@pytest.mark.parametrize(
    ("name", "mapped"),
    [
        ("old.a.weight", "new.a.weight"),
        ("x.old.weight", "x.old.weight"),
        ("x.gamma", "x.weight"),
        ("x.mid.y", "x.MID.y"),
        ("old.mid.gamma", "new.MID.weight"),
        ("drop.x", None),
        ("x.drop_me.y", None),
        ("x.num_batches", None),
    ],
)
def test_mapper(name: str, mapped: str | None) -> None:
    mapper = WeightsMapper(
        orig_to_new_substr={".mid.": ".MID.", "drop_me": None},
        orig_to_new_prefix={"old.": "new.", "drop.": None},
        orig_to_new_suffix={".gamma": ".weight", ".num_batches": None},
    )
    assert mapper.map_name(name) == mapped
    value = torch.zeros(1)
    want = [] if mapped is None else [(mapped, value)]
    assert list(mapper.apply([(name, value)])) == want


class Inner(nn.Module):
    """Loads itself, and says what it loaded or not."""

    def __init__(self, says: bool) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
        self.calls: list[list[str]] = []
        self.says = says

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str] | None:
        names = [name for name, tensor in weights if self.w.data.copy_(tensor) is not None]
        self.calls.append(names)
        return set(names) if self.says else None


class Outer(nn.Module):
    def __init__(self, says: bool = True) -> None:
        super().__init__()
        self.inner = Inner(says)
        self.attn = nn.ModuleDict({"qkv_proj": QKVParallelLinear(4, 2, 1, bias=False)})
        self.b = nn.Parameter(torch.zeros(2))


def tensors() -> Iterator[tuple[str, Tensor]]:
    yield "inner.w", torch.ones(2)
    yield "attn.v_proj.weight", torch.full((2, 4), 3.0)
    yield "b", torch.full((2,), 5.0)
    yield "inner.w", torch.full((2,), 2.0)


STACKED = [("qkv_proj", "q_proj", "q"), ("qkv_proj", "v_proj", "v")]


@pytest.mark.parametrize("says", [True, False])
def test_tensors_go_to_parameters_shards_and_children(says: bool) -> None:
    model = Outer(says)
    loaded = AutoWeightsLoader(model, stacked=STACKED).load_weights(tensors())
    assert loaded == {"inner.w", "attn.qkv_proj.weight", "b"}
    assert model.inner.calls == [["w"], ["w"]]  # in the stream's order, without collecting
    assert model.inner.w.tolist() == [2.0, 2.0]
    assert model.b.tolist() == [5.0, 5.0]
    assert model.attn["qkv_proj"].weight[4:].unique().tolist() == [3.0]  # type: ignore[union-attr]


def test_unexpected_names_are_errors_unless_excused() -> None:
    extra = [("attn.other.weight", torch.zeros(1))]
    with pytest.raises(UnexpectedTensorError, match="no parameter of Outer") as caught:
        AutoWeightsLoader(Outer()).load_weights(extra)
    assert isinstance(caught.value, CheckpointError)
    assert caught.value.code == "unexpected_tensor"
    for options in (
        {"skip_prefixes": ["attn."]},
        {"skip_substrs": [".other."]},
        {"ignore_unexpected_prefixes": ["attn."]},
    ):
        loader = AutoWeightsLoader(Outer(), **options)  # type: ignore[arg-type]
        assert loader.load_weights(extra) == set()


def test_what_every_model_computes_is_left_out() -> None:
    names = ["layers.0.rotary_emb.inv_freq", "vision.embeddings.position_ids", "position_ids"]
    stream = ((name, torch.zeros(1)) for name in names)
    assert AutoWeightsLoader(Outer()).load_weights(stream) == set()


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.ModuleDict({"attn": Attention(2, 32, 1.0)})


@pytest.mark.parametrize(
    "names",
    [
        ("layers.1.self_attn.k_scale", "layers.1.self_attn.v_scale"),
        ("layers.1.self_attn.attn.k_scale", "layers.1.self_attn.attn.v_scale"),
        ("layers.1.self_attn.k_proj.k_scale", "layers.1.self_attn.v_proj.v_scale"),
    ],
)
def test_scales_of_a_cache_go_to_the_attention_layer(names: tuple[str, str]) -> None:
    model = nn.Module()
    model.layers = nn.ModuleList([Layer(), Layer()])
    values = zip(names, (torch.tensor([0.5]), torch.tensor(0.25)), strict=True)
    assert AutoWeightsLoader(model, stacked=STACKED).load_weights(values) == set()
    scales = [
        (layer.self_attn["attn"].k_scale, layer.self_attn["attn"].v_scale)  # type: ignore[union-attr, index]
        for layer in model.layers
    ]
    assert scales == [(1.0, 1.0), (0.5, 0.25)]


def test_a_scale_without_an_attention_layer_is_unexpected() -> None:
    with pytest.raises(UnexpectedTensorError, match=r"'attn\.k_scale'"):
        AutoWeightsLoader(Outer()).load_weights([("attn.k_scale", torch.ones(1))])
