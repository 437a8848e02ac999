"""Unit: batching forward arguments, and what a plugin keeps for each class."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmcore.config import ModelConfig
from mmcore.inputs import InputContext
from mmcore.model_executor.models import ModelRegistry, SupportsMultiModal
from mmcore.multimodal import MultiModalInputs, MultiModalKwargs
from mmcore.multimodal.audio import AudioPlugin
from mmcore.multimodal.base import MultiModalPlugin
from mmcore.multimodal.image import ImagePlugin
from mmcore.multimodal.video import VideoPlugin


def t(*shape: int) -> torch.Tensor:
    return torch.rand(shape)


def assert_same(actual: Any, expected: Any) -> None:
    """Compare nested lists of tensors: structure, shapes and values."""
    assert type(actual) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected)
        return
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert_same(a, e)


def batch(*values: Any) -> Any:
    return MultiModalInputs.batch([MultiModalInputs({"image": value}) for value in values])["image"]


def test_batch_of_one_tensor() -> None:
    a = t(1, 2)
    assert_same(batch(a), a.unsqueeze(0))


def test_batch_of_equal_shapes() -> None:
    a, b, c = t(1, 1, 2), t(1, 1, 2), t(1, 1, 2)
    result = batch(a, b, c)
    assert result.shape == (3, 1, 1, 2)
    assert_same(result, torch.stack([a, b, c]))


def test_batch_of_ragged_shapes() -> None:
    a, b, c = t(1, 2, 2), t(1, 3, 2), t(1, 4, 2)
    assert_same(batch(a, b, c), [a, b, c])


def test_batch_of_lists_of_one() -> None:
    a, b, c = t(2, 3), t(2, 3), t(2, 3)
    result = batch([a], [b], [c])
    assert result.shape == (3, 1, 2, 3)
    assert_same(result, torch.stack([a, b, c]).unsqueeze(1))


def test_batch_of_lists_of_different_lengths() -> None:
    a, b, c = t(2, 3), t(2, 3), t(2, 3)
    assert_same(batch([a, b], [c]), [torch.stack([a, b]), c.unsqueeze(0)])


def test_batch_of_lists_of_equal_lengths() -> None:
    a, b, c, d = t(2, 3), t(2, 3), t(2, 3), t(2, 3)
    result = batch([a, b], [c, d])
    assert result.shape == (2, 2, 2, 3)
    assert_same(result, torch.stack([torch.stack([a, b]), torch.stack([c, d])]))


def test_batch_of_ragged_lists() -> None:
    a, b, c = t(2, 3), t(4, 3), t(2, 3)
    assert_same(batch([a, b], [c]), [[a, b], c.unsqueeze(0)])
    assert_same(batch([a], [b, c]), [a.unsqueeze(0), [b, c]])


def test_batch_of_nothing() -> None:
    assert MultiModalInputs.batch([]) == {}


def test_batch_of_different_arguments() -> None:
    a, b = t(2), t(2)
    result = MultiModalInputs.batch(
        [MultiModalInputs({"image": a}), MultiModalInputs({"audio": b}), MultiModalInputs()]
    )
    assert set(result) == {"image", "audio"}
    assert_same(result["image"], a.unsqueeze(0))
    assert_same(result["audio"], b.unsqueeze(0))


def test_batch_of_arrays_and_numbers() -> None:
    assert_same(batch(np.ones((2, 2))), torch.ones(1, 2, 2, dtype=torch.float64))
    assert_same(batch(3, 4), torch.tensor([3, 4]))
    assert_same(batch([3, 4], [5]), [torch.tensor([3, 4]), torch.tensor([5])])


def test_as_kwargs_moves_every_leaf() -> None:
    moved = MultiModalInputs.as_kwargs(
        {"a": t(2), "b": [t(1), [t(2), t(3)]]}, device=torch.device("meta")
    )
    assert moved["a"].device.type == "meta"
    assert moved["b"][1][1].device.type == "meta"
    assert moved["b"][1][1].shape == (3,)


def test_later_name_of_the_class() -> None:
    assert MultiModalKwargs is MultiModalInputs


class Model(nn.Module, SupportsMultiModal):
    pass


class Submodel(Model):
    pass


def mapper(ctx: InputContext, data: Any, *, scale: int = 1) -> MultiModalInputs:
    return MultiModalInputs({"scaled": torch.tensor(data * scale)})


@pytest.fixture
def config(vision_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    monkeypatch.setitem(ModelRegistry._models, "LlavaForConditionalGeneration", Model)
    return ModelConfig(vision_checkpoint, mm_processor_kwargs={"scale": 3})


def test_mapper_gets_its_options(config: ModelConfig) -> None:
    plugin = ImagePlugin()
    assert plugin.register_input_mapper(mapper)(Model) is Model
    assert plugin.map_input(config, 2)["scaled"].item() == 6  # type: ignore[union-attr]
    mapped = plugin.map_input(config, 2, {"scale": 5, "ctx": None, "other": 1})
    assert mapped["scaled"].item() == 10  # type: ignore[union-attr]


def test_registrations_are_not_inherited(
    config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = ImagePlugin()
    plugin.register_input_mapper(mapper)(Model)
    plugin.register_max_multimodal_tokens(7)(Model)
    monkeypatch.setitem(ModelRegistry._models, "LlavaForConditionalGeneration", Submodel)
    with pytest.raises(KeyError, match="is registered for model class Submodel"):
        plugin.map_input(config, 2)
    assert plugin.get_max_multimodal_tokens(config) == 0


def test_second_registrations_warn_and_win(
    config: ModelConfig, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = ImagePlugin()
    with caplog.at_level(logging.WARNING):
        plugin.register_input_mapper()(Model)
        plugin.register_max_multimodal_tokens(5)(Model)
        assert not caplog.messages
        plugin.register_input_mapper(mapper)(Model)
        plugin.register_max_multimodal_tokens(6)(Model)
    assert caplog.messages[0].startswith(f"Model class {Model} already has an input mapper")
    assert caplog.messages[1].startswith(
        f"Model class {Model} already calculates maximum number of tokens in "
    )
    assert all(m.endswith("It is overwritten by the new one.") for m in caplog.messages)
    assert plugin.map_input(config, 1)["scaled"].item() == 3  # type: ignore[union-attr]
    assert plugin.get_max_multimodal_tokens(config) == 6


def test_maximum_tokens(config: ModelConfig) -> None:
    plugin = ImagePlugin()
    assert plugin.get_max_multimodal_tokens(config) == 0
    plugin.register_input_mapper(mapper)(Model)
    with pytest.raises(KeyError, match="No maximum number of multi-modal tokens is given for"):
        plugin.get_max_multimodal_tokens(config)
    plugin.register_max_multimodal_tokens()(Model)
    assert plugin.get_max_multimodal_tokens(config) == 3000
    plugin.register_max_multimodal_tokens(lambda ctx, *, scale=1: 10 * scale)(Model)
    assert plugin.get_max_multimodal_tokens(config) == 30


def test_maximum_tokens_must_be_positive(config: ModelConfig) -> None:
    text = "You should set the number of tokens to a positive integer. Found: "
    plugin = ImagePlugin()
    with pytest.raises(ValueError) as at_registration:
        plugin.register_max_multimodal_tokens(0)
    assert str(at_registration.value) == text + "0"
    plugin.register_input_mapper(mapper)(Model)
    plugin.register_max_multimodal_tokens(lambda ctx: -2)(Model)
    with pytest.raises(ValueError) as at_use:
        plugin.get_max_multimodal_tokens(config)
    assert str(at_use.value) == text + "-2"


@pytest.mark.parametrize(
    ("plugin", "key", "tokens"),
    [(ImagePlugin(), "image", 3000), (VideoPlugin(), "video", 4096), (AudioPlugin(), "audio", 0)],
)
def test_plugin_defaults(
    config: ModelConfig, plugin: MultiModalPlugin, key: str, tokens: int
) -> None:
    assert plugin.get_data_key() == key
    plugin.register_input_mapper()(Model)
    plugin.register_max_multimodal_tokens()(Model)
    if tokens:
        assert plugin.get_max_multimodal_tokens(config) == tokens
        return
    with pytest.raises(NotImplementedError, match="There is no default maximum multimodal tokens"):
        plugin.get_max_multimodal_tokens(config)
    with pytest.raises(NotImplementedError, match="There is no default audio input mapper"):
        plugin.map_input(config, object())
