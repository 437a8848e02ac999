"""A model file of the seed era runs after its import root is changed. Layer: model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny
from models.paged import PagedRun, run_whole

from mmcore.errors import CheckpointError
from mmcore.model_executor.models import ModelRegistry

pytestmark = pytest.mark.hf

TOLERANCE = 1e-4


@pytest.fixture
def registered() -> Iterator[None]:
    before = ModelRegistry._models["LlamaForCausalLM"]
    ModelRegistry._models["LlamaForCausalLM"] = _lazy("models.seed_era:OldForCausalLM")
    yield
    ModelRegistry._models["LlamaForCausalLM"] = before


def _lazy(name: str) -> Any:
    from mmcore.model_executor.models.registry import LazyModel

    return LazyModel(*name.split(":"))


@torch.inference_mode()
def test_same_logits(registered: None, tmp_path: Path) -> None:
    reference, model = tiny.both(tiny.llama_config(), tmp_path)
    assert type(model).__name__ == "OldForCausalLM"
    ids = torch.arange(3, 60)
    want = reference(input_ids=ids[None]).logits[0]
    assert tiny.worst(run_whole(model, ids), want) < TOLERANCE
    run = PagedRun(model)
    got = [run.step([("a", ids[:40])])[0]]
    got += [run.step([("a", ids[i : i + 1])])[0] for i in range(40, len(ids))]
    assert tiny.worst(torch.cat(got), want) < TOLERANCE


@torch.inference_mode()
def test_its_errors_are_checkpoint_errors(registered: None, tmp_path: Path) -> None:
    reference = tiny.make(tiny.llama_config(attention_bias=True))
    folder = tiny.save(reference, tmp_path)
    with pytest.raises(CheckpointError, match=r"self_attn\.\w_proj\.bias.*belongs to no parameter"):
        tiny.load(folder)
