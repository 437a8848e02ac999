"""EngineArgs. Layer: configuration, no weights."""

from __future__ import annotations

from typing import Any

import pytest

from mmcore import EngineArgs
from mmcore.errors import CheckpointError, ValidationError


def test_defaults_of_a_text_model(text_checkpoint: str) -> None:
    config = EngineArgs(model=text_checkpoint).create_engine_config()
    assert config.scheduler_config.enable_chunked_prefill
    assert config.scheduler_config.max_num_batched_tokens == 2048
    assert config.cache_config.enable_prefix_caching
    assert config.model_config.max_model_len == 2048


def test_a_multimodal_model_gets_room_for_an_image(vision_checkpoint: str) -> None:
    config = EngineArgs(model=vision_checkpoint).create_engine_config()
    assert config.scheduler_config.max_num_batched_tokens == 5120
    assert config.cache_config.enable_prefix_caching


def test_without_chunks_the_budget_holds_the_longest_prompt(text_checkpoint: str) -> None:
    args = EngineArgs(model=text_checkpoint, enable_chunked_prefill=False)
    assert args.create_engine_config().scheduler_config.max_num_batched_tokens >= 2048
    args.max_num_batched_tokens = 100
    with pytest.raises(ValidationError, match="max_num_batched_tokens"):
        args.create_engine_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel_size": 2}, "tensor_parallel_size must be 1"),
        ({"pipeline_parallel_size": 4}, "pipeline_parallel_size must be 1"),
        ({"quantization": "awq"}, "not supported"),
        ({"cpu_offload_gb": 4}, "cpu_offload_gb"),
        ({"block_size": 3}, "block_size"),
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ({"scheduling_policy": "lifo"}, "policy"),
        ({"load_format": "pickle"}, "load_format"),
        ({"device": "tpu"}, "device"),
        ({"max_logprobs": -1}, "max_logprobs"),
        ({"encoder_budget": 0}, "encoder_budget"),
        ({"max_model_len": 100_000}, "positions"),
        ({"limit_mm_per_prompt": {"image": 2}}, "only supported for multimodal"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_refusals(text_checkpoint: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EngineArgs(model=text_checkpoint, **options).create_engine_config()


def test_a_missing_folder(tmp_path: Any) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        EngineArgs(model=str(tmp_path / "nothing")).create_engine_config()


def test_seed_era_options_without_effect_are_accepted(text_checkpoint: str) -> None:
    EngineArgs.from_kwargs(
        model=text_checkpoint, swap_space=8, enforce_eager=True, disable_log_stats=True
    ).create_engine_config()


def test_an_unknown_option_names_its_neighbours() -> None:
    with pytest.raises(TypeError, match="max_model_len"):
        EngineArgs.from_kwargs(model="x", max_modellen=5)
