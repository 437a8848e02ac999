"""Steps that overlap give what steps one by one give. Layer: whole engine, tiny models, on the CPU.

On the CPU a step has run when it is launched; what is tested is that the engine plans it without
the token before it, and that the runner takes that token from the step before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_fixtures import LLMFactory, assert_idle, picture, spoil_odd_requests

from mmcore import LLM, RequestOutput, SamplingParams
from mmcore.errors import InternalError, ValidationError

Answers = list[tuple[Any, ...]]


def read(outputs: list[RequestOutput]) -> Answers:
    """What must be the same, with logprobs rounded: sums may come in another order."""
    answers: Answers = []
    for output in outputs:
        for one in output.outputs:
            logprobs = one.logprobs and [
                {token: round(entry.logprob, 3) for token, entry in position.items()}
                for position in one.logprobs
            ]
            answers.append((one.text, tuple(one.token_ids), one.finish_reason, logprobs))
    return answers


def both(
    make: Callable[..., LLM], prompts: list[Any], params: list[SamplingParams], **options: Any
) -> tuple[dict[str, int], dict[str, int]]:
    """Run twice and compare; gives the metrics of the two schedules."""
    answers, metrics = [], []
    for overlapping in (False, True):
        llm = make(async_scheduling=overlapping, **options)
        answers.append(read(llm.generate(prompts, params, use_tqdm=False)))
        metrics.append(llm.llm_engine.metrics())
        assert_idle(llm)
    assert answers[1] == answers[0]
    assert metrics[0]["steps_ahead"] == 0
    return metrics[0], metrics[1]


def params(**changes: Any) -> SamplingParams:
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, "seed": 1}
    return SamplingParams(**(options | changes))


def test_a_decode_launches_each_step_before_the_last_one_ends(make_llama: LLMFactory) -> None:
    prompts = ["hello", "a longer one", "x"]
    kinds = [params(), params(temperature=1.0), params(temperature=0.8, top_k=5, top_p=0.9)]
    one, two = both(make_llama, prompts, kinds)
    assert two["steps"] == one["steps"]
    assert two["steps_ahead"] == two["steps"] - 1
    assert two["rows_surplus"] == 0


def test_what_needs_the_newest_token_gives_the_same(make_llama: LLMFactory) -> None:
    def no_repeats(generated: list[int], logits: torch.Tensor) -> torch.Tensor:
        logits[generated] = float("-inf")
        return logits

    prompts = ["hello"] * 4
    kinds = [
        params(repetition_penalty=1.5),
        params(presence_penalty=1.0, frequency_penalty=0.5),
        params(logits_processors=[no_repeats]),
        params(temperature=1.0),
    ]
    _, two = both(make_llama, prompts, kinds)
    assert two["steps_ahead"] == 0


def test_edits_and_logprobs_need_no_newest_token(make_llama: LLMFactory) -> None:
    prompts = ["hello", "world", "some text", "more"]
    kinds = [
        params(logprobs=3),
        params(min_tokens=5, ignore_eos=False, stop_token_ids=[40, 41, 42]),
        params(logit_bias={50: 2.0}, temperature=1.0),
        params(prompt_logprobs=2, allowed_token_ids=[60, 61, 62]),
    ]
    _, two = both(make_llama, prompts, kinds)
    assert two["steps_ahead"] > 5


def test_stops_leave_surplus_rows_behind(make_llama: LLMFactory) -> None:
    plain = make_llama().generate("hello", params(), use_tqdm=False)[0].outputs[0]
    kinds = [params(stop=[plain.text[3:5]]), params(stop_token_ids=[plain.token_ids[4]]), params()]
    _, two = both(make_llama, ["hello"] * 3, kinds)
    assert two["rows_surplus"] >= 2


def test_sequences_of_a_request_and_best_of(make_llama: LLMFactory) -> None:
    kinds = [params(n=3, temperature=1.0), params(n=2, best_of=4, temperature=1.0)]
    both(make_llama, ["a prompt for several", "another one"], kinds)


def test_a_small_pool_preempts(make_llama: LLMFactory) -> None:
    prompts = [f"prompt number {i}" for i in range(4)]
    one, two = both(
        make_llama, prompts, [params(max_tokens=30)] * 4, num_gpu_blocks_override=26, block_size=4,
        headroom=0,
    )  # fmt: skip
    assert one["preemptions"] > 0 and two["preemptions"] > 0
    assert two["steps_ahead"] > 0


@pytest.mark.parametrize("budget", [None, 9])
def test_pictures(make_llava: LLMFactory, budget: int | None) -> None:
    prompts = [
        {"prompt": "<image>what?", "multi_modal_data": {"image": picture(seed)}}
        for seed in (1, 2, 1)
    ]
    kinds = [params(), params(max_tokens=5), params(temperature=1.0)]
    both(make_llava, prompts, kinds, max_num_batched_tokens=budget)


def test_an_abort_between_two_steps(make_llama: LLMFactory) -> None:
    llm = make_llama(async_scheduling=True)
    engine = llm.llm_engine
    expected = llm.generate("stays", params(), use_tqdm=False)[0].outputs[0].token_ids
    engine.add_request("goes", "goes", params(max_tokens=100))
    engine.add_request("stays", "stays", params())
    for _ in range(3):
        engine.step()
    engine.abort_request("goes")
    outputs = {}
    while engine.has_unfinished_requests():
        outputs |= {output.request_id: output for output in engine.step()}
    assert outputs["goes"].outputs[0].finish_reason == "abort"
    assert outputs["stays"].outputs[0].token_ids == expected
    assert_idle(llm)


@pytest.mark.parametrize("plain", [True, False])
def test_a_row_that_cannot_be_sampled_fails_its_request_alone(
    make_llama: LLMFactory, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = make_llama(async_scheduling=True)
    engine = llm.llm_engine
    expected = llm.generate("stays", params(), use_tqdm=False)[0].outputs[0].token_ids
    engine.add_request("stays", "stays", params())
    engine.add_request("breaks", "breaks", params(logprobs=None if plain else 1))
    engine.step()
    spoil_odd_requests(llm, monkeypatch)  # "breaks" was the third request
    outputs = {}
    while engine.has_unfinished_requests():
        outputs |= {output.request_id: output for output in engine.step()}
    assert isinstance(outputs["breaks"].error, ValidationError)
    assert outputs["stays"].outputs[0].token_ids == expected
    assert_idle(llm)


def test_a_launch_that_raises_is_run_again(
    make_llama: LLMFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = make_llama(async_scheduling=True)
    expected = llm.generate(["one", "two"], params(), use_tqdm=False)
    runner, faults = llm.llm_engine.model_runner, [InternalError("a passing fault")]
    forward = runner._forward

    def failing(plan: Any, before: torch.Tensor | None = None) -> Any:
        if before is not None and faults:
            raise faults.pop()
        return forward(plan, before)

    monkeypatch.setattr(runner, "_forward", failing)
    assert read(llm.generate(["one", "two"], params(), use_tqdm=False)) == read(expected)
    assert not faults and llm.llm_engine.metrics()["steps_failed"] == 1
    assert_idle(llm)
