"""Unit: finding model classes by architecture name."""

from __future__ import annotations

import logging
import sys
import types

import pytest
from torch import nn

from mmcore.errors import ValidationError
from mmcore.model_executor.models import ModelRegistry, SupportsMultiModal
from mmcore.model_executor.models.registry import BUILTIN_MODELS, LazyModel, _ModelRegistry


class TextModel(nn.Module):
    pass


class ImageModel(nn.Module, SupportsMultiModal):
    pass


@pytest.fixture
def registry() -> _ModelRegistry:
    return _ModelRegistry(BUILTIN_MODELS)


def test_builtin_names_are_known_without_importing_them() -> None:
    assert ModelRegistry.get_supported_archs()[:5] == [
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "LlavaForConditionalGeneration",
        "LlavaNextForConditionalGeneration",
    ]
    assert ModelRegistry.is_multimodal_model("LlavaForConditionalGeneration")
    assert not ModelRegistry.is_multimodal_model(["LlamaForCausalLM"])


def test_classes_are_found_and_judged(registry: _ModelRegistry) -> None:
    registry.register_model("A", TextModel)
    registry.register_model("B", ImageModel)
    assert registry.resolve_model_cls("A") == (TextModel, "A")
    assert registry.resolve_model_cls(["Unknown", "B", "A"]) == (ImageModel, "B")
    assert registry.is_multimodal_model("B")
    assert not registry.is_multimodal_model("A")
    assert not registry.is_pp_supported_model("A")


def test_registries_do_not_share(registry: _ModelRegistry) -> None:
    registry.register_model("OnlyHere", TextModel)
    assert "OnlyHere" not in ModelRegistry.get_supported_archs()


def test_lazy_class_is_imported_on_first_use(
    registry: _ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register_model("Late", "late_plugin:ImageModel")  # no such module yet
    module = types.ModuleType("late_plugin")
    module.ImageModel = ImageModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "late_plugin", module)
    assert registry.is_multimodal_model("Late")
    assert registry.resolve_model_cls("Late") == (ImageModel, "Late")


def test_lazy_class_that_is_not_there(
    registry: _ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "late_plugin", types.ModuleType("late_plugin"))
    registry.register_model("Late", "late_plugin:Missing")
    with pytest.raises(ValidationError, match="'late_plugin' has no class 'Missing'"):
        registry.resolve_model_cls("Late")


@pytest.mark.parametrize("name", ["module.Class", ":Class", "module:", "a:b:c", ""])
def test_bad_strings(registry: _ModelRegistry, name: str) -> None:
    with pytest.raises(ValueError) as caught:
        registry.register_model("A", name)
    assert str(caught.value) == "Expected a string in the format `<module>:<class>`"


def test_neither_class_nor_string(registry: _ModelRegistry) -> None:
    with pytest.raises(TypeError, match="got TextModel"):
        registry.register_model("A", TextModel())  # type: ignore[arg-type]


def test_second_registration_warns_and_wins(
    registry: _ModelRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register_model("A", TextModel)
    with caplog.at_level(logging.WARNING):
        registry.register_model("A", ImageModel)
    assert "Model architecture A is already registered, and will be overwritten" in caplog.text
    assert registry.resolve_model_cls("A")[0] is ImageModel


def test_unknown_names_list_what_is_known_and_what_is_near(registry: _ModelRegistry) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.resolve_model_cls(["LlamaForCasualLM"])
    text = str(caught.value)
    assert text.startswith(
        "Model architectures ['LlamaForCasualLM'] are not supported for now. "
        "Supported architectures: ["
    )
    nearest = text.split("The nearest names are ")[1].rstrip(".").split(", ")
    assert nearest[0] == "LlamaForCausalLM"
    assert len(nearest) == 3
    assert caught.value.code == "model_not_supported"


def test_checkpoint_without_architectures(registry: _ModelRegistry) -> None:
    with pytest.raises(ValidationError, match="has no `architectures`"):
        registry.resolve_model_cls([])


def test_lazy_entries_are_values() -> None:
    assert LazyModel("m", "C") == LazyModel("m", "C", None)
