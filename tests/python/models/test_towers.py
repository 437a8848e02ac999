"""CLIP's and SigLIP's towers against transformers in float32. Layer: model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import tiny

from mmcore.errors import CheckpointError, ValidationError
from mmcore.model_executor.layers.parameter import WeightShapeError
from mmcore.model_executor.models.clip import CLIPVisionModel
from mmcore.model_executor.models.siglip import SiglipVisionModel
from mmcore.model_executor.models.vision_encoder import (
    PatchEmbedding,
    layers_needed,
    resolve_feature_layers,
)

pytestmark = pytest.mark.hf

TOLERANCE = 1e-4
KINDS: dict[str, Any] = {
    "clip": (CLIPVisionModel, lambda: tiny.clip_config()),
    "clip gelu": (CLIPVisionModel, lambda: tiny.clip_config(hidden_act="gelu")),
    "siglip": (SiglipVisionModel, lambda: tiny.siglip_config()),
    # Patches do not divide the image: the rest is left out.
    "siglip rest": (SiglipVisionModel, lambda: tiny.siglip_config(image_size=60)),
    "siglip head": (SiglipVisionModel, lambda: tiny.siglip_config(vision_use_head=True)),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    cls, config = KINDS[request.param]
    return cls, config()


def reference_of(config: Any) -> Any:
    import transformers as tf

    model = tf.AutoModel.from_config(config, attn_implementation="eager").float().eval()
    tiny.randomize(model, 3)
    return model


def pixels(config: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(8)
    return torch.randn(3, 3, config.image_size, config.image_size, generator=generator)


@torch.inference_mode()
def test_every_state(kind: tuple[Any, Any]) -> None:
    cls, config = kind
    reference = reference_of(config)
    tower = cls(config)
    tower.load_weights(reference.state_dict().items())
    want = reference(pixels(config), output_hidden_states=True)
    got = tower.hidden_states(pixels(config), range(config.num_hidden_layers + 1))
    for state, (a, b) in enumerate(zip(got, want.hidden_states, strict=True)):
        assert tiny.worst(a, b) < TOLERANCE, f"state {state}"
    last = reference.post_layernorm(want.hidden_states[-1])
    assert tiny.worst(tower(pixels(config)), last) < TOLERANCE


@torch.inference_mode()
def test_a_truncated_tower_skips_what_it_has_not(kind: tuple[Any, Any]) -> None:
    cls, config = kind
    reference = reference_of(config)
    tower = cls(config, num_hidden_layers_override=2)
    loaded = tower.load_weights(
        (f"vision_model.{name}", tensor) for name, tensor in reference.state_dict().items()
    )
    assert loaded == {name for name, _ in tower.named_parameters()}
    assert tower.post_layernorm is None
    want = reference(pixels(config), output_hidden_states=True).hidden_states[2]
    assert tiny.worst(tower(pixels(config)), want) < TOLERANCE


def test_patch_embedding_is_the_convolution() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 10, 4, stride=4)
    layer = PatchEmbedding(3, 10, 4, bias=True)
    with torch.no_grad():
        layer.weight.copy_(conv.weight)
        assert layer.bias is not None
        layer.bias.copy_(conv.bias)  # type: ignore[arg-type]
        x = torch.randn(2, 3, 14, 9)
        assert tiny.worst(layer(x), conv(x).flatten(2).transpose(1, 2)) < 1e-6


@pytest.mark.parametrize(
    ("layers", "states"), [(-2, [23]), (-1, [24]), (0, [0]), (24, [24]), ([-2, 5], [23, 5])]
)
def test_feature_layers_are_numbered_as_hidden_states(layers: Any, states: list[int]) -> None:
    assert resolve_feature_layers(layers, 24) == states
    assert layers_needed(layers, 24) == max(states)


@pytest.mark.parametrize("layer", [25, -26])
def test_feature_layers_outside_of_the_tower_are_refused(layer: int) -> None:
    with pytest.raises(CheckpointError, match=f"vision_feature_layer={layer}"):
        resolve_feature_layers(layer, 24)


def test_bad_configurations_are_refused() -> None:
    with pytest.raises(ValidationError, match="cannot be built with 4"):
        CLIPVisionModel(tiny.clip_config(), num_hidden_layers_override=4)
    with pytest.raises(CheckpointError, match="multiple of its patch_size"):
        CLIPVisionModel(tiny.clip_config(image_size=60))


def test_a_tensor_of_another_shape_is_refused() -> None:
    tower = SiglipVisionModel(tiny.siglip_config())
    with pytest.raises(WeightShapeError, match=r"\[64, 60\], expected \[64, 64\]"):
        tower.load_weights([("encoder.layers.0.self_attn.k_proj.weight", torch.zeros(64, 60))])
