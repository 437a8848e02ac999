"""``mmcore generate``: one prompt, with pictures or without."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmcore.entrypoints.cli.bundled import model_or_bundled
from mmcore.entrypoints.cli.pictures import load_picture
from mmcore.errors import MediaError, ValidationError

if TYPE_CHECKING:
    from mmcore.entrypoints.llm import LLM
    from mmcore.outputs import RequestOutput


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, before anything is loaded.

    Parameters
    ----------
    prompt
        The text; ``"-"`` stands for standard input.
    images
        Paths and URLs, in the prompt's order.
    chat
        Whether to wrap the prompt in the chat template; None decides by the prompt.
    sampling
        Arguments of ``SamplingParams``.
    """

    prompt: str
    images: tuple[str, ...] = ()
    chat: bool | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated text and how long it took.

    Parameters
    ----------
    time_to_first_token_s
        From the moment the engine took the request: pictures are read before, and processed after.
    tokens_per_s
        Of the tokens after the first; None if there is only one.
    """

    prompt: str | None
    text: str
    token_ids: list[int]
    finish_reason: str | None
    stop_reason: int | str | None
    prompt_tokens: int
    cached_tokens: int
    time_to_first_token_s: float
    total_s: float
    tokens_per_s: float | None


def run(
    question: Question, *, model: str | None, dtype: str, max_model_len: int | None, as_json: bool
) -> None:
    """Answer the question and print."""
    from mmcore.sampling_params import SamplingParams

    # Cheap checks first: a typing error must not cost the time that loading a model takes.
    params = SamplingParams(**question.sampling)
    prompt = sys.stdin.read() if question.prompt == "-" else question.prompt
    pictures = [load_picture(source) for source in question.images]
    name = model_or_bundled(model)

    started = time.perf_counter()
    llm = load_llm(name, len(pictures), dtype=dtype, max_model_len=max_model_len)
    load_s = time.perf_counter() - started
    answer = ask(llm, prompt, pictures, params, chat=question.chat)
    if as_json:
        print(json.dumps(as_document(answer, name, load_s), ensure_ascii=False))  # noqa: T201
        return
    print(answer.text.strip())  # noqa: T201
    print(f"[{describe_speed(answer)}; loaded in {load_s:.1f} s]", file=sys.stderr)  # noqa: T201


def load_llm(
    model: str, num_images: int, *, dtype: str = "auto", max_model_len: int | None = None
) -> LLM:
    """Load a model for a prompt with that many images.

    Raises
    ------
    MediaError
        If the model takes no images; found out before its weights are read.
    """
    from mmcore.config import ModelConfig
    from mmcore.entrypoints.llm import LLM

    options: dict[str, Any] = {"dtype": dtype, "max_model_len": max_model_len}
    if num_images and not ModelConfig(model).is_multimodal_model:
        raise MediaError(
            f"{model} takes text only; leave --image out, or choose a model that takes images "
            "(mmcore info lists them).",
            code="images_not_supported",
        )
    if num_images > 1:
        options["limit_mm_per_prompt"] = {"image": num_images}
    return LLM(model, **options)


def ask(llm: LLM, prompt: str, pictures: list[Any], params: Any, *, chat: bool | None) -> Answer:
    """Generate once. `chat` as in :class:`Question`."""
    if chat is None:
        chat = not holds_placeholder(llm, prompt)
        if chat:
            try:
                return _chat(llm, prompt, pictures, params)
            except ValidationError as error:
                if error.code != "no_chat_template":
                    raise
    elif chat:
        return _chat(llm, prompt, pictures, params)
    request: Any = {"prompt": prompt}
    if pictures:
        request["multi_modal_data"] = {"image": pictures if len(pictures) > 1 else pictures[0]}
    return _answer(llm.generate([request], params, use_tqdm=False)[0])


def holds_placeholder(llm: LLM, prompt: str) -> bool:
    """Tell whether a prompt already says where its images go."""
    from mmcore.engine.placeholder_ids import placeholder_token_ids

    ids = placeholder_token_ids(llm.llm_engine.get_model_config().hf_config)
    if "image" not in ids:
        return False
    return str(llm.get_tokenizer().convert_ids_to_tokens(ids["image"])) in prompt


def _chat(llm: LLM, prompt: str, pictures: list[Any], params: Any) -> Answer:
    parts: list[Any] = [{"type": "image", "image": picture} for picture in pictures]
    parts.append({"type": "text", "text": prompt})
    messages: Any = [{"role": "user", "content": parts}]
    return _answer(llm.chat(messages, params, use_tqdm=False)[0])


def _answer(output: RequestOutput) -> Answer:
    completion, metrics = output.outputs[0], output.metrics
    if metrics is None:
        raise AssertionError("a finished request has metrics")
    first = metrics.first_token_time or metrics.last_token_time
    last = metrics.last_token_time
    made = len(completion.token_ids)
    return Answer(
        prompt=output.prompt,
        text=completion.text,
        token_ids=list(completion.token_ids),
        finish_reason=completion.finish_reason,
        stop_reason=completion.stop_reason,
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=metrics.num_cached_tokens,
        time_to_first_token_s=first - metrics.arrival_time,
        total_s=last - metrics.arrival_time,
        tokens_per_s=(made - 1) / (last - first) if made > 1 and last > first else None,
    )


def describe_speed(answer: Answer) -> str:
    """Say the speed in words."""
    rate = "" if answer.tokens_per_s is None else f", {answer.tokens_per_s:.0f} tokens/s"
    first = f"first token after {answer.time_to_first_token_s * 1e3:.0f} ms"
    return f"{len(answer.token_ids)} tokens{rate}, {first}"


def as_document(answer: Answer, model: str, load_s: float) -> dict[str, Any]:
    """Lay an answer out for ``--json``."""
    made = len(answer.token_ids)
    return {
        "model": model,
        "prompt": answer.prompt,
        "text": answer.text,
        "token_ids": answer.token_ids,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": answer.prompt_tokens + made,
            "cached_tokens": answer.cached_tokens,
        },
        "timings": {
            "load_s": load_s,
            "time_to_first_token_s": answer.time_to_first_token_s,
            "total_s": answer.total_s,
            "tokens_per_s": answer.tokens_per_s,
        },
    }
