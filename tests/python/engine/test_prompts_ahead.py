"""Prompts that are prepared while a device works. Layer: whole engine, a tiny model, on the CPU.

The device is played by events that take as long as a test says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tiny_fixtures import LLMFactory, assert_idle, with_picture

from mmcore import LLM, RequestOutput, SamplingParams
from mmcore.engine.prompts_ahead import PromptsAhead
from mmcore.errors import MediaError
from mmcore.model_executor.media_ahead import MediaAhead

GREEDY = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)


class Countdown:
    """An event that is reached after it was asked for so many times."""

    def __init__(self, asked: int) -> None:
        self.left = asked

    def query(self) -> bool:
        self.left -= 1
        return self.left < 0


def with_device(llm: LLM, busy: int) -> LLM:
    """Let the runner prepare media and prompts for so many pieces in each step."""
    runner = llm.llm_engine.model_runner
    assert runner.mapper is not None
    ahead = runner.ahead = MediaAhead(runner.mapper)
    runner._prepare_media = lambda: ahead.work_until(Countdown(busy))  # type: ignore[method-assign]
    return llm


def prompts(count: int = 12) -> list[Any]:
    return [with_picture(i, f"<image>{'z' * (i % 5 + 1)}") for i in range(count)]


def tokens(outputs: list[RequestOutput]) -> list[Any]:
    return [output.outputs[0].token_ids for output in outputs]


@pytest.fixture(scope="module")
def expected(make_llava: LLMFactory) -> list[Any]:
    return tokens(make_llava().generate(prompts(), GREEDY, use_tqdm=False))


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many steps the engine had done when each request came."""
    from mmcore.engine.llm_engine import LLMEngine

    steps: list[int] = []
    add = LLMEngine.add_request

    def noted(self: LLMEngine, *args: Any, **kwargs: Any) -> None:
        steps.append(self.metrics()["steps"])
        add(self, *args, **kwargs)

    monkeypatch.setattr(LLMEngine, "add_request", noted)
    yield steps


@pytest.mark.parametrize("busy", [0, 1, 5, 1000])
def test_prompts_come_when_steps_need_them(
    make_llava: LLMFactory, expected: list[Any], submitted: list[int], busy: int
) -> None:
    llm = with_device(make_llava(max_num_batched_tokens=16), busy)
    assert tokens(llm.generate(prompts(), GREEDY, use_tqdm=False)) == expected
    # However fast the device is: two steps of 16 tokens are 4 to 5 prompts of 6 to 10.
    assert submitted[:4] == [0, 0, 0, 0] and submitted[5] > 0 and submitted == sorted(submitted)
    assert llm.llm_engine.model_runner.ahead.then is None  # type: ignore[union-attr]
    assert_idle(llm)


def test_the_device_s_speed_changes_no_step(make_llava: LLMFactory, submitted: list[int]) -> None:
    seen = []
    for busy in (0, 3, 1000):
        llm = with_device(make_llava(max_num_batched_tokens=16), busy)
        llm.generate(prompts(), GREEDY, use_tqdm=False)
        seen.append((list(submitted), llm.llm_engine.metrics()))
        submitted.clear()
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize(
    "options", [{"scheduling_policy": "priority"}, {"max_queued_tokens": 4000}, {}]
)
def test_all_come_at_once_where_it_matters_who_waits(
    make_llava: LLMFactory, expected: list[Any], submitted: list[int], options: dict[str, Any]
) -> None:
    llm = with_device(make_llava(max_num_batched_tokens=16, **options), 1000)
    timeout = None if options else 1000.0
    outputs = llm.generate(prompts(), GREEDY, use_tqdm=False, timeout=timeout)
    assert tokens(outputs) == expected
    assert submitted == [0] * 12


def test_a_bad_prompt_is_told_in_its_place(make_llava: LLMFactory, expected: list[Any]) -> None:
    llm = with_device(make_llava(max_num_batched_tokens=16), 1000)
    given = prompts()
    given[7] = {"prompt": "<image>", "multi_modal_data": {"image": b"no picture"}}
    given[9] = 12
    outputs = llm.generate(given, GREEDY, use_tqdm=False, errors="return")
    assert isinstance(outputs[7].error, MediaError)
    assert outputs[9].error is not None and outputs[9].error.request_id == "9"
    good = [i for i in range(12) if i not in (7, 9)]
    assert [tokens(outputs[i : i + 1])[0] for i in good] == [expected[i] for i in good]
    assert_idle(llm)


def test_not_all_are_prepared_ahead(make_llava: LLMFactory) -> None:
    engine = with_device(make_llava(), 0).llm_engine
    with PromptsAhead(engine, ["a"] * 300, [GREEDY] * 300) as ahead:
        ahead.work_until(Countdown(1000))
        assert len(ahead) == 0
        places: list[int] = []
        assert not ahead.submit(lambda place, prompt: places.append(place))
    assert places == list(range(300))
