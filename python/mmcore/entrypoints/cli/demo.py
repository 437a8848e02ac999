"""``mmcore demo``: the bundled picture, captioned by the bundled checkpoint."""

from __future__ import annotations

from mmcore.entrypoints.cli.bundled import MODEL, PICTURE
from mmcore.entrypoints.cli.generate import Answer, ask, describe_speed, load_llm
from mmcore.entrypoints.cli.pictures import load_picture

CAPTION = "Describe the image."
QUESTIONS = ("How many circles are there?",)


def run() -> None:
    """Caption the picture, ask a question about it, and print both with their speed.

    The speed is that of a warm engine; nothing of the picture is cached at first.
    """
    from PIL import Image

    from mmcore.sampling_params import SamplingParams

    picture = load_picture(str(PICTURE))
    llm = load_llm(str(MODEL), 1)
    params = SamplingParams(temperature=0.0, max_tokens=64)
    # What is loaded with the first picture is no part of the speed.
    ask(llm, CAPTION, [Image.new("RGB", picture.size)], SamplingParams(max_tokens=1), chat=None)

    caption = ask(llm, CAPTION, [picture], params, chat=None)
    _print("picture", str(PICTURE))
    _print("prompt", CAPTION)
    _print("caption", caption.text.strip())
    _print("speed", speed(caption))
    for question in QUESTIONS:
        answer = ask(llm, question, [picture], params, chat=None)
        _print("prompt", question)
        _print("answer", answer.text.strip())
        _print("speed", speed(answer))


def speed(answer: Answer) -> str:
    """Say the speed, and what came from the cache."""
    reused = f", {answer.cached_tokens} of {answer.prompt_tokens} prompt tokens from the cache"
    return describe_speed(answer) + (reused if answer.cached_tokens else "")


def _print(name: str, value: str) -> None:
    print(f"{name:<8} {value}")  # noqa: T201
