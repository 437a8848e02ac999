"""Greedy tokens and first-token logits against Hugging Face transformers in float32.

The same nine prompts a model, in five ways to run them, on the CPU and on a GPU. Where the
reference's best two logits are closer than MARGIN two correct engines may part, so the comparison
of that case ends there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from e2e.oracle import ABSENT, ORACLE, Case, Reference, make_reference
from gpu.needs_gpu import GPU

from mmcore import LLM, RequestOutput, SamplingParams

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not ORACLE.is_dir(), reason=ABSENT),
]

ARCHS = ("llama", "qwen2", "mistral", "llava", "llava_siglip", "llava_next")
MARGIN = 1e-4  # ten times what float32 summation order was seen to change
TOLERANCE = 1e-4
GREEDY = SamplingParams(temperature=0.0, max_tokens=32, ignore_eos=True, logprobs=20)


@pytest.fixture(
    scope="module",
    params=["cpu", pytest.param("cuda", marks=GPU), pytest.param("cuda graphs", marks=GPU)],
)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=ARCHS)
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    root = tmp_path_factory.getbasetemp() / "oracle"
    root.mkdir(exist_ok=True)
    return make_reference(request.param, root)


def make_llm(reference: Reference, device: str, **options: Any) -> LLM:
    if reference.multimodal:
        options["limit_mm_per_prompt"] = {"image": 2}
    options.setdefault("num_gpu_blocks_override", 400)
    device, _, graphs = device.partition(" ")
    options["enforce_eager"] = not graphs
    return LLM(model=str(reference.checkpoint), dtype="float32", device=device, **options)


@contextmanager
def recorded_logits(llm: LLM) -> Iterator[list[np.ndarray]]:
    """Collects every row of logits that the model gives, in order."""
    model: Any = llm.llm_engine.model_runner.model
    rows: list[np.ndarray] = []
    original = model.compute_logits

    def recording(*args: Any, **kwargs: Any) -> Any:
        logits = original(*args, **kwargs)
        rows.extend(logits.float().cpu().numpy().copy())
        return logits

    model.compute_logits = recording
    try:
        yield rows
    finally:
        del model.compute_logits


def check(case: Case, output: RequestOutput) -> None:
    assert output.error is None
    assert output.prompt_token_ids == case.prompt_token_ids
    completion = output.outputs[0]
    got = list(completion.token_ids)
    assert len(got) == len(case.output_token_ids)
    for step, (want, have) in enumerate(zip(case.output_token_ids, got, strict=True)):
        if want != have:
            margin = case.margins[step]
            assert margin < MARGIN, f"{case.id} step {step}: {have}, not {want} ({margin=})"
            break
    assert completion.logprobs is not None
    first = case.first_logits.astype(np.float64)
    want_logprobs = first - (first.max() + np.log(np.exp(first - first.max()).sum()))
    for token, logprob in completion.logprobs[0].items():
        assert logprob.logprob == pytest.approx(want_logprobs[token], abs=TOLERANCE)


def test_one_at_a_time(reference: Reference, device: str) -> None:
    llm = make_llm(reference, device)
    for case in reference.cases:
        with recorded_logits(llm) as rows:
            [output] = llm.generate([case.prompt], GREEDY, use_tqdm=False)
        check(case, output)
        assert np.abs(rows[0] - case.first_logits).max() < TOLERANCE


def run_all(llm: LLM, reference: Reference) -> None:
    run(llm, reference.cases)


def run(llm: LLM, cases: list[Case]) -> None:
    outputs = llm.generate([case.prompt for case in cases], GREEDY, use_tqdm=False)
    for case, output in zip(cases, outputs, strict=True):
        check(case, output)


def test_all_in_one_batch(reference: Reference, device: str) -> None:
    run_all(make_llm(reference, device), reference)


def test_chunked_prefill_of_seven_tokens(reference: Reference, device: str) -> None:
    llm = make_llm(
        reference, device, max_num_batched_tokens=7, enable_chunked_prefill=True, max_num_seqs=7
    )
    run_all(llm, reference)
    metrics = llm.llm_engine.metrics()
    prompt_tokens = sum(len(c.prompt_token_ids) for c in reference.cases)
    assert metrics["tokens_planned"] <= 7 * metrics["steps"]
    assert metrics["steps"] > prompt_tokens / 7


def test_preemption_in_a_tiny_pool(reference: Reference, device: str) -> None:
    lengths = [len(c.prompt_token_ids) for c in reference.cases]
    longest, shortest = max(lengths) + 32, min(lengths)
    # Copies of the shortest prompt fill the pool. Without headroom admission keeps one block free
    # for each, which is 4 tokens of the 32 that each will generate.
    blocks = -(-longest // 4) + 2
    copies = blocks // (-(-shortest // 4) + 2)
    llm = make_llm(
        reference,
        device,
        block_size=4,
        num_gpu_blocks_override=blocks,
        max_model_len=longest + 1,
        enable_prefix_caching=False,
        headroom=0,
    )
    run(llm, [reference.cases[lengths.index(shortest)]] * copies + reference.cases)
    metrics = llm.llm_engine.metrics()
    assert metrics["preemptions"] > 0
    assert metrics["blocks_used"] == metrics["encoder_entries_pinned"] == 0
    assert llm.llm_engine.check_invariants() == []


def test_second_pass_hits_the_prefix_cache(reference: Reference, device: str) -> None:
    llm = make_llm(reference, device, enable_prefix_caching=True)
    run_all(llm, reference)
    before = llm.llm_engine.metrics()
    run_all(llm, reference)
    after = llm.llm_engine.metrics()
    assert after["prefix_tokens_hit"] - before["prefix_tokens_hit"] > 0
    assert after["items_encoded"] == before["items_encoded"], "a cached image went to the tower"
    if reference.multimodal:
        assert before["items_encoded"] > 0
        assert after["items_skipped"] > before["items_skipped"]
