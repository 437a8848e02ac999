"""Whole requests on a GPU, compared with the CPU. Layer: whole engine, tiny and bundled models."""

from __future__ import annotations

import gc
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu.needs_gpu import GPU
from PIL import Image
from tiny_fixtures import assert_idle, make_llm, picture, with_picture

from mmcore import LLM, RequestOutput, SamplingParams
from mmcore.entrypoints.cli.bundled import MODEL, PICTURE
from mmcore.errors import MediaError, ValidationError

pytestmark = GPU

PROMPT = "USER: <image>\nDescribe the image. ASSISTANT:"
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
CAPTION = SamplingParams(temperature=0.0, max_tokens=64)


def bundled(device: str, **options: Any) -> LLM:
    options = {"num_gpu_blocks_override": 300, "dtype": "float32", **options}
    return LLM(str(MODEL), device=device, **options)


def caption_prompt() -> Any:
    image = Image.open(PICTURE).convert("RGB")
    return {"prompt": PROMPT, "multi_modal_data": {"image": image}}


def tokens(outputs: list[RequestOutput]) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]


def assert_clean(llm: LLM) -> None:
    """Nothing is left, and no step had to be run again, which would hide its failure."""
    assert_idle(llm)
    assert llm.llm_engine.metrics()["steps_failed"] == 0


def mixed_prompts() -> list[Any]:
    texts = ["a", "hello there", "x" * 70, "The quick brown fox. " * 9]
    return [*texts, *(with_picture(i, f"<image>{'y' * (5 * i)}?") for i in range(5))]


@pytest.fixture(scope="module")
def cpu_caption() -> RequestOutput:
    return bundled("cpu").generate(caption_prompt(), CAPTION, use_tqdm=False)[0]


@pytest.mark.parametrize("enforce_eager", [False, True])
def test_the_bundled_picture_has_the_same_caption(
    cpu_caption: RequestOutput, enforce_eager: bool
) -> None:
    llm = bundled("cuda", enforce_eager=enforce_eager)
    [output] = llm.generate(caption_prompt(), CAPTION, use_tqdm=False)
    assert output.outputs[0].text == cpu_caption.outputs[0].text
    assert output.outputs[0].token_ids == cpu_caption.outputs[0].token_ids
    assert_clean(llm)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_find_the_caption_as_likely(cpu_caption: RequestOutput, dtype: str) -> None:
    """Log probabilities of the float32 caption, token by token, differ by 0.1 at most on average.

    The caption is certain: its tokens have a probability near 1.
    """
    completion = cpu_caption.outputs[0]
    prompt = caption_prompt()
    prompt["prompt"] += " " + completion.text.strip()
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
    found = []
    for llm in (bundled("cpu"), bundled("cuda", dtype=dtype)):
        [output] = llm.generate(prompt, params, use_tqdm=False)
        assert output.prompt_logprobs is not None
        rows = [next(iter(row.values())).logprob for row in output.prompt_logprobs[-20:] if row]
        found.append(torch.tensor(rows))
    assert len(found[0]) == 20
    assert (found[0] - found[1]).abs().mean() < 0.1


def test_auto_takes_the_gpu(llama_folder: Path) -> None:
    llm = make_llm(llama_folder)
    assert llm.llm_engine.model_runner.device.type == "cuda"
    first = llm.llm_engine.memory_plan.lines()[0]
    assert first.startswith("memory plan on cuda:0: budget")


def test_a_gpu_that_there_is_not(llama_folder: Path) -> None:
    with pytest.raises(ValidationError, match="numbered from 0"):
        make_llm(llama_folder, device="cuda:99")


@pytest.mark.parametrize("max_num_seqs", [3, 256])
def test_graphs_change_no_token(llava_folder: Path, max_num_seqs: int) -> None:
    options: dict[str, Any] = {"limit_mm_per_prompt": {"image": 1}, "max_num_seqs": max_num_seqs}
    made = []
    for enforce_eager in (True, False):
        llm = make_llm(llava_folder, device="cuda", enforce_eager=enforce_eager, **options)
        graphs = llm.llm_engine.model_runner.graphs
        assert (graphs is None) == enforce_eager
        made.append(tokens(llm.generate(mixed_prompts(), GREEDY, use_tqdm=False)))
        assert graphs is None or len(graphs) > 1, "the graphs were given up"
        assert_clean(llm)
    assert made[0] == made[1]


