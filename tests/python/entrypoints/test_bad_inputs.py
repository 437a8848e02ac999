"""Bad requests among good ones: each is refused by name, the good ones do not notice. Layer: whole
engine, tiny models.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_fixtures import LLMFactory, assert_idle, picture, with_picture
from tiny_models import IMAGE_TOKEN_ID, VOCAB_SIZE, token_ids

from mmcore import LLM, RequestOutput, SamplingParams
from mmcore.errors import (
    MediaError,
    MmcoreError,
    PlaceholderMismatchError,
    UnservableRequestError,
    ValidationError,
)

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
Row = tuple[Any, SamplingParams, type[MmcoreError], str | None]


def image_prompt(image: Any, text: str = "<image>") -> dict[str, Any]:
    return {"prompt": text, "multi_modal_data": {"image": image}}


def truncated_png() -> Image.Image:
    buffer = io.BytesIO()
    picture(0, 200, 200).save(buffer, "PNG")
    data = buffer.getvalue()
    return Image.open(io.BytesIO(data[: len(data) // 2]))


def greedy(**changes: Any) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=8, **changes)


SEED_LIMIT = r"You set image=1 \(or defaulted to 1\).*found 2 items"
SEED_LENGTH = r"The prompt \(total length 600\) is too long to fit into the model"

BAD: dict[str, Any] = {
    "empty text": ("", GREEDY, ValidationError, "empty"),
    "empty ids": ({"prompt_token_ids": []}, GREEDY, ValidationError, "empty"),
    "negative id": ({"prompt_token_ids": [-1]}, GREEDY, ValidationError, "-1"),
    "id of no token": ({"prompt_token_ids": [VOCAB_SIZE]}, GREEDY, ValidationError, "266|261"),
    "huge id": ({"prompt_token_ids": [2**40]}, GREEDY, ValidationError, str(2**40)),
    "fraction as id": ({"prompt_token_ids": [1.5]}, GREEDY, ValidationError, "must be an integer"),
    "bool as id": ({"prompt_token_ids": [True]}, GREEDY, ValidationError, "must be an integer"),
    "lone surrogate": ("\udcff", GREEDY, ValidationError, "Unicode"),
    "too long": ("x" * 600, GREEDY, ValidationError, SEED_LENGTH),
    "too long with its image": (
        image_prompt(picture(0), "x" * 509 + "<image>"), GREEDY, ValidationError, "513",
    ),
    "two images": (
        image_prompt([picture(0), picture(1)], "<image><image>"), GREEDY, MediaError, SEED_LIMIT,
    ),
    "no placeholder": (
        image_prompt(picture(0), "look"), GREEDY, PlaceholderMismatchError, "0 image placeholders",
    ),
    "a placeholder too many": (
        image_prompt(picture(0), "<image>x<image>"), GREEDY, PlaceholderMismatchError, "2 image",
    ),
    "a placeholder and no image": (
        {"prompt_token_ids": [IMAGE_TOKEN_ID]}, GREEDY, PlaceholderMismatchError, "1 image",
    ),
    "truncated png": (image_prompt(None), GREEDY, MediaError, "cut off or damaged"),
    "float pixels": (
        image_prompt(np.zeros((8, 8, 3), np.float32)), GREEDY, MediaError, "8-bit",
    ),
    "image without pixels": (
        image_prompt(np.zeros((0, 8, 3), np.uint8)), GREEDY, MediaError, "8 by 0",
    ),
    "too narrow": (image_prompt(Image.new("RGB", (1, 300))), GREEDY, MediaError, "times"),
    "a path as image": (image_prompt("cat.png"), GREEDY, MediaError, "str"),
    "unknown modality": (
        {"prompt": "x", "multi_modal_data": {"smell": 1}}, GREEDY, MediaError, "smell",
    ),
    "video for an image model": (
        {"prompt": "x", "multi_modal_data": {"video": np.zeros((2, 8, 8, 3), np.uint8)}},
        GREEDY, MediaError, "video",
    ),
    "media is a list": ({"prompt": "x", "multi_modal_data": [1]}, GREEDY, ValidationError, None),
    "encoder prompt": (
        {"encoder_prompt": "x", "decoder_prompt": "y"}, GREEDY, ValidationError, "encoder",
    ),
    "bias beyond the logits": ("x", greedy(logit_bias={9999: 1.0}), ValidationError, "9999"),
    "allowed beyond the logits": (
        "x", greedy(allowed_token_ids=[9999]), ValidationError, "9999",
    ),
    "stop token beyond the logits": (
        "x", greedy(stop_token_ids=[9999]), ValidationError, "9999",
    ),
    "too many logprobs": ("x", greedy(logprobs=1000), ValidationError, "1000"),
}  # fmt: skip


@pytest.fixture(scope="module")
def one_image(make_llava: LLMFactory) -> LLM:
    return make_llava()


@pytest.fixture(scope="module")
def canaries(one_image: LLM) -> list[list[int]]:
    return tokens(one_image.generate(good_prompts(), GREEDY, use_tqdm=False))


def good_prompts() -> list[Any]:
    return ["hello", with_picture(7)]


def tokens(outputs: list[RequestOutput]) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]


def prompt_of(name: str) -> Any:
    if name == "truncated png":
        return image_prompt(truncated_png())
    return BAD[name][0]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_among_good_ones(
    one_image: LLM, canaries: list[list[int]], name: str
) -> None:
    _, params, error, message = BAD[name]
    first, second = good_prompts()
    outputs = one_image.generate(
        [first, prompt_of(name), second], [GREEDY, params, GREEDY], use_tqdm=False, errors="return"
    )
    assert tokens([outputs[0], outputs[2]]) == canaries
    bad = outputs[1]
    assert bad.finished
    assert type(bad.error) is error
    assert bad.error.code
    if message is not None:
        with pytest.raises(error, match=message):
            raise bad.error
    assert_idle(one_image)


def test_the_first_error_is_raised_after_the_others_have_finished(
    one_image: LLM, canaries: list[list[int]]
) -> None:
    first, second = good_prompts()
    with pytest.raises(ValidationError, match="empty") as caught:
        one_image.generate([first, "", second, "x" * 600], GREEDY, use_tqdm=False)
    outputs: list[RequestOutput] = caught.value.outputs  # type: ignore[attr-defined]
    assert len(outputs) == 4
    assert tokens([outputs[0], outputs[2]]) == canaries
    assert outputs[1].error is caught.value
    assert outputs[3].error is not None
    assert outputs[3].error.code == "context_length_exceeded"
    assert_idle(one_image)


def test_what_is_no_prompt_at_all(one_image: LLM, canaries: list[list[int]]) -> None:
    first, second = good_prompts()
    with pytest.raises(TypeError, match="inputs must be") as caught:
        one_image.generate([first, 3, second], GREEDY, use_tqdm=False)  # type: ignore[list-item]
    outputs = caught.value.outputs  # type: ignore[attr-defined]
    assert tokens([outputs[0], outputs[2]]) == canaries
    assert isinstance(outputs[1].error, ValidationError)
    assert outputs[1].error.__cause__ is caught.value


def test_a_hundred_bad_ones_leave_nothing_behind(one_image: LLM, canaries: list[list[int]]) -> None:
    names = [name for name in BAD for _ in range(4)]
    prompts = [prompt_of(name) for name in names]
    params = [BAD[name][1] for name in names]
    outputs = one_image.generate(
        [*prompts, *good_prompts()], [*params, GREEDY, GREEDY], use_tqdm=False, errors="return"
    )
    assert all(output.error is not None for output in outputs[:-2])
    assert tokens(outputs[-2:]) == canaries
    assert_idle(one_image)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 30), (3, 1)])
def test_tiny_pictures_work(one_image: LLM, size: tuple[int, int]) -> None:
    """What one pixel shows is defined: the processor enlarges it, as transformers does."""
    outputs = one_image.generate(
        [image_prompt(Image.new("RGB", size, (200, 10, 60)))], GREEDY, use_tqdm=False
    )
    assert len(outputs[0].outputs[0].token_ids) == 8


def test_text_only_for_a_vision_model(one_image: LLM, canaries: list[list[int]]) -> None:
    [output] = one_image.generate(["hello"], GREEDY, use_tqdm=False)
    assert tokens([output]) == canaries[:1]


def test_an_image_for_a_text_model(llama: LLM) -> None:
    good, bad = llama.generate(
        ["hello", image_prompt(picture(0))], GREEDY, use_tqdm=False, errors="return"
    )
    assert isinstance(bad.error, MediaError)
    assert bad.error.code == "images_not_supported"
    assert good.error is None


def test_a_prompt_beyond_the_pool_is_unservable_at_once(make_llama: LLMFactory) -> None:
    llm = make_llama(num_gpu_blocks_override=8)  # 7 usable blocks of 16
    # The pool holds the prompt and the first token, or it does not.
    fits, beyond = "y" * 111, "y" * 112
    outputs = llm.generate([beyond, "hello", fits], GREEDY, use_tqdm=False, errors="return")
    assert isinstance(outputs[0].error, UnservableRequestError)
    assert outputs[1].error is None
    # What outgrows the pool while generating is cut off, not failed.
    assert outputs[2].error is None
    assert outputs[2].outputs[0].finish_reason == "length"
    assert len(outputs[2].outputs[0].token_ids) < 8
    assert_idle(llm)


def test_an_image_beyond_the_encoder_budget_is_unservable(make_llava: LLMFactory) -> None:
    llm = make_llava(encoder_budget=3, max_num_batched_tokens=16)
    good, bad = llm.generate(["hello", with_picture(0)], GREEDY, use_tqdm=False, errors="return")
    assert isinstance(bad.error, UnservableRequestError)
    assert good.error is None


def test_unsupported_requests(llama: LLM) -> None:
    from mmcore.sampling_params import GuidedDecodingParams

    guided = SamplingParams(guided_decoding=GuidedDecodingParams(regex="a+"))
    with pytest.raises(ValidationError, match="guided_decoding") as caught:
        llama.generate(["x"], guided, use_tqdm=False)
    assert caught.value.code == "unsupported"
    with pytest.raises(ValidationError, match="lora"):
        llama.generate(["x"], GREEDY, use_tqdm=False, lora_request=object())
    with pytest.raises(ValidationError, match="pooling"):
        llama.encode(["x"])
    with pytest.raises(ValidationError, match="Priority scheduling is not enabled"):
        llama.generate(["x"], GREEDY, use_tqdm=False, priority=[1])
    assert_idle(llama)


def test_a_mapper_that_refuses_fails_its_request_alone(
    one_image: LLM, canaries: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapper = one_image.llm_engine.model_runner.mapper
    assert mapper is not None
    original = mapper.map

    def picky(items: Any) -> Any:
        if items[0].data.size == (33, 33):
            raise MediaError("an odd size", code="image_too_small")
        return original(items)

    monkeypatch.setattr(mapper, "map", picky)
    first, second = good_prompts()
    outputs = one_image.generate(
        [first, image_prompt(picture(5, 33, 33)), second], GREEDY, use_tqdm=False, errors="return"
    )
    assert outputs[1].error is not None
    assert outputs[1].error.code == "image_too_small"
    assert tokens([outputs[0], outputs[2]]) == canaries
    assert_idle(one_image)


def test_an_encoder_that_gives_too_few_rows(
    one_image: LLM, canaries: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = one_image.llm_engine.model_runner.model
    original = model.embed_multimodal

    def short(**kwargs: Any) -> Any:
        outputs = original(**kwargs)
        bright = [bool((p > 1.5).all()) for p in kwargs["pixel_values"].flatten(0, 1)]
        return [o[:-1] if b else o for o, b in zip(outputs, bright, strict=True)]

    monkeypatch.setattr(model, "embed_multimodal", short)
    one_image.llm_engine.reset_caches()
    white = image_prompt(Image.new("RGB", (28, 28), "white"))
    first, second = good_prompts()
    outputs = one_image.generate([first, white, second], GREEDY, use_tqdm=False, errors="return")
    assert outputs[1].error is not None
    assert outputs[1].error.code == "mm_mismatch"
    assert tokens([outputs[0], outputs[2]]) == canaries
    assert_idle(one_image)


def test_a_model_that_raises_fails_its_request_alone(
    one_image: LLM, canaries: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = one_image.llm_engine.model_runner
    original = runner.model.compute_logits

    def fragile(hidden: Any, metadata: Any) -> Any:
        plan = metadata.rows
        for row in range(plan.num_samples):
            if plan.history(row)[0].tolist() == token_ids("bad"):
                raise RuntimeError("cannot /home/someone/model.py")
        return original(hidden, metadata)

    monkeypatch.setattr(runner.model, "compute_logits", fragile)
    first, second = good_prompts()
    outputs = one_image.generate([first, "bad", second], GREEDY, use_tqdm=False, errors="return")
    assert str(outputs[1].error) == "RuntimeError: cannot ..."
    assert outputs[1].error is not None
    assert isinstance(outputs[1].error.__cause__, RuntimeError)
    assert tokens([outputs[0], outputs[2]]) == canaries
    assert_idle(one_image)


def test_an_interrupt_leaves_the_engine_usable(
    one_image: LLM, canaries: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = one_image.llm_engine.model_runner

    def interrupt(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "model", interrupt)
        with pytest.raises(KeyboardInterrupt):
            one_image.generate(good_prompts(), GREEDY, use_tqdm=False)
    assert tokens(one_image.generate(good_prompts(), GREEDY, use_tqdm=False)) == canaries
    assert_idle(one_image)
