"""Unit: `mmcore info` tells what is really there."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from torch import nn

import mmcore.ops
from mmcore.model_executor.models import ModelRegistry


@pytest.fixture(scope="module")
def document(run: Callable) -> dict[str, Any]:
    done = run("info", "--json")
    assert done.status == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_build_and_machine(document: dict[str, Any]) -> None:
    assert document["build"]["mmcore"] == version("mmcore")
    assert document["build"]["torch"] == version("torch")
    assert document["machine"]["isa_in_use"] == mmcore.ops.cpu_isa()
    assert document["machine"]["threads"] == mmcore.ops.num_threads()


def test_every_registered_model_with_what_it_accepts(document: dict[str, Any]) -> None:
    models = {model["architecture"]: model for model in document["models"]}
    assert set(models) >= set(ModelRegistry.get_supported_archs())
    assert [m for m in models.values() if m["problem"]] == []
    llava = models["LlavaForConditionalGeneration"]
    assert (llava["modalities"], llava["level"]) == (["image"], "extended")
    llama = models["LlamaForCausalLM"]
    assert (llama["modalities"], llama["level"]) == ([], "text")


def test_a_model_that_cannot_be_imported_is_told(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelRegistry, "_models", dict(ModelRegistry._models))
    ModelRegistry.register_model("BrokenModel", "no_such_module_here:Model")
    ModelRegistry.register_model("PlainModel", nn.Identity)
    done = run("info")
    assert done.status == 0
    assert "no_such_module_here" in done.stdout
    assert "PlainModel" in done.stdout
