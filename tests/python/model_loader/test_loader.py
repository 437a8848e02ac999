"""Checkpoints into models, and what is wrong with those that do not fit. Layer: model."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcore.config import LoadConfig, ModelConfig
from mmcore.errors import CheckpointError
from mmcore.model_executor.model_loader import (
    CheckpointReader,
    checkpoint_folder,
    get_model,
    initialize_model,
    load_weights,
)
from mmcore.model_executor.model_loader.construction import construct_model
from mmcore.model_executor.model_loader.weight_utils import default_weight_loader

pytestmark = pytest.mark.hf

Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny.save(tiny.make(tiny.llama_config()), tmp_path / "llama")


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same(a: nn.Module, b: nn.Module) -> None:
    one, two = weights_of(a), weights_of(b)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_stacked_parameters_hold_what_the_checkpoint_holds(llama: Path) -> None:
    model, _ = tiny.load(llama)
    saved = load_file(llama / "model.safetensors")
    attention = "model.layers.1.self_attn"
    stacked = [saved[f"{attention}.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(model.get_parameter(f"{attention}.qkv_proj.weight"), torch.cat(stacked))
    mlp = [saved[f"model.layers.0.mlp.{part}_proj.weight"] for part in ("gate", "up")]
    assert torch.equal(
        model.get_parameter("model.layers.0.mlp.gate_up_proj.weight"), torch.cat(mlp)
    )
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_shards_are_one_checkpoint(tmp_path: Path, llama: Path) -> None:
    reference = tiny.make(tiny.llama_config())
    folder = tiny.save(reference, tmp_path / "sharded", shards=True)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert_same(tiny.load(folder)[0], tiny.load(llama)[0])


def test_weights_are_converted(llama: Path) -> None:
    whole, _ = tiny.load(llama)
    half, _ = tiny.load(llama, "bfloat16")
    for name, p in half.named_parameters():
        assert torch.equal(p, whole.get_parameter(name).bfloat16())
    assert torch.get_default_dtype() == torch.float32


def test_every_tensor_is_read_once_and_in_the_file_order(llama: Path) -> None:
    reader = CheckpointReader(llama)
    names = [name for name, _ in reader]
    assert sorted(names) == sorted(reader.tensors)
    assert reader.current is None
    assert reader.nbytes == sum(t.nbytes for t in load_file(llama / "model.safetensors").values())


def test_a_tied_head_may_be_stored_or_not(tmp_path: Path) -> None:
    reference = tiny.make(tiny.qwen2_config(tie_word_embeddings=True))
    folder = tiny.save(reference, tmp_path)
    first, _ = tiny.load(folder)
    assert first.lm_head.weight is first.model.embed_tokens.weight

    def store_head(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    edit(folder, store_head)
    assert_same(tiny.load(folder)[0], first)


def test_computed_tables_in_old_checkpoints_are_left_out(llama: Path) -> None:
    first, _ = tiny.load(llama)
    edit(llama, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    assert_same(tiny.load(llama)[0], first)


def test_a_missing_tensor_is_named(llama: Path) -> None:
    edit(llama, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(
        CheckpointError, match=r"no tensors for 1 parameters .*model\.norm\.weight \[96\]"
    ) as caught:
        tiny.load(llama)
    assert str(llama) in str(caught.value)


def test_a_missing_part_of_a_stacked_parameter_is_named(llama: Path) -> None:
    edit(llama, lambda tensors: tensors.pop(Q_PROJ))
    with pytest.raises(CheckpointError, match=r"layers\.1\.self_attn\.qkv_proj.*\(parts \['q'\]\)"):
        tiny.load(llama)


def test_many_missing_tensors_are_counted(llama: Path) -> None:
    edit(llama, lambda tensors: [tensors.pop(n) for n in list(tensors) if "layers.2" in n])
    with pytest.raises(CheckpointError, match=r"no tensors for 6 parameters .* and 1 more"):
        tiny.load(llama)


def test_a_tensor_of_another_shape_is_named(llama: Path) -> None:
    edit(llama, lambda tensors: tensors.update({Q_PROJ: torch.zeros(96, 96)}))
    with pytest.raises(CheckpointError) as caught:
        tiny.load(llama)
    message = str(caught.value)
    for part in (Q_PROJ, "model.safetensors", "[96, 96]", "[128, 96]", "config.json"):
        assert part in message


def test_an_unexpected_tensor_is_named(llama: Path) -> None:
    edit(llama, lambda tensors: tensors.update({"model.layers.9.extra": torch.zeros(2)}))
    with pytest.raises(
        CheckpointError,
        match=r"'model\.layers\.9\.extra' in .*model\.safetensors .*\[2\].*no parameter of Llama",
    ):
        tiny.load(llama)


def test_errors_inside_a_multimodal_model_name_the_whole_tensor(tmp_path: Path) -> None:
    folder = tiny.save(tiny.make(tiny.llava_config()), tmp_path)
    name = "vision_tower.encoder.layers.0.mlp.fc1.bias"
    edit(folder, lambda tensors: tensors.update({name: torch.zeros(7)}))
    with pytest.raises(CheckpointError, match=rf"'{name}' .*shape \[7\], the model expects \[96\]"):
        tiny.load(folder)


def test_a_damaged_file_is_refused(llama: Path) -> None:
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        tiny.load(llama)


def test_folders_without_weights_and_unreachable_names(tmp_path: Path, llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        tiny.load(llama)
    assert checkpoint_folder(str(tmp_path / "anywhere")) == tmp_path / "anywhere"


def test_dummy_weights_are_seeded_and_need_no_files(llama: Path) -> None:
    (llama / "model.safetensors").unlink()

    def dummy(seed: int) -> nn.Module:
        config = ModelConfig(str(llama), dtype="bfloat16", seed=seed)
        return get_model(config, LoadConfig(load_format="dummy"))

    first = dummy(1)
    assert_same(dummy(1), first)
    other = weights_of(dummy(2))
    assert not torch.equal(other["lm_head.weight"], weights_of(first)["lm_head.weight"])
    for name, p in first.named_parameters():
        assert torch.isfinite(p).all(), name
        assert p.float().std() > 1e-3, name
    assert abs(weights_of(first)["model.norm.weight"].float().mean().item() - 1) < 0.05


class Model(nn.Module):
    """Loads by itself, in ways that seed-era models did."""

    def __init__(self, config: Any, cache_config: Any = None) -> None:
        super().__init__()
        self.arguments = (config, cache_config)
        self.w = nn.Parameter(torch.zeros(3))
        self.v = nn.Parameter(torch.zeros(3))
        self.how = "names"

    def load_weights(self, weights: Any) -> set[str] | None:
        for name, tensor in weights:
            param = self.get_parameter(name)
            if self.how == "recorded":
                default_weight_loader(param, tensor)
            else:
                param.data.copy_(tensor)
        return {"w", "v"} if self.how == "names" else None


@pytest.mark.parametrize("how", ["names", "recorded", "silent"])
def test_models_that_load_by_themselves(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    save_file({"w": torch.ones(3), "v": torch.ones(3)}, tmp_path / "model.safetensors")
    model = Model(None)
    model.how = how
    with caplog.at_level(logging.WARNING, logger="mmcore"):
        load_weights(model, tmp_path)
    assert model.w.sum() == 3
    # Only a model that leaves no trace cannot be checked.
    assert bool(caplog.records) == (how == "silent")


def test_a_model_without_load_weights_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="Linear has no method load_weights"):
        load_weights(nn.Linear(1, 1), tmp_path)


def test_constructors_get_the_arguments_that_they_name(llama: Path) -> None:
    config = object()
    model: Any = construct_model(Model, config, cache_config=7, quant_config=None, prefix="x")
    assert model.arguments == (config, 7)

    class Greedy(nn.Module):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__()
            self.given = kwargs

    given: Any = construct_model(Greedy, config, quant_config=None)
    assert given.given == {"config": config, "quant_config": None}
    assert type(initialize_model(ModelConfig(str(llama)))).__name__ == "LlamaForCausalLM"


def test_config_and_weights_that_do_not_belong_together(llama: Path) -> None:
    path = llama / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(CheckpointError, match=r"layers\.2\.\S+ in .*belongs to no parameter"):
        tiny.load(llama)