def test_the_same_tokens_as_on_the_cpu(llava_folder: Path) -> None:
    options: dict[str, Any] = {"limit_mm_per_prompt": {"image": 1}}
    prompts = mixed_prompts()
    expected = make_llm(llava_folder, device="cpu", **options).generate(
        prompts, GREEDY, use_tqdm=False
    )
    on_gpu = make_llm(llava_folder, device="cuda", **options)
    for _ in range(2):  # the second time with a warm prefix cache
        got = on_gpu.generate(prompts, GREEDY, use_tqdm=False)
        assert tokens(got) == tokens(expected)
    for prompt, output in zip(prompts, expected, strict=True):
        assert tokens(on_gpu.generate([prompt], GREEDY, use_tqdm=False)) == tokens([output])
    assert_clean(on_gpu)


def test_a_cache_of_another_type(llama_folder: Path) -> None:
    prompts = ["x" * 40, "hello"]
    made = [
        make_llm(llama_folder, device=device, kv_cache_dtype="bfloat16").generate(
            prompts, SamplingParams(temperature=0.0, max_tokens=1), use_tqdm=False
        )
        for device in ("cpu", "cuda")
    ]
    assert tokens(made[0]) == tokens(made[1])


@pytest.mark.parametrize("enforce_eager", [True, False])
def test_a_cache_of_float8(llava_folder: Path, enforce_eager: bool) -> None:
    options: dict[str, Any] = {"kv_cache_dtype": "fp8", "limit_mm_per_prompt": {"image": 1}}
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True, logprobs=1)
    made = [
        make_llm(llava_folder, device=device, enforce_eager=enforce_eager, **options).generate(
            mixed_prompts(), params, use_tqdm=False
        )
        for device in ("cpu", "cuda")
    ]
    for ours, theirs in zip(made[1], made[0], strict=True):
        # A key that summation order has moved may be rounded the other way: tokens that lead by
        # little may part, so the first ones' logprobs are compared.
        got, want = (o.outputs[0].logprobs[0] for o in (ours, theirs))
        best = max(want, key=lambda token: want[token].logprob)
        assert got[best].logprob == pytest.approx(want[best].logprob, abs=0.05)


def test_sampling_and_processors_agree_with_the_cpu(llama_folder: Path) -> None:
    def ban_even(generated: list[int], logits: torch.Tensor) -> torch.Tensor:
        logits[::2] = float("-inf")
        return logits

    params = [
        SamplingParams(seed=1, temperature=0.9, max_tokens=12, ignore_eos=True),
        SamplingParams(seed=2, top_k=5, top_p=0.8, max_tokens=12, ignore_eos=True, logprobs=3),
        SamplingParams(seed=3, repetition_penalty=1.3, presence_penalty=0.4, max_tokens=12,
                       ignore_eos=True),
        SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True,
                       logits_processors=[ban_even]),
        SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True, prompt_logprobs=2),
    ]  # fmt: skip
    prompts = ["hello"] * len(params)
    found = {
        device: make_llm(llama_folder, device=device).generate(prompts, params, use_tqdm=False)
        for device in ("cpu", "cuda")
    }
    assert tokens(found["cuda"]) == tokens(found["cpu"])
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        for a, b in zip(_logprobs(ours), _logprobs(theirs), strict=True):
            assert a == pytest.approx(b, abs=1e-3)
    assert all(token % 2 for token in found["cuda"][3].outputs[0].token_ids)


def _logprobs(output: RequestOutput) -> list[dict[int, float]]:
    rows = [*(output.outputs[0].logprobs or ()), *(output.prompt_logprobs or ())]
    return [{token: entry.logprob for token, entry in row.items()} for row in rows if row]


