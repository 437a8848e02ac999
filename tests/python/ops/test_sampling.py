"""Sampling without an engine. Layer: kernel."""

from __future__ import annotations

import math

import pytest
import torch

from mmcore import ops
from mmcore.errors import ValidationError


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(4, 40, generator=torch.Generator().manual_seed(3))


def test_greedy_takes_the_first_of_equal_tokens(logits: torch.Tensor) -> None:
    logits[1, [5, 9]] = 50.0
    tokens = ops.sample(logits, temperature=0.0).tokens
    assert tokens.tolist()[1] == 5
    assert torch.equal(tokens[[0, 2, 3]], logits[[0, 2, 3]].argmax(dim=-1))


def test_a_draw_depends_on_its_row_seed_and_counter_only(logits: torch.Tensor) -> None:
    together = ops.sample(logits, seed=[7, 8, 9, 10], counter=[0, 1, 2, 3]).tokens.tolist()
    alone = [ops.sample(logits[i : i + 1], seed=7 + i, counter=i).tokens.item() for i in range(4)]
    assert together == alone


def test_draws_follow_the_distribution() -> None:
    p = torch.tensor([0.5, 0.3, 0.2])
    rows = p.log().expand(4000, 3).contiguous()
    tokens = ops.sample(rows, seed=11, counter=range(4000)).tokens
    found = torch.bincount(tokens, minlength=3) / 4000
    assert (found - p).abs().max() < 4 * math.sqrt(0.25 / 4000)


def test_top_k_top_p_and_min_p_cut_the_tail(logits: torch.Tensor) -> None:
    row = logits[:1].expand(300, -1).contiguous()
    ranked = logits[0].argsort(descending=True).tolist()
    probabilities = logits[0].softmax(-1)
    for options, keep in (
        ({"top_k": 3}, 3),
        ({"top_p": float(probabilities[ranked[:2]].sum()) - 1e-4}, 2),
        ({"min_p": float(probabilities[ranked[1]] / probabilities[ranked[0]]) - 1e-4}, 2),
    ):
        tokens = ops.sample(row, seed=1, counter=range(300), **options).tokens  # type: ignore[arg-type]
        assert set(tokens.tolist()) <= set(ranked[:keep])


def test_logprobs_are_those_of_the_raw_logits(logits: torch.Tensor) -> None:
    expected = logits.log_softmax(-1)
    out = ops.sample(logits, temperature=0.3, num_logprobs=[-1, 0, 2, 5], seed=5)
    assert [len(row) for row in out.logprobs] == [0, 1, 3, 6]
    for i in (1, 2, 3):
        first = out.logprobs[i][0]
        assert first.token == out.tokens[i]
        for entry in out.logprobs[i]:
            assert entry.logprob == pytest.approx(expected[i, entry.token].item(), abs=1e-5)
            assert entry.rank == int((logits[i] > logits[i, entry.token]).sum()) + 1
    best = logits[3].topk(5).indices.tolist()
    assert [entry.token for entry in out.logprobs[3][1:]] == best


def test_edits_of_logits(logits: torch.Tensor) -> None:
    greedy = logits.argmax(-1).tolist()
    banned = ops.sample(logits, temperature=0, banned_tokens=[[t] for t in greedy]).tokens
    assert all(a != b for a, b in zip(banned.tolist(), greedy, strict=True))
    allowed = ops.sample(logits, temperature=0, allowed_tokens=[[3, 4]] * 4).tokens
    assert set(allowed.tolist()) <= {3, 4}
    biased = ops.sample(logits, temperature=0, logit_bias=[[(17, 100.0)]] * 4).tokens
    assert biased.tolist() == [17] * 4
    penalised = ops.sample(
        logits, temperature=0, presence_penalty=2.0, frequency_penalty=2.0,
        output_tokens=[[t] * 30 for t in greedy],
    ).tokens  # fmt: skip
    assert all(a != b for a, b in zip(penalised.tolist(), greedy, strict=True))


def test_bad_rows_are_named() -> None:
    logits = torch.zeros(3, 5)
    logits[1, 2] = math.nan
    with pytest.raises(ValidationError, match=r"row 1: .*NaN"):
        ops.sample(logits)


def test_a_column_of_the_wrong_length_is_refused(logits: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="top_p has 2 entries for 4 rows"):
        ops.sample(logits, top_p=[0.5, 0.5])
    with pytest.raises(ValueError, match=r"rows, vocabulary"):
        ops.sample(logits[0])


def test_uniform_is_reproducible_and_uniform() -> None:
    draws = torch.tensor([ops.uniform(5, i) for i in range(2000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean().item() - 0.5) < 0.03
    assert ops.uniform(5, 3) == draws[3].item()
    assert ops.uniform(6, 3) != draws[3].item()


def test_logprobs_of_given_tokens(logits: torch.Tensor) -> None:
    expected = logits.log_softmax(-1)
    found = ops.logprobs(logits, [1, 2, 3, 4], [0, 1, 2, 0])
    assert [len(row) for row in found] == [1, 2, 3, 1]
    for i, row in enumerate(found):
        assert row[0].token == i + 1
        assert row[0].logprob == pytest.approx(expected[i, i + 1].item(), abs=1e-5)


def test_traceable_form_gives_the_same_tokens(logits: torch.Tensor) -> None:
    columns = (
        torch.ones(4),
        torch.full((4,), 0.9),
        torch.full((4,), 20, dtype=torch.int64),
        torch.zeros(4),
        torch.arange(4),
        torch.zeros(4, dtype=torch.int64),
    )
    direct = ops.sample(logits, top_p=0.9, top_k=20, seed=range(4)).tokens
    assert torch.equal(torch.ops.mmcore.sample(logits, *columns), direct)
    torch.library.opcheck(torch.ops.mmcore.sample, (logits, *columns))
