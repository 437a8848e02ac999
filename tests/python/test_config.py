"""Unit: each configuration's checks, on checkpoint folders without weights."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcore import _C
from mmcore.config import (
    CacheConfig,
    DeviceConfig,
    LoadConfig,
    ModelConfig,
    MultiModalConfig,
    SchedulerConfig,
)
from mmcore.errors import CheckpointError, ValidationError


def test_sizes_come_from_the_language_model(vision_checkpoint: str) -> None:
    config = ModelConfig(vision_checkpoint)
    assert config.architectures == ["LlavaForConditionalGeneration"]
    assert config.hf_config.model_type == "llava"
    assert config.hf_text_config.model_type == "llama"
    assert config.get_vocab_size() == 513
    assert config.get_hidden_size() == 128
    assert config.get_num_layers() == 2
    assert config.get_num_attention_heads() == 4
    assert config.get_num_kv_heads() == 2
    assert config.get_head_size() == 32
    assert config.hf_image_processor_config["crop_size"] == {"height": 56, "width": 56}


def test_heads_are_split_or_replicated(text_checkpoint: str) -> None:
    config = ModelConfig(text_checkpoint)
    assert config.get_num_attention_heads(2) == 2
    assert config.get_num_kv_heads(2) == 1
    assert config.get_num_kv_heads(4) == 1
    with pytest.raises(ValidationError, match="4 query heads cannot be split over 3 devices"):
        config.get_num_attention_heads(3)


def test_text_only_model(text_checkpoint: str) -> None:
    config = ModelConfig(text_checkpoint)
    assert not config.is_multimodal_model
    assert config.multimodal_config is None
    assert config.hf_text_config is config.hf_config
    assert config.hf_image_processor_config == {}


def test_limits_of_a_multimodal_model(vision_checkpoint: str) -> None:
    config = ModelConfig(vision_checkpoint, limit_mm_per_prompt={"image": 3})
    assert config.multimodal_config == MultiModalConfig({"image": 3})
    assert ModelConfig(vision_checkpoint).multimodal_config == MultiModalConfig({})


def test_limits_of_a_text_model_are_refused(text_checkpoint: str) -> None:
    with pytest.raises(ValueError) as caught:
        ModelConfig(text_checkpoint, limit_mm_per_prompt={"image": 1})
    assert str(caught.value) == "`limit_mm_per_prompt` is only supported for multimodal models."


@pytest.mark.parametrize("limits", [{"image": -1}, {"image": 1.5}, {"image": True}, {1: 1}, [1]])
def test_bad_limits(vision_checkpoint: str, limits: Any) -> None:
    with pytest.raises(ValidationError, match="limit_mm_per_prompt"):
        ModelConfig(vision_checkpoint, limit_mm_per_prompt=limits)


def test_folders_that_hold_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        ModelConfig(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        ModelConfig(str(tmp_path))
    (tmp_path / "config.json").write_text("{ not json")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        _ = ModelConfig(str(tmp_path)).hf_config
    with pytest.raises(CheckpointError, match=r"is a file; give the folder"):
        ModelConfig(str(tmp_path / "config.json"))
    with pytest.raises(ValidationError, match="model must be a folder or a hub name"):
        ModelConfig("")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("auto", torch.float16),
        ("half", torch.float16),
        ("float", torch.float32),
        ("bfloat16", torch.bfloat16),
        (torch.float32, torch.float32),
    ],
)
def test_dtype(vision_checkpoint: str, dtype: Any, expected: torch.dtype) -> None:
    assert ModelConfig(vision_checkpoint, dtype=dtype).dtype is expected


def test_float16_on_a_cpu(vision_checkpoint: str, text_checkpoint: str) -> None:
    auto = ModelConfig(vision_checkpoint)
    assert auto.dtype_for("cpu") is torch.float32
    assert auto.dtype_for("cuda") is torch.float16
    assert ModelConfig(text_checkpoint).dtype_for("cpu") is torch.bfloat16
    with pytest.raises(ValidationError, match="float16 is not supported on a CPU"):
        ModelConfig(vision_checkpoint, dtype="half").dtype_for("cpu")


@pytest.mark.parametrize("dtype", ["int8", "float64", "", None])
def test_unknown_dtype(text_checkpoint: str, dtype: Any) -> None:
    with pytest.raises(ValidationError, match="Unknown dtype"):
        ModelConfig(text_checkpoint, dtype=dtype)


def test_max_model_len(text_checkpoint: str) -> None:
    assert ModelConfig(text_checkpoint).max_model_len == 2048
    assert ModelConfig(text_checkpoint, max_model_len=100).max_model_len == 100
    with pytest.raises(ValidationError, match=r"max_model_len=2049 is more than .* 2048") as caught:
        ModelConfig(text_checkpoint, max_model_len=2049)
    assert caught.value.code == "max_model_len_too_large"
    with pytest.raises(ValidationError, match="max_model_len must be at least 1"):
        ModelConfig(text_checkpoint, max_model_len=0)


def test_registries_can_key_by_it_weakly(text_checkpoint: str) -> None:
    config = ModelConfig(text_checkpoint)
    assert config != ModelConfig(text_checkpoint)
    reference = weakref.ref(config)
    table = weakref.WeakKeyDictionary({config: 1})
    assert table[config] == 1
    del config
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"block_size": 12}, "block_size must be one of 1, 2, 4, 8, 16, 32, 64, 128, got 12"),
        ({"block_size": 256}, "got 256"),
        ({"gpu_memory_utilization": 0}, r"gpu_memory_utilization must be in \(0, 1\], got 0.0"),
        ({"gpu_memory_utilization": 1.1}, r"must be in \(0, 1\]"),
        ({"gpu_memory_utilization": float("nan")}, "must be finite"),
        ({"num_gpu_blocks_override": 1}, "num_gpu_blocks_override must be at least 2"),
        ({"cache_dtype": "int4"}, "cache_dtype must be one of auto"),
    ],
    ids=str,
)
def test_cache_config_refusals(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CacheConfig(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens must be at least 1, got 0"),
        ({"max_num_seqs": "8"}, "max_num_seqs must be an integer, got '8'"),
        ({"max_queued_requests": -1}, "max_queued_requests must be at least 0"),
        ({"policy": "lifo"}, "policy must be one of fcfs, priority, longest_prefix, got 'lifo'"),
    ],
    ids=str,
)
def test_scheduler_config_refusals(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SchedulerConfig(**kwargs)


def test_unchunked_prompts_need_the_whole_budget() -> None:
    unchunked = SchedulerConfig(max_num_batched_tokens=64, enable_chunked_prefill=False)
    with pytest.raises(ValidationError, match=r"\(64\) is smaller than max_model_len \(65\)"):
        unchunked.check_against(65)
    unchunked.check_against(64)
    SchedulerConfig(max_num_batched_tokens=64).check_against(65)


@pytest.mark.parametrize(
    ("max_model_len", "chunked", "multimodal", "expected"),
    [
        (100_000, True, False, 2048),
        (100_000, True, True, 5120),
        (100_000, False, True, 100_000),
        (512, False, False, 2048),
    ],
)
def test_default_token_budget(
    max_model_len: int, chunked: bool, multimodal: bool, expected: int
) -> None:
    budget = SchedulerConfig.default_max_num_batched_tokens(
        max_model_len, chunked=chunked, multimodal=multimodal
    )
    assert budget == expected


def test_devices() -> None:
    assert DeviceConfig("cpu").device_type == "cpu"
    on_gpu = _C.with_cuda and torch.cuda.is_available()
    assert DeviceConfig().device_type == ("cuda" if on_gpu else "cpu")
    if _C.with_cuda:
        assert DeviceConfig("cuda:1").device_type == "cuda"
    else:
        with pytest.raises(ValidationError, match="CUDA kernels"):
            _ = DeviceConfig("cuda:1").device_type
    for bad in ("tpu", "cuda:x", "cpu:1", ""):
        with pytest.raises(ValidationError, match="device must be"):
            DeviceConfig(bad)


def test_load_format() -> None:
    assert LoadConfig("dummy").load_format == "dummy"
    with pytest.raises(ValidationError, match="load_format must be one of"):
        LoadConfig("pickle")  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [CacheConfig(), SchedulerConfig(), LoadConfig(), DeviceConfig()])
def test_configurations_are_frozen(config: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, 1)
