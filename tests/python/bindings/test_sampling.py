"""Sampling inside a step: _C.sample and _C.prompt_logprobs. Layer: bindings and the CPU ops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bindings.fake_runner import VOCAB_SIZE, FakeRunner, config, request, run, tokens

from mmcore import _C
from mmcore.errors import MmcoreError, ValidationError


class LogitsRunner(FakeRunner):
    """Gives the same logits for every row, and samples by the plan."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def execute(self, plan: Any) -> None:
        rows = len(plan.prompt_logprob_rows)
        for first in range(0, rows, 2):  # in pieces, as a runner with little memory does
            piece = self.logits.repeat(min(2, rows - first), 1)
            _C.prompt_logprobs(plan, piece, first)
        if plan.num_samples:
            _C.sample(plan, self.logits.repeat(plan.num_samples, 1))


def logits_of(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))


def test_greedy_takes_the_largest_and_gives_its_logprobs() -> None:
    logits = logits_of()
    engine = _C.Engine(config(), LogitsRunner(logits))
    engine.submit(request([1], max_tokens=2, num_logprobs=3))
    [outputs] = run(engine).values()
    order = logits[0].argsort(descending=True).tolist()
    assert tokens(outputs) == [order[0]] * 2
    expected = logits[0].log_softmax(-1)
    [alternatives] = outputs[0].logprobs
    assert [(t, r) for t, _, r in alternatives[1:]] == [(order[i], i + 1) for i in range(3)]
    for token, logprob, _ in alternatives:
        assert logprob == pytest.approx(expected[token].item(), abs=1e-5)


def test_prompt_logprobs_come_for_every_position_but_the_first() -> None:
    logits = logits_of()
    engine = _C.Engine(config(max_prefill_chunk=3), LogitsRunner(logits))
    prompt = [4, 8, 15, 16, 23, 42, 7]
    engine.submit(request(prompt, max_tokens=1, num_prompt_logprobs=1))
    [outputs] = run(engine).values()
    rows = [row for output in outputs for row in output.prompt_logprobs]
    assert [row[0][0] for row in rows] == prompt[1:]
    expected = logits[0].log_softmax(-1)
    for row in rows:
        assert row[0][1] == pytest.approx(expected[row[0][0]].item(), abs=1e-5)
        assert row[1][0] == int(logits.argmax())


def test_a_row_without_anything_to_choose_fails_its_request_alone() -> None:
    class Runner(LogitsRunner):
        def execute(self, plan: Any) -> None:
            logits = self.logits.repeat(plan.num_samples, 1)
            for first, count, row in plan.sequences[
                ["first_row", "num_tokens", "sample_row"]
            ].tolist():
                if row >= 0 and 13 in plan.token_ids[first : first + count]:
                    logits[row] = float("nan")
            _C.sample(plan, logits)

    engine = _C.Engine(config(), Runner(logits_of()))
    good, bad = engine.submit(request([1])), engine.submit(request([13]))
    outputs = run(engine)
    assert len(tokens(outputs[good])) == 4
    assert isinstance(outputs[bad][-1].error, MmcoreError)
    assert outputs[bad][-1].finish_reason == _C.FinishReason.ERROR


def test_logits_of_the_wrong_shape_are_refused_by_name() -> None:
    messages = []

    class Runner(LogitsRunner):
        def execute(self, plan: Any) -> None:
            with pytest.raises(ValidationError) as caught:
                _C.sample(plan, self.logits.repeat(plan.num_samples + 1, 1))
            messages.append(str(caught.value))
            _C.sample(plan, self.logits)

    engine = _C.Engine(config(), Runner(logits_of()))
    engine.submit(request([1], max_tokens=1))
    run(engine)
    assert "logits" in messages[0]


def test_the_same_seed_draws_the_same_in_any_batch() -> None:
    def drawn(others: int) -> list[int]:
        engine = _C.Engine(config(), LogitsRunner(logits_of()))
        for i in range(others):
            engine.submit(request([2], max_tokens=8, temperature=1.0, seed=1000 + i))
        mine = engine.submit(request([1], max_tokens=8, temperature=1.0, seed=7))
        return tokens(run(engine)[mine])

    alone = drawn(0)
    assert len(set(alone)) > 1
    assert drawn(5) == alone
