"""Unit: SequenceData's constructors and counters, statuses, and the sampler's output."""

from __future__ import annotations

import pytest
import torch

from mmcore.sequence import (
    IntermediateTensors,
    SampledToken,
    SamplerOutput,
    SequenceData,
    SequenceStage,
    SequenceStatus,
)


@pytest.mark.parametrize("build", ["from_token_counts", "from_prompt_token_counts"])
def test_token_counts(build: str) -> None:
    data = getattr(SequenceData, build)((32000, 3), (0, 2), (7, 0))
    assert data.prompt_token_ids == (32000, 32000, 32000, 0, 0)
    assert getattr(SequenceData, build)().prompt_token_ids == ()


def test_lengths_and_ids() -> None:
    data = SequenceData.from_seqs([1, 2, 3], [4])
    data.append_token_id(5, -0.25)
    data.append_token_id(6, -0.5)
    assert (data.get_len(), data.get_prompt_len(), data.get_output_len()) == (6, 3, 3)
    assert data.get_token_ids() == [1, 2, 3, 4, 5, 6]
    assert data.output_token_ids == (4, 5, 6)
    assert data.get_last_token_id() == 6
    assert SequenceData([1, 2]).get_last_token_id() == 2
    assert data.cumulative_logprob == -0.75


def test_source_lists_are_copied() -> None:
    prompt, output = [1, 2], [3]
    data = SequenceData(prompt, output)
    prompt.append(9)
    output.append(9)
    assert data.get_token_ids() == [1, 2, 3]


def test_computed_tokens_and_stage() -> None:
    data = SequenceData([1, 2, 3])
    data.update_num_computed_tokens(2)
    assert (data.get_num_computed_tokens(), data.get_num_uncomputed_tokens()) == (2, 1)
    assert data.stage is SequenceStage.PREFILL
    data.update_num_computed_tokens(1)
    assert data.stage is SequenceStage.DECODE
    data.append_token_id(4, 0.0)
    data.reset_state_for_recompute()
    assert data.get_num_uncomputed_tokens() == 4
    assert data.stage is SequenceStage.PREFILL


@pytest.mark.parametrize("step", [4, -1])
def test_more_tokens_than_there_are_cannot_be_computed(step: int) -> None:
    data = SequenceData([1, 2, 3])
    with pytest.raises(ValueError, match=r"outside 0\.\.3"):
        data.update_num_computed_tokens(step)
    assert data.get_num_computed_tokens() == 0


def test_equality_is_by_content() -> None:
    assert SequenceData([1, 2]) == SequenceData((1, 2))
    assert SequenceData([1, 2]) != SequenceData([1], [2])
    with pytest.raises(TypeError):
        hash(SequenceData([1]))


def test_mrope_delta_is_kept() -> None:
    data = SequenceData([1])
    assert data.mrope_position_delta is None
    data.mrope_position_delta = -3
    assert data.mrope_position_delta == -3


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (SequenceStatus.WAITING, None),
        (SequenceStatus.RUNNING, None),
        (SequenceStatus.SWAPPED, None),
        (SequenceStatus.FINISHED_STOPPED, "stop"),
        (SequenceStatus.FINISHED_LENGTH_CAPPED, "length"),
        (SequenceStatus.FINISHED_ABORTED, "abort"),
        (SequenceStatus.FINISHED_IGNORED, "length"),
    ],
)
def test_status(status: SequenceStatus, reason: str | None) -> None:
    assert SequenceStatus.get_finished_reason(status) == reason
    assert SequenceStatus.is_finished(status) == (reason is not None)


def test_sampler_output_is_a_sequence_of_tokens() -> None:
    output = SamplerOutput([SampledToken(3), SampledToken(5)])
    assert len(output) == 2
    assert [token.token_id for token in output] == [3, 5]
    assert output[1].logprobs is None


def test_intermediate_tensors() -> None:
    tensors = IntermediateTensors({"hidden": torch.arange(6).reshape(3, 2)})
    tensors["residual"] = torch.zeros(3)
    assert len(tensors) == 2
    assert tensors["hidden"].shape == (3, 2)
    assert tensors[1:]["hidden"].tolist() == [[2, 3], [4, 5]]
