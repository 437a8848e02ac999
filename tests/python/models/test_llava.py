"""LLaVA-1.5 against transformers in float32, at both levels of the interface. Layer: model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny
from models.paged import PagedRun, run_whole

from mmcore.errors import CheckpointError, ValidationError
from mmcore.model_executor.models.interfaces import supports_encoder_split, supports_multimodal
from mmcore.model_executor.models.llama import LlamaForCausalLM

pytestmark = pytest.mark.hf

TOLERANCE = 1e-4
FULL_SIGLIP = {
    "vision_config": tiny.siglip_config(),
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
CONFIGS: dict[str, Any] = {
    "clip": lambda: tiny.llava_config(),
    "clip full": lambda: tiny.llava_config(vision_feature_select_strategy="full"),
    "clip, two layers": lambda: tiny.llava_config(vision_feature_layer=[-3, 2]),
    "clip, first layer": lambda: tiny.llava_config(vision_feature_layer=1),
    "siglip full": lambda: tiny.llava_config(**FULL_SIGLIP),
    "siglip default": lambda: tiny.llava_config(vision_config=tiny.siglip_config()),
    "no bias, qwen2 tied": lambda: tiny.llava_config(
        text_config=tiny.qwen2_config(tie_word_embeddings=True),
        multimodal_projector_bias=False,
        projector_hidden_act="quick_gelu",
    ),
    "mistral": lambda: tiny.llava_config(text_config=tiny.mistral_config(sliding_window=9)),
}


@pytest.fixture(scope="module", params=CONFIGS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    return tiny.both(CONFIGS[request.param](), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.both(tiny.llava_config(), tmp_path_factory.mktemp("checkpoint"))[1]


@pytest.fixture(autouse=True)
def inference() -> Any:
    with torch.inference_mode():
        yield


def images(count: int, seed: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE, generator=generator)


def prompt(rows: int, count: int) -> torch.Tensor:
    image = [tiny.IMAGE_TOKEN] * rows
    parts = [[5, 6, 7], *[[*image, 8 + i] for i in range(count)], [20, 21]]
    return torch.tensor([token for part in parts for token in part])


def hf_features(reference: Any, pixels: torch.Tensor) -> list[torch.Tensor]:
    return list(reference.get_image_features(pixel_values=pixels).pooler_output)


def test_features_of_images(pair: tuple[Any, Any]) -> None:
    reference, model = pair
    pixels = images(3)
    want = hf_features(reference, pixels)
    # One prompt with three images; three prompts with one; lists, where shapes would differ.
    for nested in (pixels[None], pixels[:, None], [[pixels[0]], [pixels[1], pixels[2]]]):
        got = model.embed_multimodal(pixel_values=nested)
        assert [g.shape for g in got] == [w.shape for w in want]
        assert max(tiny.worst(g, w) for g, w in zip(got, want, strict=True)) < TOLERANCE


def test_logits_at_both_levels(pair: tuple[Any, Any]) -> None:
    reference, model = pair
    pixels = images(2)
    features = model.embed_multimodal(pixel_values=pixels)
    ids = prompt(features[0].shape[0], 2)
    want = reference(input_ids=ids[None], pixel_values=pixels).logits[0]
    assert want.abs().max() > 1
    seed_level = run_whole(model, ids, pixel_values=pixels[None])
    assert tiny.worst(seed_level, want) < TOLERANCE
    merged = model.embed_input_ids(ids, features, is_multimodal=ids == tiny.IMAGE_TOKEN)
    extended = run_whole(model, ids, inputs_embeds=merged)
    assert tiny.worst(extended, want) < TOLERANCE


def test_text_alone(pair: tuple[Any, Any]) -> None:
    reference, model = pair
    ids = torch.arange(3, 30)
    want = reference(input_ids=ids[None]).logits[0]
    assert tiny.worst(run_whole(model, ids), want) < TOLERANCE
    assert tiny.worst(run_whole(model, ids, pixel_values=None), want) < TOLERANCE


def test_a_chunk_may_end_inside_an_image(pair: tuple[Any, Any]) -> None:
    reference, model = pair
    pixels = images(1)
    features = model.embed_multimodal(pixel_values=pixels[None])[0]
    ids = prompt(len(features), 1)
    want = reference(input_ids=ids[None], pixel_values=pixels).logits[0]
    run, got, done = PagedRun(model), [], 0
    for end in (3 + 5, 3 + len(features) - 1, len(ids)):
        mask = ids[done:end] == tiny.IMAGE_TOKEN
        first = int((ids[:done] == tiny.IMAGE_TOKEN).sum())
        rows = features[first : first + int(mask.sum())]
        embeds = model.embed_input_ids(ids[done:end], [rows], is_multimodal=mask)
        got += run.step([("a", ids[done:end])], inputs_embeds=embeds)
        done = end
    assert tiny.worst(torch.cat(got), want) < TOLERANCE


def test_embeddings_instead_of_images(clip_model: Any) -> None:
    pixels = images(2)
    features = clip_model.embed_multimodal(pixel_values=pixels)
    ids = prompt(16, 2)
    want = run_whole(clip_model, ids, pixel_values=pixels)
    stacked = torch.stack(features)
    for embeds in (stacked, stacked[None], features, [stacked[:1], stacked[1:]]):
        assert torch.equal(run_whole(clip_model, ids, image_embeds=embeds), want)
    ragged = clip_model.embed_multimodal(image_embeds=[features[0], features[1][:3]])
    assert [len(rows) for rows in ragged] == [16, 3]


def test_placeholders_and_embeddings_must_agree(clip_model: Any) -> None:
    with pytest.raises(ValueError, match=r"Attempted to assign 16 = 16 .* to 15 placeholders"):
        run_whole(clip_model, prompt(15, 1), pixel_values=images(1))


def test_wrong_shapes_are_refused(clip_model: Any) -> None:
    with pytest.raises(ValueError, match=r"expected shape of pixel values is .*'56', '56'"):
        clip_model.embed_multimodal(pixel_values=torch.zeros(1, 3, 42, 42))
    with pytest.raises(ValueError, match="expected shape of image embeddings"):
        clip_model.embed_multimodal(image_embeds=torch.zeros(4))
    with pytest.raises(ValueError, match="either pixel_values or image_embeds"):
        clip_model.embed_multimodal()
    with pytest.raises(ValueError, match="either pixel_values or image_embeds"):
        clip_model.embed_multimodal(pixel_values=images(1), image_embeds=torch.zeros(1, 2, 96))


def test_interfaces(clip_model: Any) -> None:
    assert supports_multimodal(clip_model)
    assert supports_encoder_split(clip_model)
    assert isinstance(clip_model.get_language_model(), LlamaForCausalLM)


def test_unused_layers_of_the_tower_are_not_built(clip_model: Any) -> None:
    assert len(clip_model.vision_tower.encoder.layers) == 2
    assert clip_model.vision_tower.post_layernorm is None


def test_both_layouts_of_a_checkpoint(tmp_path: Path) -> None:
    reference = tiny.make(tiny.llava_config())
    hub, _ = tiny.load(tiny.save(reference, tmp_path / "hub", hub=True))
    native, _ = tiny.load(tiny.save(reference, tmp_path / "native"))
    # What transformers 5 holds in memory, and may write one day.
    nested = {f"{name}": tensor for name, tensor in reference.state_dict().items()}
    assert "model.language_model.layers.0.mlp.up_proj.weight" in nested
    before = {name: p.clone() for name, p in hub.named_parameters()}
    for p in hub.parameters():
        p.zero_()
    assert hub.load_weights(nested.items()) == set(before)
    for name, p in hub.named_parameters():
        assert torch.equal(p, before[name]), name
        assert torch.equal(p, native.get_parameter(name)), name


def test_what_is_not_supported_is_named() -> None:
    import transformers as tf

    from mmcore.model_executor.models.llava import LlavaForConditionalGeneration as Llava

    with pytest.raises(CheckpointError, match=r"pixtral.*clip_vision_model"):
        Llava(tiny.llava_config(vision_config=tf.PixtralVisionConfig()))
    with pytest.raises(ValidationError, match="GPT2LMHeadModel"):
        Llava(tiny.llava_config(text_config=tf.GPT2Config()))
    config = tiny.llava_config()
    object.__setattr__(config, "vision_feature_select_strategy", "some")
    with pytest.raises(CheckpointError, match="Unexpected select feature strategy: some"):
        Llava(config)
