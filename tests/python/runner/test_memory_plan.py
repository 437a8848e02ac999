"""The memory plan: arithmetic over bytes. Layer: unit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcore import LLM
from mmcore.config import CacheConfig, ModelConfig
from mmcore.errors import ValidationError
from mmcore.model_executor.kv_cache import KvCacheSpec, allocate_kv_caches
from mmcore.model_executor.memory_plan import (
    MemoryRequest,
    available_cpu_bytes,
    plan_memory,
)

BLOCK = 1000
REQUEST = MemoryRequest(
    device="cuda:0",
    budget_bytes=100_000,
    weights_bytes=40_000,
    encoder_cache_bytes=5_000,
    workspace_bytes=5_000,
    bytes_per_block=BLOCK,
    block_size=16,
    max_model_len=160,
    max_num_seqs=256,
)


def test_the_kv_cache_gets_the_rest() -> None:
    plan = plan_memory(REQUEST)
    assert plan.num_blocks == 50
    assert plan.kv_bytes == 50_000
    assert plan.kv_tokens == 49 * 16, "the null block holds nothing"


@pytest.mark.parametrize(
    ("changes", "num_blocks"),
    [
        ({"max_num_seqs": 2}, 2 * 10 + 1),  # no more than all sequences can use
        ({"kv_bytes_cap": 20_000}, 20),
        ({"kv_bytes_cap": 3_000}, 11),  # but one sequence of full length
        ({"num_blocks_override": 7}, 7),
        ({"budget_bytes": 61_999, "max_model_len": 16}, 11),  # rounded down
    ],
)
def test_limits(changes: dict[str, Any], num_blocks: int) -> None:
    assert plan_memory(replace(REQUEST, **changes)).num_blocks == num_blocks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_bytes": 45_000}, r"No available memory for the cache blocks\. Try increasing"),
        ({"budget_bytes": 51_999}, "No available memory"),
        (
            {"budget_bytes": 60_000},
            r"max seq len \(160\) is larger than .* stored in KV cache \(144\)",
        ),
    ],
)
def test_too_little_memory(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        plan_memory(replace(REQUEST, **changes))


def test_an_override_below_one_sequence_warns(caplog: pytest.LogCaptureFixture) -> None:
    plan_memory(replace(REQUEST, num_blocks_override=5))
    assert "holds 64 tokens, fewer than max_model_len=160" in caplog.text


def test_the_plan_describes_itself() -> None:
    first, second = plan_memory(REQUEST).lines()
    for part in ("cuda:0", "97.66 KiB", "weights 39.06 KiB", "KV cache 48.83 KiB"):
        assert part in first
    for part in ("49 blocks of 16 tokens", "784 tokens", "4.9 sequences of 160"):
        assert part in second


def test_host_memory_for_evicted_blocks() -> None:
    request = replace(REQUEST, host_kv_bytes=10_999)
    plan = plan_memory(request)
    assert (plan.num_host_blocks, plan.num_blocks) == (10, 50), "a GPU's memory is its own"
    assert "10.74 KiB, 10 blocks, 160 tokens" in plan.lines()[2]
    assert plan_memory(replace(request, device="cpu")).num_blocks == 39, "a CPU has one memory"
    assert len(plan_memory(REQUEST).lines()) == 2
    with pytest.raises(ValidationError, match="less than one KV block"):
        plan_memory(replace(REQUEST, host_kv_bytes=999))


def test_the_machine_has_memory() -> None:
    assert 1 << 20 < available_cpu_bytes() < 1 << 50


def test_bytes_per_block_are_those_that_are_allocated(llama_folder: Path) -> None:
    config = ModelConfig(str(llama_folder))
    for dtype in (torch.float32, torch.bfloat16):
        spec = KvCacheSpec.of(config, CacheConfig(block_size=8), dtype)
        caches = allocate_kv_caches(spec, 5, torch.device("cpu"))
        assert sum(cache.nbytes for cache in caches) == 5 * spec.bytes_per_block
        assert len(caches) == config.get_num_layers()
        assert all(not cache.any() for cache in caches)
    explicit = KvCacheSpec.of(config, CacheConfig(cache_dtype="bfloat16"), torch.float32)
    assert explicit.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["fp8", "fp8_e4m3"])
def test_float8_doubles_what_a_budget_holds(llama_folder: Path, name: str) -> None:
    config = ModelConfig(str(llama_folder))
    half = KvCacheSpec.of(config, CacheConfig(), torch.bfloat16)
    spec = KvCacheSpec.of(config, CacheConfig(cache_dtype=name), torch.bfloat16)
    assert spec.dtype == torch.float8_e4m3fn
    assert 2 * spec.bytes_per_block == half.bytes_per_block
    caches = allocate_kv_caches(spec, 5, torch.device("cpu"))
    assert sum(cache.nbytes for cache in caches) == 5 * spec.bytes_per_block
    assert not any(cache.float().any() for cache in caches)
    budget = 50_000 + 40 * half.bytes_per_block  # what is left for the cache: 40 blocks of half
    blocks = [
        plan_memory(
            replace(REQUEST, budget_bytes=budget, bytes_per_block=s.bytes_per_block)
        ).num_blocks
        for s in (half, spec)
    ]
    assert blocks[1] == 2 * blocks[0]


def test_an_engines_plan(llama_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="mmcore"):
        llm = LLM(str(llama_folder), dtype="float32", max_model_len=64, max_num_seqs=3)
    plan = llm.llm_engine.memory_plan
    assert plan.num_blocks == 3 * 4 + 1
    assert llm.llm_engine.metrics()["blocks_total"] == 12
    parameters = sum(p.nbytes for p in llm.llm_engine.model_runner.model.parameters())
    assert plan.request.weights_bytes >= parameters
    assert all(line in caplog.text for line in plan.lines())


def test_a_budget_that_does_not_hold_the_weights(llama_folder: Path) -> None:
    with pytest.raises(ValidationError, match="No available memory"):
        LLM(str(llama_folder), dtype="float32", gpu_memory_utilization=1e-9)
