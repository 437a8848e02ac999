"""A step's arrays on their way to a device, here the CPU. Layer: runner, tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_fixtures import assert_idle, make_llm, with_picture

from mmcore import LLM, SamplingParams
from mmcore.model_executor.attention_plans import AttentionPlanner
from mmcore.model_executor.decode_graphs import batch_sizes
from mmcore.model_executor.staging import StagedInputs, padded_width
from mmcore.model_executor.step_inputs import HostInputs, StepInputs

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
MAX_BLOCKS = 32


class PaddedDecodes:
    """Reads decodes as a graph does: into the places of the next larger batch size."""

    def __init__(self, staged: StagedInputs, sizes: list[int]) -> None:
        self.staged = staged
        self.sizes = sizes
        self.tables = torch.zeros(sizes[-1], padded_width(MAX_BLOCKS), dtype=torch.int32)
        self.padded_rows = 0
        self.steps = 0

    def read(self, plan: Any, before: torch.Tensor | None = None) -> StepInputs:
        self.steps += 1
        rows = plan.num_tokens
        if rows != plan.num_sequences or len(plan.embeddings):
            return self.staged.read(plan, before)
        size = next(size for size in self.sizes if size >= rows)
        self.padded_rows += size - rows
        for buffer in self.staged._buffers:
            buffer.storage.fill_(77)  # what is not written must not be used
        inputs = self.staged.decode_inputs(size, self.tables)
        tables = self.staged.read_decode(plan, size, before)
        width = min(tables.shape[1], self.tables.shape[1])
        self.tables[:rows, :width] = tables[:, :width]
        return replace(inputs, sample_rows=inputs.sample_rows[: plan.num_samples])


@pytest.fixture
def staged(llava: LLM) -> Iterator[StagedInputs]:
    runner = llava.llm_engine.model_runner
    device = torch.device("cpu")
    planner = AttentionPlanner(runner.model, device)
    yield StagedInputs(device, planner, 5120, 256, MAX_BLOCKS)
    runner.inputs = HostInputs()


def prompts() -> list[Any]:
    texts = ["a", "hello there", "x" * 70, "The quick brown fox. " * 9]
    return [*texts, *(with_picture(i, f"<image>{'y' * (5 * i)}?") for i in range(3))]


def generate(llm: LLM) -> list[list[int]]:
    llm.llm_engine.reset_caches()
    params = [SamplingParams(temperature=0.0, max_tokens=4 + 3 * i) for i in range(7)]
    outputs = llm.generate(prompts(), params, use_tqdm=False)
    assert_idle(llm)
    return [list(output.outputs[0].token_ids) for output in outputs]


def test_staged_arrays_give_the_same_tokens(llava: LLM, staged: StagedInputs) -> None:
    expected = generate(llava)
    llava.llm_engine.model_runner.inputs = staged
    assert generate(llava) == expected


def test_rows_left_over_change_nothing(llava: LLM, staged: StagedInputs) -> None:
    expected = generate(llava)
    reader = PaddedDecodes(staged, batch_sizes(256))
    llava.llm_engine.model_runner.inputs = reader
    before = llava.llm_engine.metrics()["steps"]
    assert generate(llava) == expected
    assert reader.padded_rows > 0
    # The engine would run a step that failed again, each sequence alone.
    assert llava.llm_engine.metrics()["steps"] - before == reader.steps


def test_unknown_tokens_are_filled_in_where_the_graphs_read_them(
    llava: LLM, llava_folder: Path, staged: StagedInputs
) -> None:
    expected = generate(llava)
    overlapping = make_llm(llava_folder, limit_mm_per_prompt={"image": 2}, async_scheduling=True)
    for reader in (staged, PaddedDecodes(staged, batch_sizes(256))):
        overlapping.llm_engine.model_runner.inputs = reader
        before = overlapping.llm_engine.metrics()["steps_ahead"]
        assert generate(overlapping) == expected
        assert overlapping.llm_engine.metrics()["steps_ahead"] > before
    assert overlapping.llm_engine.metrics()["steps_failed"] == 0


def test_a_plan_comes_with_the_arrays(llava: LLM, staged: StagedInputs) -> None:
    seen: list[StepInputs] = []

    class Reader:
        def read(self, plan: Any, before: torch.Tensor | None = None) -> StepInputs:
            inputs = staged.read(plan)
            seen.append(inputs)
            assert inputs.attention.plans is not None
            [(kind, made)] = inputs.attention.plans.items()
            assert kind == (2, 1, 32, 0)
            assert made.max_query_len == plan.max_query_len
            assert made.words.data_ptr() % 16 == 0
            return inputs

    llava.llm_engine.model_runner.inputs = Reader()
    llava.generate(["hello"], GREEDY, use_tqdm=False)
    assert len(seen) == 12


def test_batch_sizes() -> None:
    assert batch_sizes(1) == [1]
    assert batch_sizes(7) == [1, 2, 4, 7]
    assert batch_sizes(8) == [1, 2, 4, 8]
    assert batch_sizes(1000)[-1] == 512
    sizes = batch_sizes(256)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 256
