"""Training samples: a fitted picture with as many questions as its text budget holds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from tokenizers import Tokenizer

from .questions import TASKS, Question, caption_question, sample_question
from .render import GRID, SIDE, fit, patch_labels, render, sample_canvas
from .scene import sample_scene
from .tokenizer import BOS_ID, EOS_ID, OPENING, REPLY

TEXT = 192  # text tokens a picture may have
FREE_SHARE = 0.35
TRAINING, HELD_OUT = "training", "held out"  # the names of two streams that share no picture

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Codec:
    """Text to token ids, remembered."""

    tokenizer: Tokenizer

    def ids(self, text: str) -> list[int]:
        """Encode without the BOS token."""
        return _encode(self.tokenizer, text)

    def opening(self) -> list[int]:
        """Return the tokens before the image of a chat."""
        return [BOS_ID, *self.ids(OPENING)]


@lru_cache(maxsize=200_000)
def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def prompt_after_image(question: str, rng: random.Random, chat: bool) -> str:
    """Wrap a question; a bare one (no chat) may end without the ASSISTANT mark."""
    between = "\n" if rng.random() < 0.95 else rng.choice(("", " "))
    if chat:
        return between + question + (REPLY if rng.random() < 0.95 else "\n" + REPLY.strip())
    return between + question + rng.choice(("", "", REPLY, "\n" + REPLY.strip()))


class Packer:
    """Fills one picture's text budget with branches of question and reply."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.text = np.zeros(TEXT, np.int16)
        self.branch = np.zeros(TEXT, np.int16)
        self.target = np.full(TEXT, -1, np.int16)  # what follows the token, where it is a reply
        self.task = np.zeros(TEXT, np.int8)
        self.used = self.branches = 0

    def add(self, prompt: str, question: Question, follows: bool = False) -> bool:
        """Append a turn, to the current branch if it ``follows``; False when there is no room."""
        asked = self.codec.ids(prompt)
        reply = self.codec.ids(" " + question.answer)
        stop = self.used + len(asked) + len(reply) + 1
        if stop > TEXT:
            return False
        self.branches += not follows
        middle = self.used + len(asked)
        self.text[self.used : stop] = [*asked, *reply, EOS_ID]
        self.branch[self.used : stop] = self.branches
        self.target[middle - 1 : stop - 1] = [*reply, EOS_ID]
        self.task[middle - 1 : stop - 1] = TASKS.index(question.task)
        self.used = stop
        return True


def make_sample(rng: random.Random, codec: Codec) -> Arrays:
    """Draw a scene, render it and ask about it until the budget is used up."""
    scene = sample_scene(rng, strict=rng.random() >= FREE_SHARE)
    image = fit(render(scene, sample_canvas(rng)))
    chat = rng.random() < 0.94
    packer = Packer(codec)
    if scene.strict:
        question = caption_question(scene, rng)
        packer.add(prompt_after_image(question.text, rng, chat), question)
    while True:
        question = sample_question(scene, rng)
        follows = chat and packer.used > 0 and rng.random() < 0.12
        if follows:
            prompt = OPENING + question.text + REPLY
        else:
            prompt = prompt_after_image(question.text, rng, chat)
        if not packer.add(prompt, question, follows):
            break
    opening = np.array(codec.opening(), np.int16)
    if not chat:
        opening = np.array([-1] * (len(opening) - 1) + [BOS_ID], np.int16)
    return {
        "image": image, "opening": opening, "text": packer.text, "branch": packer.branch,
        "target": packer.target, "task": packer.task, "patches": patch_labels(scene),
    }  # fmt: skip


def make_batch(rng: random.Random, codec: Codec, count: int) -> Arrays:
    """Stack ``count`` samples."""
    samples = [make_sample(rng, codec) for _ in range(count)]
    return {key: np.stack([s[key] for s in samples]) for key in samples[0]}


class SampleStream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """An endless stream of stacked samples, another one in each worker process."""

    def __init__(self, tokenizer: Tokenizer, seed: int, stream: str, batch: int) -> None:
        self.tokenizer = tokenizer
        self.seed, self.stream, self.batch = seed, stream, batch

    def __iter__(self) -> Iterator[Arrays]:
        info = torch.utils.data.get_worker_info()
        rng = random.Random(f"{self.stream} {self.seed} {info.id if info else 0}")
        codec = Codec(self.tokenizer)
        while True:
            yield make_batch(rng, codec, self.batch)


def bytes_per_sample() -> int:
    """Return roughly what a sample costs in memory."""
    return SIDE * SIDE * 3 + TEXT * 7 + GRID * GRID * 2
