"""The model of examples/add_a_model at both levels of the interface. Layer: whole engine, a model
that mmcore does not know.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu.needs_gpu import on_gpu
from tiny_fixtures import assert_idle, picture

from mmcore import LLM, ModelRegistry, RequestOutput, SamplingParams

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "add_a_model"
ARCHITECTURE = "PatchVlmForImage2Seq"
GREEDY = SamplingParams(temperature=0.0, max_tokens=10, ignore_eos=True)
LEVELS = {"seed": "patch_vlm:PatchVlmForImage2Seq",
          "extended": "patch_vlm_extended:PatchVlmWithEncoder"}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    sys.path.insert(0, str(EXAMPLE))
    made: Any = importlib.import_module("make_checkpoint")
    yield made.write_checkpoint(tmp_path_factory.mktemp("patch_vlm"))
    sys.path.remove(str(EXAMPLE))
    ModelRegistry._models.pop(ARCHITECTURE, None)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def register(level: str) -> None:
    ModelRegistry._models.pop(ARCHITECTURE, None)  # else it warns that it overwrites
    ModelRegistry.register_model(ARCHITECTURE, LEVELS[level])


def make_llm(checkpoint: Path, level: str, **options: Any) -> LLM:
    register(level)
    options = {"limit_mm_per_prompt": {"image": 2}, "num_gpu_blocks_override": 200, **options}
    return LLM(str(checkpoint), dtype="float32", **options)


def prompts() -> list[Any]:
    def with_images(text: str, *seeds: int) -> dict[str, Any]:
        return {"prompt": text, "multi_modal_data": {"image": [picture(s) for s in seeds]}}

    return [
        "No picture at all.",
        with_images("<image>What is this?", 0),
        with_images("Some longer text before it: <image> and a little after it.", 1),
        with_images("<image><image>Compare.", 0, 2),
        with_images("<image>What is that?", 0),
    ]


def generate(llm: LLM, made: Any) -> list[list[int]]:
    outputs: list[RequestOutput] = llm.generate(made, GREEDY, use_tqdm=False)
    assert_idle(llm)
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> list[list[int]]:
    """Each prompt alone, whole, without any cache, at the seed level."""
    llm = make_llm(
        checkpoint, "seed", device="cpu", enable_prefix_caching=False, enable_chunked_prefill=False
    )
    return [generate(llm, [prompt])[0] for prompt in prompts()]


def test_prompts_differ(expected: list[list[int]]) -> None:
    assert len({tuple(tokens) for tokens in expected}) == len(expected)


def test_all_in_one_batch(checkpoint: Path, level: str, expected: list[list[int]]) -> None:
    assert generate(make_llm(checkpoint, level), prompts()) == expected


def test_chunked_prefill(checkpoint: Path, level: str, expected: list[list[int]]) -> None:
    # A seed-level model's image of 16 rows must fit into a step.
    llm = make_llm(checkpoint, level, max_num_batched_tokens={"seed": 18, "extended": 7}[level])
    assert generate(llm, prompts()) == expected


def test_a_second_pass_over_cached_prefixes(
    checkpoint: Path, level: str, expected: list[list[int]]
) -> None:
    llm = make_llm(checkpoint, level, block_size=8)
    assert generate(llm, prompts()) == expected
    before = llm.llm_engine.metrics()
    assert generate(llm, prompts()) == expected
    after = llm.llm_engine.metrics()
    assert after["prefix_tokens_hit"] > before["prefix_tokens_hit"]


def test_preemption(checkpoint: Path, level: str, expected: list[list[int]]) -> None:
    llm = make_llm(
        checkpoint, level, block_size=2, num_gpu_blocks_override=90, enable_prefix_caching=False,
        headroom=0,
    )  # fmt: skip
    assert generate(llm, prompts() * 2) == expected * 2
    assert llm.llm_engine.metrics()["preemptions"] > 0


def test_an_image_beyond_the_step_of_a_seed_level_model(checkpoint: Path) -> None:
    llm = make_llm(checkpoint, "seed", max_num_batched_tokens=15)
    good, bad = llm.generate(prompts()[:2], GREEDY, use_tqdm=False, errors="return")
    assert good.error is None
    assert bad.error is not None
    assert bad.error.code == "unservable"


@pytest.mark.parametrize(
    "options", [{}, {"max_num_batched_tokens": 18}, {"enforce_eager": False}], ids=repr
)
@on_gpu
def test_on_a_gpu(
    checkpoint: Path, level: str, expected: list[list[int]], options: dict[str, Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that this setting will get another name
        torch.backends.cudnn.allow_tf32 = False  # the model has a convolution
    llm = make_llm(checkpoint, level, device="cuda", **options)
    assert generate(llm, prompts()) == expected
    assert [generate(llm, [prompt])[0] for prompt in prompts()] == expected


def test_bfloat16(checkpoint: Path, level: str) -> None:
    register(level)
    llm = LLM(str(checkpoint), dtype="bfloat16", num_gpu_blocks_override=64)
    assert llm.llm_engine.model_runner.model.patches.weight.dtype == torch.bfloat16
    assert len(generate(llm, prompts()[:2])[1]) == 10


@pytest.mark.parametrize("arguments", [[], ["--extended"]])
def test_the_script_runs(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "serve.py"), *arguments],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "images encoded: 2" in done.stdout
