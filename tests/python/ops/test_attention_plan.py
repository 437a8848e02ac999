"""Plans of paged attention for a GPU, which are made on the CPU. Layer: kernel."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mmcore import ops
from mmcore.errors import ValidationError

SHAPE = ops.AttentionPlanShape(
    sequences=4, tokens=4, max_query_len=1, heads=8, kv_heads=2, head_dim=64, window=0,
    causal=True, multiprocessors=132,
)  # fmt: skip


def test_arrays_and_tensors_give_the_same_plan() -> None:
    starts, lens = np.arange(4, dtype=np.int32), np.array([100, 1, 9000], dtype=np.int32)
    plan = SHAPE.plan(starts, lens)
    assert plan.dtype == torch.int32 and plan.shape == (SHAPE.plan_words,)
    buffer = torch.full((SHAPE.plan_words + 5,), -7, dtype=torch.int32)
    assert SHAPE.plan(torch.from_numpy(starts), torch.from_numpy(lens), out=buffer) is buffer
    assert torch.equal(buffer[:-5], plan)
    assert (buffer[-5:] == -7).all()


def test_missing_sequences_are_empty() -> None:
    starts, lens = np.array([0, 1, 2, 2, 2], np.int32), np.array([5, 70, 0, 0], np.int32)
    assert torch.equal(SHAPE.plan(starts, lens), SHAPE.plan(starts[:3], lens[:2]))


def test_a_shape_without_a_kernel_has_no_size() -> None:
    shape = dataclasses.replace(SHAPE, head_dim=65)
    assert shape.plan_words == -1 and shape.workspace_bytes == -1


@pytest.mark.parametrize(
    ("starts", "lens", "message"),
    [
        ([0, 2], [5], "max_query_len of 1"),
        ([0, 1], [0], r"seq_lens\[0\] is 0"),
        ([0, 1, 2, 3, 4, 5], [1] * 5, "4 sequences"),
    ],
)
def test_lengths_that_do_not_fit(starts: list[int], lens: list[int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SHAPE.plan(np.array(starts, np.int32), np.array(lens, np.int32))
