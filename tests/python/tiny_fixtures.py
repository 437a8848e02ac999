"""Fixtures over tiny checkpoints; conftest.py files of the folders that need them import these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

from mmcore import LLM

# Tiny tensors gain nothing from more threads, and a busy machine makes them wait.
torch.set_num_threads(1)

LLMFactory = Callable[..., LLM]


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.make_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def make_llama(llama_folder: Path) -> LLMFactory:
    return lambda **options: make_llm(llama_folder, **options)


@pytest.fixture(scope="session")
def make_llava(llava_folder: Path) -> LLMFactory:
    return lambda **options: make_llm(llava_folder, **options)


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> LLM:
    """A text model that tests share; leave nothing running in it."""
    return make_llm(llama_folder)


@pytest.fixture(scope="session")
def llava(llava_folder: Path) -> LLM:
    """A vision model that tests share; leave nothing running in it."""
    return make_llm(llava_folder, limit_mm_per_prompt={"image": 2})


def make_llm(folder: Path, **options: Any) -> LLM:
    """An engine with a small pool."""
    options.setdefault("num_gpu_blocks_override", 200)
    return LLM(str(folder), dtype="float32", **options)


def picture(seed: int, width: int = 40, height: int = 32) -> Image.Image:
    """A picture that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def with_picture(seed: int, text: str = "<image>what?") -> dict[str, Any]:
    """A prompt with one picture."""
    return {"prompt": text, "multi_modal_data": {"image": picture(seed)}}


def assert_idle(llm: LLM) -> None:
    """Nothing of any request is left anywhere."""
    engine = llm.llm_engine
    metrics = engine.metrics()
    left = ("num_waiting", "num_running", "blocks_used", "encoder_entries_pinned")
    assert {name: metrics[name] for name in left} == dict.fromkeys(left, 0)
    assert engine.check_invariants() == []
    assert not engine.has_unfinished_requests()
    assert engine.model_runner.num_requests == 0
    encoder = engine.model_runner.encoder
    if encoder is not None:
        assert len(encoder) == metrics["encoder_entries"]


def spoil_odd_requests(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on each second request of an engine, by its number in the core, gets NaN logits."""
    model = llm.llm_engine.model_runner.model
    compute = model.compute_logits

    def broken(hidden: torch.Tensor, metadata: Any) -> torch.Tensor:
        logits: torch.Tensor = compute(hidden, metadata)
        for request, row in metadata.rows.sequences[["request", "sample_row"]].tolist():
            if request % 2 == 1 and row >= 0:
                logits[row] = float("nan")
        return logits

    monkeypatch.setattr(model, "compute_logits", broken)
