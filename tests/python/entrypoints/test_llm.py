"""LLM.generate with tiny models: whatever way a prompt is run, it gives the same. Layer: whole
engine, tiny models.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_fixtures import LLMFactory, assert_idle, picture, with_picture
from tiny_models import EOS_ID, FIRST_BYTE_ID, token_ids

from mmcore import LLM, RequestOutput, SamplingParams
from mmcore.errors import ValidationError

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
TEXTS = ["a", "hello world", "x" * 70, "The quick brown fox", "hello there"]


def generate(llm: LLM, prompts: Any, params: Any = GREEDY, **options: Any) -> list[RequestOutput]:
    outputs = llm.generate(prompts, params, use_tqdm=False, **options)
    assert_idle(llm)
    return outputs


def ids(outputs: list[RequestOutput]) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]


def mixed_prompts() -> list[Any]:
    return [
        *TEXTS,
        with_picture(0),
        with_picture(1, "before <image> after"),
        with_picture(0, "again the first one: <image>"),
        {
            "prompt": "<image>and<image>",
            "multi_modal_data": {"image": [picture(2), picture(0)]},
        },
    ]


@pytest.fixture(scope="module")
def alone(llava: LLM) -> list[list[int]]:
    """The tokens of the mixed prompts, each run by itself without any cached prefix."""
    found = []
    for prompt in mixed_prompts():
        llava.llm_engine.reset_caches()
        found += ids(generate(llava, prompt))
    return found


# The same prompt in different company.


def test_prompts_are_told_apart(alone: list[list[int]]) -> None:
    assert len({tuple(tokens) for tokens in alone}) == len(alone)


def test_a_batch_gives_what_each_gives_alone(llava: LLM, alone: list[list[int]]) -> None:
    llava.llm_engine.reset_caches()
    assert ids(generate(llava, mixed_prompts())) == alone


@pytest.mark.parametrize(
    "options",
    [
        {"max_num_batched_tokens": 7},
        {"max_num_batched_tokens": 7, "enable_prefix_caching": False, "max_num_seqs": 3},
        {"max_prefill_chunk": 3, "block_size": 4},
        {"enable_chunked_prefill": False},
        {"block_size": 1, "max_num_seqs": 2},
        {"encoder_budget": 4, "encoder_cache_rows": 4},
        {"mm_input_cache_bytes": 0},
        {"scheduling_policy": "priority"},
    ],
    ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()),
)
def test_ways_to_run(make_llava: LLMFactory, alone: list[list[int]], options: Any) -> None:
    llm = make_llava(limit_mm_per_prompt={"image": 2}, **options)
    for _ in range(2):
        assert ids(generate(llm, mixed_prompts())) == alone


def test_preemption(make_llava: LLMFactory, alone: list[list[int]]) -> None:
    llm = make_llava(
        limit_mm_per_prompt={"image": 2}, block_size=2, num_gpu_blocks_override=48,
        enable_prefix_caching=False, headroom=0,
    )  # fmt: skip
    assert ids(generate(llm, mixed_prompts())) == alone
    assert llm.llm_engine.metrics()["preemptions"] > 0


def test_priorities_do_not_change_what_is_generated(
    make_llava: LLMFactory, alone: list[list[int]]
) -> None:
    llm = make_llava(limit_mm_per_prompt={"image": 2}, scheduling_policy="priority", max_num_seqs=2)
    prompts = mixed_prompts()
    outputs = generate(llm, prompts, priority=list(range(len(prompts), 0, -1)))
    assert ids(outputs) == alone
    scheduled = [o.metrics.first_scheduled_time for o in outputs if o.metrics is not None]
    assert scheduled == sorted(scheduled, reverse=True)


def test_a_second_pass_skips_the_tower(make_llava: LLMFactory, alone: list[list[int]]) -> None:
    llm = make_llava(limit_mm_per_prompt={"image": 2}, block_size=4)
    generate(llm, mixed_prompts())
    engine = llm.llm_engine
    before = engine.metrics()
    assert before["items_encoded"] == 3, "three different pictures in five places"
    outputs = generate(llm, mixed_prompts())
    after = engine.metrics()
    assert ids(outputs) == alone
    assert after["items_encoded"] == before["items_encoded"]
    assert after["prefix_tokens_hit"] > before["prefix_tokens_hit"]
    metrics = outputs[2].metrics
    assert metrics is not None
    assert metrics.num_cached_tokens >= 68


# What comes back.


def test_outputs_are_in_the_prompts_order_and_complete(llava: LLM) -> None:
    outputs = generate(llava, mixed_prompts())
    for prompt, output in zip(mixed_prompts(), outputs, strict=True):
        text = prompt if isinstance(prompt, str) else prompt["prompt"]
        assert output.finished
        assert output.error is None
        completion = output.outputs[0]
        assert completion.text == llava.get_tokenizer().decode(
            completion.token_ids, skip_special_tokens=True
        )
        assert completion.finish_reason == "length"
        assert output.metrics is not None
        times = output.metrics
        assert (
            times.arrival_time
            <= times.first_scheduled_time  # type: ignore[operator]
            <= times.first_token_time
            <= times.last_token_time
            <= times.finished_time
        )
        if isinstance(prompt, str):
            assert output.prompt_token_ids == token_ids(text)
            assert output.prompt == text


def test_a_single_prompt_of_any_kind(llama: LLM) -> None:
    expected = ids(generate(llama, ["hello"]))
    for prompt in (
        "hello",
        {"prompt": "hello"},
        {"prompt_token_ids": token_ids("hello")},
        [{"prompt_token_ids": token_ids("hello")}],
    ):
        assert ids(generate(llama, prompt)) == expected
    by_ids = llama.generate(
        sampling_params=GREEDY, prompt_token_ids=[token_ids("hello")], use_tqdm=False
    )
    assert ids(by_ids) == expected


def test_one_sampling_params_for_each_prompt(llama: LLM) -> None:
    params = [SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True) for n in (3, 5)]
    assert [len(t) for t in ids(generate(llama, ["a", "b"], params))] == [3, 5]
    with pytest.raises(ValidationError, match="must be the same"):
        llama.generate(["a"], params, use_tqdm=False)


def test_no_prompts_are_no_outputs(llama: LLM) -> None:
    assert generate(llama, []) == []


def test_the_progress_bar_counts_the_prompts(
    llama: LLM, capsys: pytest.CaptureFixture[str]
) -> None:
    llama.generate(["a", "b"], GREEDY)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "tokens/s" in shown


# Sampling.


def test_logprobs_are_those_of_transformers(llama: LLM, llama_folder: Path) -> None:
    from transformers import LlamaForCausalLM

    params = SamplingParams(
        temperature=0.0, max_tokens=6, ignore_eos=True, logprobs=3, prompt_logprobs=2
    )
    [output] = generate(llama, ["hello world"], params)
    completion = output.outputs[0]
    prompt, generated = token_ids("hello world"), list(completion.token_ids)
    model = LlamaForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + generated])).logits[0].log_softmax(-1)

    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == len(prompt)
    assert completion.logprobs is not None
    rows = [*output.prompt_logprobs[1:], *completion.logprobs]
    for position, row in enumerate(rows):
        assert row is not None
        wanted = logprobs[position]
        order = wanted.argsort(descending=True).tolist()
        actual = (prompt + generated)[position + 1]
        best = order[: 2 if position < len(prompt) - 1 else 3]
        assert set(row) == {actual, *best}
        for token, entry in row.items():
            assert entry.logprob == pytest.approx(wanted[token].item(), abs=1e-4)
            assert entry.rank == order.index(token) + 1
            assert entry.decoded_token == llama.get_tokenizer().decode([token])
    total = sum(row[t].logprob for row, t in zip(completion.logprobs, generated, strict=True))
    assert completion.cumulative_logprob == pytest.approx(total, abs=1e-6)


def test_prompt_logprobs_come_whole_in_chunks_and_from_a_cached_prompt(
    make_llama: LLMFactory,
) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1)
    llm = make_llama(max_num_batched_tokens=5, block_size=4)
    [first] = generate(llm, ["hello world hello"], params)
    [second] = generate(llm, ["hello world hello"], params)
    assert first.prompt_logprobs is not None
    assert len(first.prompt_logprobs) == len("hello world hello")
    assert second.prompt_logprobs is not None
    for a, b in zip(first.prompt_logprobs[1:], second.prompt_logprobs[1:], strict=True):
        assert a is not None
        assert b is not None
        assert {t: e.logprob for t, e in a.items()} == pytest.approx(
            {t: e.logprob for t, e in b.items()}, abs=1e-5
        )


def test_a_seed_draws_the_same_in_any_batch(llama: LLM) -> None:
    seeded = SamplingParams(temperature=1.0, max_tokens=12, ignore_eos=True, seed=11)
    expected = ids(generate(llama, ["hello"], seeded))[0]
    others = [SamplingParams(temperature=1.0, max_tokens=9, seed=i) for i in range(5)]
    batch = ids(
        generate(llama, ["a", "b", "c", "hello", "d", "e"], [*others[:3], seeded, *others[3:]])
    )
    assert batch[3] == expected
    other = SamplingParams(temperature=1.0, max_tokens=12, ignore_eos=True, seed=12)
    assert ids(generate(llama, ["hello"], other))[0] != expected


def test_requests_without_a_seed_follow_from_the_engines(make_llama: LLMFactory) -> None:
    free = SamplingParams(temperature=1.0, max_tokens=12, ignore_eos=True)
    runs = [ids(generate(make_llama(seed=seed), ["hi", "hi"], free)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1], "two requests drew the same"
    assert runs[2] != runs[0]


def test_several_sequences_share_the_prompt(make_llama: LLMFactory) -> None:
    llm = make_llama(block_size=4)
    prompt = "p" * 64
    params = SamplingParams(n=3, temperature=1.0, max_tokens=8, ignore_eos=True, seed=5)
    [output] = generate(llm, [prompt], params)
    assert [c.index for c in output.outputs] == [0, 1, 2]
    sampled = [list(c.token_ids) for c in output.outputs]
    assert len({tuple(s) for s in sampled}) == 3
    metrics = llm.llm_engine.metrics()
    assert metrics["prefix_tokens_hit"] >= 2 * 60, "the others did not share the prompt"
    # The first sequence is the request's own; the same seed gives the same again.
    single = SamplingParams(temperature=1.0, max_tokens=8, ignore_eos=True, seed=5)
    assert ids(generate(llm, [prompt], single)) == [sampled[0]]
    without = make_llama(enable_prefix_caching=False)
    [again] = generate(without, [prompt], params)
    assert [list(c.token_ids) for c in again.outputs] == sampled


def test_best_of_returns_the_most_likely(llama: LLM) -> None:
    def params(n: int, best_of: int | None) -> SamplingParams:
        return SamplingParams(
            n=n, best_of=best_of, temperature=1.0, max_tokens=6, ignore_eos=True, seed=3,
            logprobs=0,
        )  # fmt: skip

    [every] = generate(llama, ["hello"], params(5, None))
    [best] = generate(llama, ["hello"], params(2, 5))

    def likelihood(completion: Any) -> float:
        assert completion.cumulative_logprob is not None
        return float(completion.cumulative_logprob)

    ranked = sorted(every.outputs, key=likelihood, reverse=True)
    assert [list(c.token_ids) for c in best.outputs] == [list(c.token_ids) for c in ranked[:2]]
    assert [c.index for c in best.outputs] == [0, 1]


def test_stop_strings(llama: LLM) -> None:
    [free] = generate(
        llama, ["hello"], SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    )
    text = free.outputs[0].text
    stop = text[9:12]
    end = text.index(stop)
    params = SamplingParams(
        temperature=0.0, max_tokens=40, ignore_eos=True, stop=[stop, "never said"]
    )
    [stopped] = generate(llama, ["hello"], params)
    assert stopped.outputs[0].text == text[:end]
    assert stopped.outputs[0].finish_reason == "stop"
    assert stopped.outputs[0].stop_reason == stop
    assert len(stopped.outputs[0].token_ids) < len(free.outputs[0].token_ids)
    params.include_stop_str_in_output = True
    [shown] = generate(llama, ["hello"], params)
    assert shown.outputs[0].text == text[: end + len(stop)]


def first_tokens(llm: LLM, count: int) -> list[int]:
    params = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)
    return ids(generate(llm, ["hello"], params))[0]


def test_stop_tokens(llama: LLM) -> None:
    free = first_tokens(llama, 10)
    stop = free[4]
    first = free.index(stop)
    params = SamplingParams(temperature=0.0, max_tokens=10, ignore_eos=True, stop_token_ids=[stop])
    completion = generate(llama, ["hello"], params)[0].outputs[0]
    assert list(completion.token_ids) == free[: first + 1]
    assert (completion.finish_reason, completion.stop_reason) == ("stop", stop)
    tokenizer = llama.get_tokenizer()
    assert completion.text == tokenizer.decode(free[:first], skip_special_tokens=True)
    params.include_stop_str_in_output = True
    completion = generate(llama, ["hello"], params)[0].outputs[0]
    assert completion.text == tokenizer.decode(free[: first + 1], skip_special_tokens=True)


def test_the_end_of_text(llama: LLM) -> None:
    bias = {EOS_ID: 1000.0}
    params = SamplingParams(temperature=0.0, max_tokens=10, logit_bias=bias)
    completion = generate(llama, ["hello"], params)[0].outputs[0]
    assert list(completion.token_ids) == [EOS_ID]
    assert completion.text == ""
    assert (completion.finish_reason, completion.stop_reason) == ("stop", None)
    params = SamplingParams(temperature=0.0, max_tokens=10, logit_bias=bias, min_tokens=3)
    completion = generate(llama, ["hello"], params)[0].outputs[0]
    assert len(completion.token_ids) == 4
    assert EOS_ID not in completion.token_ids[:3]


def test_bias_and_allowed_tokens(llama: LLM) -> None:
    letter = FIRST_BYTE_ID + ord("q")
    biased = SamplingParams(temperature=0.0, max_tokens=3, logit_bias={letter: 1000.0})
    assert generate(llama, ["hello"], biased)[0].outputs[0].text == "qqq"
    allowed = SamplingParams(temperature=1.0, max_tokens=20, allowed_token_ids=token_ids("xyz"))
    assert set(generate(llama, ["hello"], allowed)[0].outputs[0].text) <= set("xyz")


def test_logits_processors_of_both_forms(llama: LLM) -> None:
    seen = []

    def only_q(generated: list[int], logits: torch.Tensor) -> torch.Tensor:
        seen.append(list(generated))
        logits = logits.clone()
        logits[FIRST_BYTE_ID + ord("q")] += 1000
        return logits

    def with_prompt(prompt: list[int], generated: list[int], logits: torch.Tensor) -> torch.Tensor:
        assert prompt == token_ids("hello")
        return only_q(generated, logits)

    for process in (only_q, with_prompt):
        seen.clear()
        params = SamplingParams(temperature=0.0, max_tokens=3, logits_processors=[process])
        outputs = generate(llama, ["hello", "world"], [params, GREEDY])
        assert outputs[0].outputs[0].text == "qqq"
        assert "q" not in outputs[1].outputs[0].text
        assert seen == [[], token_ids("q"), token_ids("qq")]


def test_a_processor_that_raises_fails_its_request_alone(llama: LLM) -> None:
    def broken(generated: list[int], logits: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("no")

    params = SamplingParams(max_tokens=3, logits_processors=[broken])
    expected = ids(generate(llama, ["world"]))
    outputs = generate(llama, ["hello", "world"], [params, GREEDY], errors="return")
    assert outputs[0].error is not None
    assert outputs[0].error.code == "logits_processor_error"
    assert ids(outputs[1:]) == expected


def test_max_tokens_none_goes_on_to_the_models_limit(make_llama: LLMFactory) -> None:
    llm = make_llama(max_model_len=40)
    params = SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True)
    [output] = generate(llm, ["hello"], params)
    assert len(output.outputs[0].token_ids) == 40 - len("hello")
    assert output.outputs[0].finish_reason == "length"


def test_without_a_tokenizer(make_llama: LLMFactory, llama: LLM) -> None:
    llm = make_llama(skip_tokenizer_init=True)
    expected = ids(generate(llama, ["hello"]))
    outputs = generate(llm, [{"prompt_token_ids": token_ids("hello")}])
    assert ids(outputs) == expected
    assert outputs[0].outputs[0].text == ""
    with pytest.raises(ValidationError, match="skip_tokenizer_init"):
        llm.generate(["hello"], GREEDY, use_tqdm=False)
    with pytest.raises(ValidationError, match="no tokenizer"):
        llm.get_tokenizer()


def test_temperature_makes_a_difference(llama: LLM) -> None:
    hot = SamplingParams(temperature=5.0, max_tokens=64, ignore_eos=True, seed=0)
    [output] = generate(llama, ["hello"], hot)
    counts: dict[int, int] = {}
    for token in output.outputs[0].token_ids:
        counts[token] = counts.get(token, 0) + 1
    entropy = -sum(c / 64 * math.log(c / 64) for c in counts.values())
    assert entropy > 3.0


# Bfloat16, and models that are run in it.


def test_bfloat16_runs(llava_folder: Path) -> None:
    llm = LLM(str(llava_folder), dtype="bfloat16", num_gpu_blocks_override=64)
    outputs = generate(llm, [*TEXTS, with_picture(0)])
    assert all(len(t) == 12 for t in ids(outputs))
    assert ids(generate(llm, [*TEXTS, with_picture(0)])) == ids(outputs)


def test_random_weights_need_no_files(llama_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((llama_folder / name).read_bytes())
    llm = LLM(str(tmp_path), load_format="dummy", dtype="float32", num_gpu_blocks_override=64)
    assert len(ids(generate(llm, ["hello"]))[0]) == 12
