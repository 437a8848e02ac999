"""Unit: routing modalities to plugins, limits, and token totals."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmcore.config import ModelConfig
from mmcore.errors import MediaError
from mmcore.model_executor.models import ModelRegistry, SupportsMultiModal
from mmcore.multimodal import MULTIMODAL_REGISTRY, MultiModalInputs, MultiModalRegistry
from mmcore.multimodal.audio import AudioPlugin
from mmcore.multimodal.base import MultiModalPlugin
from mmcore.multimodal.image import ImagePlugin


class Model(nn.Module, SupportsMultiModal):
    pass


class SmellPlugin(AudioPlugin):
    def get_data_key(self) -> str:
        return "smell"


def mapper_to(name: str) -> Any:
    return lambda ctx, data: MultiModalInputs({name: torch.zeros(1)})


@pytest.fixture(autouse=True)
def use_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ModelRegistry._models, "LlavaForConditionalGeneration", Model)


def image(value: int = 0) -> Image.Image:
    return Image.new("RGB", (60, 40), (value, value, value))


def made(vision_checkpoint: str, **limits: int) -> tuple[MultiModalRegistry, ModelConfig]:
    registry = MultiModalRegistry()
    config = ModelConfig(vision_checkpoint, limit_mm_per_prompt=limits or None)
    registry.init_mm_limits_per_prompt(config)
    return registry, config


def test_registries_share_nothing() -> None:
    first, second = MultiModalRegistry(), MultiModalRegistry()
    first.register_image_input_mapper()(Model)
    assert Model in first._get_plugin("image")._input_mappers
    assert Model not in second._get_plugin("image")._input_mappers
    assert Model not in MULTIMODAL_REGISTRY._get_plugin("image")._input_mappers


def test_decorators_of_the_seeds_can_be_stacked() -> None:
    registry = MultiModalRegistry()

    @registry.register_image_input_mapper()
    @registry.register_max_image_tokens(576)
    class Stacked(nn.Module, SupportsMultiModal):
        pass

    assert Stacked.__name__ == "Stacked"
    assert registry._get_plugin("image")._max_mm_tokens[Stacked] == 576


def test_default_limit_is_one(vision_checkpoint: str) -> None:
    registry, config = made(vision_checkpoint)
    assert registry.get_mm_limits_per_prompt(config) == {"image": 1, "audio": 1, "video": 1}


def test_limits_given(vision_checkpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        registry, config = made(vision_checkpoint, image=4, smell=2)
    assert registry.get_mm_limits_per_prompt(config) == {"image": 4, "audio": 1, "video": 1}
    assert caplog.messages == [
        "Detected extra keys in `--limit-mm-per-prompt` which are not registered as multi-modal "
        "plugins: {'smell'}. They will be ignored."
    ]


def test_text_model_has_no_items(text_checkpoint: str) -> None:
    registry, config = MultiModalRegistry(), ModelConfig(text_checkpoint)
    registry.init_mm_limits_per_prompt(config)
    assert set(registry.get_mm_limits_per_prompt(config).values()) == {0}
    with pytest.raises(MediaError) as caught:
        registry.map_input(config, {"image": image()})
    assert caught.value.code == "images_not_supported"
    assert str(caught.value).startswith(
        "You set image=0 (or defaulted to 1) in `--limit-mm-per-prompt`, but found 1 items"
    )


def test_limits_must_be_fixed_first(vision_checkpoint: str) -> None:
    registry, config = MultiModalRegistry(), ModelConfig(vision_checkpoint)
    with pytest.raises(KeyError, match="Did you forget to call `init_mm_limits_per_prompt`"):
        registry.map_input(config, {"image": image()})


def test_fixing_limits_twice_warns(
    vision_checkpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry, config = made(vision_checkpoint)
    registry.init_mm_limits_per_prompt(config)
    assert f"`mm_limits` has already been set for model={config.model}" in caplog.text


@pytest.mark.parametrize(("num_items", "limit"), [(1, 1), (2, 2), (2, 4), (0, 1)])
def test_items_within_the_limit(vision_checkpoint: str, num_items: int, limit: int) -> None:
    registry, config = made(vision_checkpoint, image=limit)
    registry.register_image_input_mapper()(Model)
    images = [image(i) for i in range(num_items)]
    mapped = registry.map_input(config, {"image": images})
    if not num_items:
        assert mapped == {}
        return
    assert mapped["pixel_values"].shape == (num_items, 3, 56, 56)  # type: ignore[union-attr]


@pytest.mark.parametrize(("num_items", "limit"), [(2, 1), (1, 0), (5, 4)])
def test_items_over_the_limit(vision_checkpoint: str, num_items: int, limit: int) -> None:
    registry, config = made(vision_checkpoint, image=limit)
    registry.register_image_input_mapper()(Model)
    images = [image()] * num_items
    with pytest.raises(ValueError) as caught:
        registry.map_input(config, {"image": images if num_items > 1 else images[0]})
    assert str(caught.value) == (
        f"You set image={limit} (or defaulted to 1) in `--limit-mm-per-prompt`, "
        f"but found {num_items} items in the same prompt."
    )
    assert getattr(caught.value, "code", None) == "too_many_items"


def test_embeddings_in_one_tensor_count_one_by_one(vision_checkpoint: str) -> None:
    registry, config = made(vision_checkpoint, image=2)
    registry.register_image_input_mapper()(Model)
    mapped = registry.map_input(config, {"image": torch.zeros(2, 16, 128)})
    assert mapped["image_embeds"].shape == (2, 16, 128)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="found 3 items"):
        registry.map_input(config, {"image": torch.zeros(3, 16, 128)})


def test_unknown_modality(vision_checkpoint: str) -> None:
    registry, config = made(vision_checkpoint)
    with pytest.raises(NotImplementedError, match="Unknown multi-modal data type: smell"):
        registry.map_input(config, {"smell": 1})
    with pytest.raises(NotImplementedError, match="Unknown multi-modal data type: smell"):
        registry.register_input_mapper("smell")


def test_plugin_for_a_modality_of_ones_own(vision_checkpoint: str) -> None:
    registry = MultiModalRegistry()
    config = ModelConfig(vision_checkpoint, limit_mm_per_prompt={"smell": 2})
    registry.register_plugin(SmellPlugin())
    registry.init_mm_limits_per_prompt(config)
    registry.register_input_mapper("smell", mapper_to("odour"))(Model)
    assert set(registry.map_input(config, {"smell": [1, 2]})) == {"odour"}
    with pytest.raises(ValueError, match="You set smell=2"):
        registry.map_input(config, {"smell": [1, 2, 3]})


def test_plugin_that_comes_after_the_limits(vision_checkpoint: str) -> None:
    registry, config = made(vision_checkpoint)
    registry.register_plugin(SmellPlugin())
    registry.register_input_mapper("smell", mapper_to("odour"))(Model)
    assert set(registry.map_input(config, {"smell": 1})) == {"odour"}
    with pytest.raises(ValueError, match="You set smell=1"):
        registry.map_input(config, {"smell": [1, 2]})


def test_replacing_a_plugin_warns(caplog: pytest.LogCaptureFixture) -> None:
    registry, plugin = MultiModalRegistry(), ImagePlugin()
    registry.register_plugin(plugin)
    assert caplog.messages == [
        "A plugin is already registered for data type image, and will be overwritten by the new "
        f"plugin {plugin}."
    ]
    assert registry._get_plugin("image") is plugin


def test_two_modalities_with_one_argument(vision_checkpoint: str) -> None:
    registry, config = made(vision_checkpoint)
    for key in ("image", "audio"):
        registry.register_input_mapper(key, mapper_to("pixel_values"))(Model)
    with pytest.raises(ValueError) as caught:
        registry.map_input(config, {"image": image(), "audio": (np.zeros(3), 16000)})
    text = str(caught.value)
    assert text.startswith("The input mappers (keys={")
    assert text.endswith("resulted in a conflicting keyword argument to `forward()`: pixel_values")


def test_bound_mapper(vision_checkpoint: str) -> None:
    registry, config = made(vision_checkpoint)
    registry.register_image_input_mapper(mapper_to("x"))(Model)
    assert set(registry.create_input_mapper(config)({"image": image()})) == {"x"}


def test_token_totals(vision_checkpoint: str) -> None:
    registry, config = made(vision_checkpoint, image=3)
    assert registry.get_max_multimodal_tokens(config) == 0
    registry.register_image_input_mapper()(Model)
    registry.register_max_image_tokens(576)(Model)
    registry.register_input_mapper("audio", mapper_to("x"))(Model)
    registry.register_max_multimodal_tokens("audio", 10)(Model)
    assert registry.get_max_multimodal_tokens(config) == 3 * 576 + 10
    assert registry.get_max_tokens_per_item(config) == {"image": 576, "audio": 10}


def test_a_registry_does_not_keep_models_alive(vision_checkpoint: str) -> None:
    registry, config = made(vision_checkpoint)
    reference = weakref.ref(config)
    del config
    gc.collect()
    assert reference() is None
    assert len(registry._limits_by_model) == 0


def test_plugins_given_replace_the_default_ones() -> None:
    plugins: list[MultiModalPlugin] = [SmellPlugin()]
    registry = MultiModalRegistry(plugins=plugins)
    assert list(registry._plugins) == ["smell"]
