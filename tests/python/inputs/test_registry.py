"""Unit: registrations of dummy data and input processors, and what becomes of their options."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from PIL import Image
from torch import nn
from transformers import LlavaConfig, MllamaConfig

from mmcore.config import ModelConfig
from mmcore.errors import InternalError
from mmcore.inputs import (
    DummyData,
    InputContext,
    InputProcessingContext,
    InputRegistry,
    LLMInputs,
    token_inputs,
)
from mmcore.model_executor.models import ModelRegistry, SupportsMultiModal
from mmcore.multimodal import MultiModalRegistry
from mmcore.sequence import SequenceData

DEFAULT_CROPS = 4
CROPS_OVERRIDE = 16


class Model(nn.Module, SupportsMultiModal):
    pass


class Submodel(Model):
    pass


@pytest.fixture
def use_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """Make LLaVA checkpoints run on Model."""
    monkeypatch.setitem(ModelRegistry._models, "LlavaForConditionalGeneration", Model)
    yield Model


@pytest.fixture
def config(vision_checkpoint: str, use_model: type) -> ModelConfig:
    return ModelConfig(vision_checkpoint)


@pytest.fixture
def mm_registry(config: ModelConfig) -> MultiModalRegistry:
    registry = MultiModalRegistry()
    registry.init_mm_limits_per_prompt(config)
    return registry


def profile(
    registry: InputRegistry, config: ModelConfig, mm_registry: MultiModalRegistry, **kwargs: Any
) -> DummyData:
    return registry.dummy_data_for_profiling(config, 8, mm_registry, **kwargs)


def test_default_processor_gives_back_the_same_object(config: ModelConfig) -> None:
    processor = InputRegistry().create_input_processor(config)
    inputs = LLMInputs(prompt_token_ids=[], prompt="")
    assert processor(inputs) is inputs


def test_decorators_return_the_class_unchanged() -> None:
    registry = InputRegistry()
    assert registry.register_dummy_data(lambda *a: None)(Model) is Model
    assert registry.register_dummy_encoder_data(lambda *a: None)(Model) is Model
    assert registry.register_input_processor(lambda ctx, inputs: inputs)(Model) is Model


@pytest.mark.parametrize(
    ("register", "what"),
    [
        ("register_dummy_data", "dummy data"),
        ("register_dummy_encoder_data", "dummy encoder data"),
        ("register_input_processor", "input processor"),
    ],
)
def test_second_registration_warns_and_wins(
    register: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = InputRegistry()
    getattr(registry, register)(lambda *a: 1)(Model)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        getattr(registry, register)(lambda *a: 2)(Model)
    assert f"already has {what} registered to" in caplog.text
    assert caplog.text.count("It is overwritten by the new one.") == 1


def test_registrations_are_not_inherited(
    config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = InputRegistry()
    registry.register_input_processor(lambda ctx, inputs: token_inputs([7]))(Model)
    inputs = token_inputs([1])
    assert registry.process_input(config, inputs)["prompt_token_ids"] == [7]
    monkeypatch.setitem(ModelRegistry._models, "LlavaForConditionalGeneration", Submodel)
    assert registry.process_input(config, inputs) is inputs


@pytest.mark.parametrize(
    ("init", "inference", "expected"),
    [
        (None, None, DEFAULT_CROPS),
        ({"num_crops": CROPS_OVERRIDE}, None, CROPS_OVERRIDE),
        (None, {"num_crops": CROPS_OVERRIDE}, CROPS_OVERRIDE),
        ({"num_crops": DEFAULT_CROPS + 1}, {"num_crops": CROPS_OVERRIDE}, CROPS_OVERRIDE),
        ({"does_not_exist": 100}, {"ctx": "bad", "inputs": "bad"}, DEFAULT_CROPS),
    ],
)
def test_processor_options(
    vision_checkpoint: str, use_model: type, init: Any, inference: Any, expected: int
) -> None:
    seen: list[tuple[InputContext, int]] = []

    def processor(
        ctx: InputContext, inputs: LLMInputs, *, num_crops: int = DEFAULT_CROPS
    ) -> LLMInputs:
        seen.append((ctx, num_crops))
        return token_inputs([num_crops])

    registry = InputRegistry()
    registry.register_input_processor(processor)(Model)
    config = ModelConfig(vision_checkpoint, mm_processor_kwargs=init)
    inputs = LLMInputs(prompt_token_ids=[1], prompt="")
    if inference is not None:
        inputs["mm_processor_kwargs"] = inference
    made = registry.create_input_processor(config)(inputs)
    assert made["prompt_token_ids"] == [expected]
    assert seen == [(InputContext(config), expected)]


def test_dropped_options_are_named(
    vision_checkpoint: str, use_model: type, caplog: pytest.LogCaptureFixture
) -> None:
    registry = InputRegistry()
    registry.register_input_processor(lambda ctx, inputs: inputs)(Model)
    config = ModelConfig(vision_checkpoint, mm_processor_kwargs={"ctx": 1})
    registry.process_input(config, token_inputs([1]))
    assert (
        "The following intended overrides are not keyword-only args and and will be dropped: "
        "{'ctx'}"
    ) in caplog.text


def test_processor_that_forgets_to_return(config: ModelConfig) -> None:
    registry = InputRegistry()
    registry.register_input_processor(lambda ctx, inputs: None)(Model)  # type: ignore[arg-type,return-value]
    with pytest.raises(InternalError, match="returned None; it must return the inputs"):
        registry.process_input(config, token_inputs([1]))


def test_default_dummy_data(config: ModelConfig, mm_registry: MultiModalRegistry) -> None:
    seq_data, mm_data = profile(InputRegistry(), config, mm_registry)
    assert seq_data.prompt_token_ids == (0,) * 8
    assert mm_data is None


def test_factory_gets_context_length_and_counts(vision_checkpoint: str, use_model: type) -> None:
    registry, mm_registry = InputRegistry(), MultiModalRegistry()
    config = ModelConfig(vision_checkpoint, limit_mm_per_prompt={"image": 3})
    mm_registry.init_mm_limits_per_prompt(config)

    def factory(ctx: InputContext, seq_len: int, mm_counts: Mapping[str, int]) -> Any:
        assert ctx == InputContext(config)
        assert dict(mm_counts) == {"image": 3, "audio": 1, "video": 1}
        images = [Image.new("RGB", (2, 2))] * mm_counts["image"]
        counts = ((512, 5), (0, seq_len - 5))
        return SequenceData.from_token_counts(*counts), {"image": images}

    registry.register_dummy_data(factory)(Model)
    made = profile(registry, config, mm_registry)
    assert made.seq_data.prompt_token_ids == (512,) * 5 + (0,) * 3
    assert made.multi_modal_data is not None
    assert len(made.multi_modal_data["image"]) == 3


def test_unknown_modality_in_a_factory(
    config: ModelConfig, mm_registry: MultiModalRegistry
) -> None:
    registry = InputRegistry()
    registry.register_dummy_data(lambda ctx, seq_len, mm_counts: mm_counts["smell"])(Model)
    with pytest.raises(KeyError, match=r"no multi-modal plugin with the key: smell\. Available"):
        profile(registry, config, mm_registry)


@pytest.mark.parametrize(("crops", "expected"), [(None, DEFAULT_CROPS), (16, 16)])
def test_dummy_data_options_are_the_engines(
    vision_checkpoint: str, use_model: type, crops: int | None, expected: int
) -> None:
    def factory(ctx: Any, seq_len: int, counts: Any, *, num_crops: int = DEFAULT_CROPS) -> Any:
        return SequenceData.from_seqs([0] * num_crops), None

    registry, mm_registry = InputRegistry(), MultiModalRegistry()
    registry.register_dummy_data(factory)(Model)
    options = None if crops is None else {"num_crops": crops}
    config = ModelConfig(vision_checkpoint, mm_processor_kwargs=options)
    mm_registry.init_mm_limits_per_prompt(config)
    made = registry.dummy_data_for_profiling(config, -1, mm_registry)
    assert made.seq_data.get_prompt_len() == expected


def test_too_few_dummy_tokens(
    config: ModelConfig, mm_registry: MultiModalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry = InputRegistry()
    registry.register_dummy_data(lambda *a: (SequenceData([0] * 7), None))(Model)
    message = "Expected at least 8 dummy tokens for profiling, but found 7 tokens instead."
    with pytest.raises(AssertionError) as caught:
        profile(registry, config, mm_registry)
    assert str(caught.value) == message
    profile(registry, config, mm_registry, is_encoder_data=True)
    assert message in caplog.text


def test_more_dummy_tokens_are_allowed(
    config: ModelConfig, mm_registry: MultiModalRegistry
) -> None:
    registry = InputRegistry()
    registry.register_dummy_data(lambda *a: DummyData(SequenceData([0] * 9)))(Model)
    assert profile(registry, config, mm_registry).seq_data.get_len() == 9


def test_too_few_dummy_items(config: ModelConfig, mm_registry: MultiModalRegistry) -> None:
    registry = InputRegistry()
    registry.register_dummy_data(lambda *a: (SequenceData([0] * 8), {"image": []}))(Model)
    with pytest.raises(AssertionError) as caught:
        profile(registry, config, mm_registry)
    assert str(caught.value) == (
        "Expected at least 1 dummy 'image' instances for profiling, but found 0 instances instead."
    )


def test_encoder_has_a_factory_of_its_own(
    config: ModelConfig, mm_registry: MultiModalRegistry
) -> None:
    registry = InputRegistry()
    registry.register_dummy_data(lambda *a: (SequenceData([1] * 8), None))(Model)
    encoder = {"is_encoder_data": True}
    assert profile(registry, config, mm_registry, **encoder).seq_data.get_last_token_id() == 1
    registry.register_dummy_encoder_data(lambda *a: (SequenceData([2] * 8), None))(Model)
    assert profile(registry, config, mm_registry, **encoder).seq_data.get_last_token_id() == 2
    assert profile(registry, config, mm_registry).seq_data.get_last_token_id() == 1


def test_context_checks_the_type_of_the_configuration(config: ModelConfig) -> None:
    context = InputContext(config)
    assert context.get_hf_config(LlavaConfig) is config.hf_config
    assert context.get_hf_config() is config.hf_config
    with pytest.raises(TypeError) as caught:
        context.get_hf_config(MllamaConfig)
    assert str(caught.value) == (
        "Invalid type of HuggingFace config. "
        f"Expected type: {MllamaConfig}, but found type: {LlavaConfig}"
    )
    assert context.get_hf_image_processor_config()["size"] == {"shortest_edge": 56}


def test_processing_context_has_tokenizer_and_processor(config: ModelConfig) -> None:
    context = InputProcessingContext(config, tokenizer="tokenizer")  # type: ignore[arg-type]
    assert context.tokenizer == "tokenizer"
    processor = context.get_hf_processor()
    assert type(processor).__name__ == "LlavaProcessor"
    assert context.get_hf_processor() is processor
