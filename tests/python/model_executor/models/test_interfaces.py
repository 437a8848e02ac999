"""Unit: the interfaces of the seeds, by inheritance and by structure."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from mmcore.config import MultiModalConfig
from mmcore.model_executor.models import (
    HasInnerState,
    SupportsEncoderSplit,
    SupportsLoRA,
    SupportsMultiModal,
    SupportsPP,
    SupportsVision,
    has_inner_state,
    supports_encoder_split,
    supports_lora,
    supports_multimodal,
    supports_pp,
    supports_vision,
)


class Plain(nn.Module):
    pass


class SeedModel(nn.Module, SupportsMultiModal):
    def __init__(self, config: Any, multimodal_config: MultiModalConfig) -> None:
        super().__init__()
        self.config = config
        self.multimodal_config = multimodal_config
        self.layer = nn.Linear(2, 2)


class OlderModel(nn.Module, SupportsVision):
    pass


class Structural(nn.Module):
    supports_multimodal = True


class OlderStructural(nn.Module):
    supports_vision = True


class SwitchedOff(SeedModel):
    supports_multimodal = False  # type: ignore[assignment]


class Extended(SeedModel):
    def embed_multimodal(self, **kwargs: Any) -> Any:
        return []

    def embed_input_ids(self, input_ids: Any, multimodal_embeddings: Any = None, **kw: Any) -> Any:
        return input_ids


class HalfExtended(SeedModel):
    embed_multimodal = Extended.embed_multimodal


@pytest.mark.parametrize("model", [SeedModel, OlderModel, Structural, OlderStructural, Extended])
def test_multimodal_classes(model: type) -> None:
    assert supports_multimodal(model)
    assert supports_vision(model)


@pytest.mark.parametrize("model", [Plain, nn.Module, SwitchedOff, object])
def test_other_classes(model: type) -> None:
    assert not supports_multimodal(model)
    assert not supports_vision(model)


def test_instances_keep_what_their_constructor_set() -> None:
    model = SeedModel("config", MultiModalConfig({"image": 2}))
    assert supports_multimodal(model)
    assert isinstance(model, SupportsMultiModal)
    assert not supports_multimodal(Plain())
    assert model.multimodal_config.limit_per_prompt == {"image": 2}
    assert len(list(model.parameters())) == 2


def test_older_interface_is_the_newer_one() -> None:
    assert SupportsMultiModal in OlderModel.__mro__
    assert isinstance(OlderModel(), SupportsMultiModal)


def test_extended_level_needs_both_methods() -> None:
    assert supports_encoder_split(Extended)
    assert supports_encoder_split(Extended(None, MultiModalConfig()))
    assert isinstance(Extended(None, MultiModalConfig()), SupportsEncoderSplit)
    assert not supports_encoder_split(HalfExtended)
    assert not supports_encoder_split(SeedModel)


def test_sibling_interfaces() -> None:
    class Everything(SeedModel, SupportsLoRA, SupportsPP, HasInnerState):
        pass

    for check in (supports_lora, supports_pp, has_inner_state):
        assert check(Everything)
        assert not check(SeedModel)
