"""The run on dummy data that checks a model's registrations. Layer: runner, tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_fixtures import make_llm

from mmcore.errors import ValidationError
from mmcore.inputs import INPUT_REGISTRY
from mmcore.model_executor.models import ModelRegistry
from mmcore.multimodal import MULTIMODAL_REGISTRY
from mmcore.sequence import SequenceData


@pytest.fixture
def model_cls() -> Any:
    return ModelRegistry.resolve_model_cls("LlavaForConditionalGeneration")[0]


def test_the_vocabulary_of_the_logits_is_found(llava_folder: Path) -> None:
    engine = make_llm(llava_folder).llm_engine
    assert engine.core_config.logits_size == engine.core_config.vocab_size == 261
    assert engine.core_config.split_media_items
    assert engine.core_config.multimodal


def test_dummy_data_beyond_the_registered_maximum(
    llava_folder: Path, model_cls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = MULTIMODAL_REGISTRY._get_plugin("image")
    monkeypatch.setitem(plugin._max_mm_tokens, model_cls, 3)
    with pytest.raises(ValidationError, match=r"use 4 tokens .* maximum is 3"):
        make_llm(llava_folder)


def test_dummy_data_that_fail_to_run(
    llava_folder: Path, model_cls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_short(ctx: Any, seq_len: int, mm_counts: Any) -> Any:
        return SequenceData.from_token_counts((0, seq_len - 1)), None

    factories = INPUT_REGISTRY._dummy_factories_by_model_type
    monkeypatch.setitem(factories, model_cls, too_short)
    with pytest.raises(AssertionError, match="dummy tokens for profiling"):
        make_llm(llava_folder)


def test_images_that_cannot_fit_the_context_are_only_warned_of(
    llava_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    llm = make_llm(llava_folder, max_model_len=4)
    assert "max_model_len is 4" in caplog.text
    assert llm.generate([{"prompt_token_ids": [7]}], use_tqdm=False)[0].error is None
