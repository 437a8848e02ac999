"""Steps that overlap, with CUDA graphs and without, against steps one by one and against the CPU.

Layer: whole engine, tiny models in float32, so that tokens are the same everywhere. The cases run
on the CPU, too, where a launched step has run already.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu.needs_gpu import GPU
from tiny_fixtures import assert_idle, make_llm, picture, spoil_odd_requests, with_picture

from mmcore import LLM, RequestOutput, SamplingParams
from mmcore.errors import ValidationError

WAYS = [
    pytest.param("cpu", True, id="cpu"),
    pytest.param("cuda", False, id="graphs", marks=GPU),
    pytest.param("cuda", True, id="eager", marks=GPU),
]
Answer = list[tuple[tuple[int, ...], str | None]]


def answer(output: RequestOutput) -> Answer:
    return [(tuple(one.token_ids), one.finish_reason) for one in output.outputs]


def answers(outputs: list[RequestOutput]) -> list[Answer]:
    return [answer(output) for output in outputs]


def make(folder: Path, device: str, enforce_eager: bool, **options: Any) -> LLM:
    images = {"limit_mm_per_prompt": {"image": 2}} if "llava" in str(folder) else {}
    return make_llm(folder, device=device, enforce_eager=enforce_eager, **images, **options)


def assert_overlapped(llm: LLM) -> None:
    """Steps were launched ahead, none failed, which would hide, and nothing is left."""
    metrics = llm.llm_engine.metrics()
    assert metrics["steps_ahead"] > metrics["steps"] // 4
    assert metrics["steps_failed"] == 0
    assert not llm.llm_engine.model_runner._in_flight
    graphs = llm.llm_engine.model_runner.graphs
    assert graphs is None or len(graphs) > 1, "the graphs were given up"
    assert_idle(llm)


def params(**changes: Any) -> SamplingParams:
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": 20, "ignore_eos": True, "seed": 1}
    return SamplingParams(**(options | changes))


def no_repeats(generated: list[int], logits: torch.Tensor) -> torch.Tensor:
    logits[generated] = float("-inf")
    return logits


def all_kinds(stop_token: int) -> list[SamplingParams]:
    """What is sampled on the device, what needs its logits on the host, what needs every token."""
    return [
        params(),
        params(temperature=1.0),
        params(temperature=0.8, top_k=5, top_p=0.9, min_p=0.02, seed=7),
        params(stop_token_ids=[stop_token]),
        params(min_tokens=5, stop_token_ids=[stop_token], ignore_eos=False),
        params(logprobs=3),
        params(logit_bias={50: 2.0}, temperature=1.0),
        params(prompt_logprobs=2, allowed_token_ids=[60, 61, 62]),
        params(repetition_penalty=1.5),
        params(presence_penalty=1.0, frequency_penalty=0.5, temperature=0.7),
        params(logits_processors=[no_repeats]),
        params(n=3, temperature=1.0),
        params(max_tokens=1),
        params(max_tokens=2),
    ]


def prompts() -> list[Any]:
    texts = ["a", "hello there", "x" * 70, "The quick brown fox. " * 9]
    return [*texts, *(with_picture(i, f"<image>{'y' * (7 * i)}?") for i in range(10))]


@pytest.fixture(scope="module")
def of_all_kinds(llava_folder: Path) -> tuple[list[SamplingParams], list[Answer]]:
    """Parameters, and what steps one by one give for them on the CPU."""
    llm = make(llava_folder, "cpu", True, async_scheduling=False)
    [first] = llm.generate(["hello there"], params(), use_tqdm=False)
    kinds = all_kinds(first.outputs[0].token_ids[6])
    expected = llm.generate(prompts(), kinds, use_tqdm=False)
    assert llm.llm_engine.metrics()["steps_ahead"] == 0
    return kinds, answers(expected)


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize(("device", "eager"), WAYS)
def test_all_kinds_of_requests_together(
    llava_folder: Path, of_all_kinds: Any, device: str, eager: bool, overlapping: bool
) -> None:
    kinds, expected = of_all_kinds
    llm = make(llava_folder, device, eager, async_scheduling=overlapping)
    for _ in range(2):  # the second time from the caches
        assert answers(llm.generate(prompts(), kinds, use_tqdm=False)) == expected
    assert llm.llm_engine.metrics()["steps_failed"] == 0
    assert_idle(llm)


@pytest.mark.parametrize(("device", "eager"), WAYS)
def test_each_kind_alone(llava_folder: Path, of_all_kinds: Any, device: str, eager: bool) -> None:
    kinds, expected = of_all_kinds
    llm = make(llava_folder, device, eager, async_scheduling=True)
    for prompt, kind, wanted in zip(prompts(), kinds, expected, strict=True):
        assert answers(llm.generate([prompt], kind, use_tqdm=False)) == [wanted]
    assert_overlapped(llm)


@pytest.mark.gpu
@pytest.mark.parametrize(("options", "overlaps"), [({}, True), ({"enforce_eager": True}, False)])
def test_steps_overlap_by_default_where_graphs_run(
    llama_folder: Path, options: dict[str, Any], overlaps: bool
) -> None:
    llm = make_llm(llama_folder, **options)
    on_gpu = llm.llm_engine.model_runner.device.type == "cuda"
    llm.generate(["hello"], params(), use_tqdm=False)
    assert (llm.llm_engine.metrics()["steps_ahead"] > 0) == (overlaps and on_gpu)


@pytest.mark.parametrize(("device", "eager"), WAYS)
@pytest.mark.parametrize("plain", [True, False])
def test_a_row_that_cannot_be_sampled_fails_its_request_alone(
    llama_folder: Path, device: str, eager: bool, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = make(llama_folder, device, eager, async_scheduling=True)
    engine = llm.llm_engine
    [expected] = answers(llm.generate("stays", params(), use_tqdm=False))
    engine.add_request("stays", "stays", params())
    engine.add_request("breaks", "breaks", params(logprobs=None if plain else 1))
    for _ in range(4):
        engine.step()
    spoil_odd_requests(llm, monkeypatch)  # "breaks" was the third request
    outputs = {}
    while engine.has_unfinished_requests():
        outputs |= {output.request_id: output for output in engine.step()}
    assert isinstance(outputs["breaks"].error, ValidationError)
    assert answer(outputs["stays"]) == expected
    assert_idle(llm)


class Crowd:
    """Many requests that come one after the other, some of which are given up."""

    def __init__(self, count: int, seed: int) -> None:
        self.seed = seed
        draw = random.Random(seed)
        self.requests = [(self._prompt(draw), self._params(draw)) for _ in range(count)]

    @staticmethod
    def _prompt(draw: random.Random) -> Any:
        text = "".join(draw.choices("abcdefgh ", k=draw.randint(1, 60)))
        images = draw.choice([0, 0, 1, 2])
        if not images:
            return text
        pictures = [picture(draw.randrange(12)) for _ in range(images)]
        return {"prompt": "<image>" * images + text, "multi_modal_data": {"image": pictures}}

    @staticmethod
    def _params(draw: random.Random) -> SamplingParams:
        temperature = draw.choice([0.0, 1.0])
        return params(
            temperature=temperature,
            top_k=draw.choice([-1, 10]),
            n=draw.choice([1, 1, 2]) if temperature else 1,
            max_tokens=draw.randint(1, 90),
            seed=draw.randrange(100),
            stop_token_ids=draw.sample(range(5, 261), 2),
            logprobs=draw.choice([None, None, None, None, 1]),
            repetition_penalty=draw.choice([1.0] * 9 + [1.2]),
        )

    def serve(self, llm: LLM) -> Iterator[tuple[int, RequestOutput]]:
        """Give the last output of each request."""
        draw, engine = random.Random(self.seed + 1), llm.llm_engine
        waiting = list(range(len(self.requests)))[::-1]
        for _ in range(100 * len(self.requests)):
            for _ in range(draw.randrange(4)):
                if waiting:
                    number = waiting.pop()
                    engine.add_request(str(number), *self.requests[number])
            if draw.random() < 0.15:
                engine.abort_request(str(draw.randrange(len(self.requests))))
            for output in engine.step():
                if output.finished:
                    yield int(output.request_id), output
            if not waiting and not engine.has_unfinished_requests():
                return


def begins(one: Answer, other: Answer) -> bool:
    """Tell whether the sequences of one are those of the other, or their beginnings."""
    return len(one) <= len(other) and all(
        mine == theirs[: len(mine)] for (mine, _), (theirs, _) in zip(one, other, strict=False)
    )


@pytest.fixture(scope="module")
def crowd(llava_folder: Path, request: pytest.FixtureRequest) -> tuple[Crowd, list[Answer]]:
    """Requests, and what they give alone in a large pool on the CPU."""
    crowd = Crowd(request.param, seed=23)
    llm = make(llava_folder, "cpu", True, num_gpu_blocks_override=2000)
    wanted = [kind for _, kind in crowd.requests]
    outputs = llm.generate([prompt for prompt, _ in crowd.requests], wanted, use_tqdm=False)
    assert llm.llm_engine.metrics()["preemptions"] == 0
    return crowd, answers(outputs)


@pytest.mark.parametrize(
    ("crowd", "device", "eager", "overlapping", "beside"),
    [
        pytest.param(60, "cpu", True, True, False, id="cpu"),
        pytest.param(200, "cuda", False, True, False, id="graphs", marks=GPU),
        pytest.param(200, "cuda", False, True, True, id="graphs-encoder-stream", marks=GPU),
        pytest.param(200, "cuda", False, False, False, id="graphs-one-by-one", marks=GPU),
        pytest.param(200, "cuda", True, True, False, id="eager", marks=GPU),
    ],
    indirect=["crowd"],
)
def test_a_crowd_with_aborts_and_preemption(
    llava_folder: Path,
    crowd: tuple[Crowd, list[Answer]],
    device: str,
    eager: bool,
    overlapping: bool,
    beside: bool,
) -> None:
    requests, expected = crowd
    llm = make(
        llava_folder, device, eager, async_scheduling=overlapping, max_num_seqs=40,
        num_gpu_blocks_override=44, max_num_batched_tokens=96, kv_offload_gib=0.001,
        headroom=0, encoder_stream=beside,
    )  # fmt: skip
    finished, aborted = set(), 0
    for number, output in requests.serve(llm):
        finished.add(number)
        got = answer(output)
        if any(reason == "abort" for _, reason in got) or not got:
            aborted += 1
            assert begins(got, expected[number]), f"seed {requests.seed}, request {number}"
        else:
            assert got == expected[number], f"seed {requests.seed}, request {number}"
    assert len(finished) == len(requests.requests)
    assert 0 < aborted < len(finished) // 2
    metrics = llm.llm_engine.metrics()
    assert metrics["preemptions"] > 0
    assert (metrics["rows_surplus"] > 0) == overlapping
    if overlapping:
        assert_overlapped(llm)
    assert metrics["steps_failed"] == 0