def test_two_hundred_requests_with_aborts_leave_nothing(llava_folder: Path) -> None:
    seed = 23
    draw = random.Random(seed)
    llm = make_llm(
        llava_folder, device="cuda", limit_mm_per_prompt={"image": 2}, max_num_seqs=40,
        num_gpu_blocks_override=120, max_num_batched_tokens=96, enforce_eager=False,
    )  # fmt: skip
    engine = llm.llm_engine
    names = [str(i) for i in range(200)]
    waiting, finished = list(names), set()
    for _ in range(5000):
        for _ in range(draw.randrange(4)):
            if waiting:
                engine.add_request(waiting.pop(), _random_prompt(draw), _random_params(draw))
        if draw.random() < 0.2:
            engine.abort_request(draw.choice(names))
        finished |= {output.request_id for output in engine.step() if output.finished}
        if not waiting and not engine.has_unfinished_requests():
            break
    assert finished == set(names), f"seed {seed}"
    assert_clean(llm)
    expected = make_llm(llava_folder, device="cpu").generate(["hello"], GREEDY, use_tqdm=False)
    assert tokens(llm.generate(["hello"], GREEDY, use_tqdm=False)) == tokens(expected)


def _random_prompt(draw: random.Random) -> Any:
    text = "z" * draw.randint(1, 150)
    images = draw.choice([0, 0, 1, 2])
    if not images:
        return text
    pictures = [picture(draw.randrange(12)) for _ in range(images)]
    return {"prompt": "<image>" * images + text, "multi_modal_data": {"image": pictures}}


def _random_params(draw: random.Random) -> SamplingParams:
    temperature = draw.choice([0.0, 1.0])
    return SamplingParams(
        temperature=temperature,
        top_k=draw.choice([-1, 10]),
        n=draw.choice([1, 1, 2]) if temperature else 1,
        max_tokens=draw.randint(1, 30),
        seed=draw.randrange(100),
        ignore_eos=True,
        prompt_logprobs=draw.choice([None, None, None, 1]),
    )


def test_a_bad_image_harms_nobody(llava_folder: Path) -> None:
    llm = make_llm(llava_folder, device="cuda", limit_mm_per_prompt={"image": 1})
    good: list[Any] = ["hello", with_picture(7)]
    expected = tokens(llm.generate(good, GREEDY, use_tqdm=False))
    bad: Any = {"prompt": "<image>", "multi_modal_data": {"image": b"no picture"}}
    outputs = llm.generate([good[0], bad, good[1]], GREEDY, use_tqdm=False, errors="return")
    assert isinstance(outputs[1].error, MediaError)
    assert tokens([outputs[0], outputs[2]]) == expected
    assert_idle(llm)


def test_an_engine_that_is_gone_gives_its_memory_back(llama_folder: Path) -> None:
    def used() -> int:
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    def serve() -> LLM:
        llm = make_llm(llama_folder, device="cuda")
        llm.generate(["hello"] * 5, GREEDY, use_tqdm=False)
        return llm

    serve()  # cuBLAS keeps a workspace for good when it is first used
    before = used()
    llm = serve()
    assert used() > before
    del llm
    # The rotary tables are shared between engines and stay.
    assert used() - before < 1 << 20


def test_dummy_weights_need_no_files(llama_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((llama_folder / name).read_bytes())
    made = {
        device: make_llm(tmp_path, device=device, load_format="dummy").generate(
            ["hello"], GREEDY, use_tqdm=False
        )
        for device in ("cpu", "cuda")
    }
    assert tokens(made["cuda"]) == tokens(made["cpu"])


def test_a_model_that_cannot_be_captured_runs_without_graphs(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mmcore.model_executor.models.llama import LlamaModel

    original = LlamaModel.forward

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        hidden = original(self, *args, **kwargs)
        assert hidden.sum().item() is not None  # waits for the device, which a graph cannot
        return hidden

    expected = tokens(make_llm(llama_folder).generate(["hello"], GREEDY, use_tqdm=False))
    monkeypatch.setattr(LlamaModel, "forward", counting)
    llm = make_llm(llama_folder, enforce_eager=False)
    assert "cannot be captured" in caplog.text
    assert torch.rand(1, device="cuda").item() < 1  # the generator is not left in the capture
    assert tokens(llm.generate(["hello"], GREEDY, use_tqdm=False)) == expected
