"""Count exact captions and right answers of a checkpoint on pictures it never saw.

    cd examples && python -m train_tiny_llava.evaluate ../python/mmcore/assets/tiny_llava
    cd examples && python -m train_tiny_llava.evaluate DIR --engine mmcore --pictures 200

Three sets: *held-out* pictures of the generator, another seed than the training's, each with its
caption and some questions; *free* ones, bolder and without a caption; and the *hand-drawn* ones.
Replies are compared to the letter.  Exits with 1 when captions or answers are under 97%.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .handdrawn import drawings
from .questions import Question, caption_question, sample_question
from .render import render, sample_canvas
from .scene import sample_scene
from .tokenizer import IMAGE, OPENING, REPLY

PASS = 0.97
MAX_TOKENS = 64
Generate = Callable[[list[Image.Image], list[str]], list[str]]


@dataclass(frozen=True, slots=True)
class Probe:
    """One picture and one question; ``draw`` makes the picture when it is needed."""

    group: str  # held-out, free or hand-drawn
    draw: Callable[[], Image.Image]
    question: Question


def chat_prompt(question: str) -> str:
    """Return what the checkpoint's chat template makes of a picture and a question."""
    return f"{OPENING}{IMAGE}\n{question}{REPLY}"


def generated_probes(seed: int, indices: range, questions: int, strict: bool) -> list[Probe]:
    """Ask about pictures of the generator; strict ones are captioned, too."""
    group = "held-out" if strict else "free"
    probes: list[Probe] = []
    for index in indices:
        rng = random.Random(f"evaluation {group} {seed} {index}")
        scene = sample_scene(rng, strict)
        canvas = sample_canvas(rng)
        asked = [caption_question(scene, rng)] if strict else []
        asked += [sample_question(scene, rng) for _ in range(questions)]
        for question in asked:
            probes.append(Probe(group, lambda s=scene, c=canvas: render(s, c), question))  # type: ignore[misc]
    return probes


def handdrawn_probes() -> list[Probe]:
    """Ask about the pictures of ``handdrawn.py``."""
    return [
        Probe("hand-drawn", drawing.image, Question("hand-drawn", text, answer))
        for drawing in drawings()
        for text, answer in drawing.asks
    ]


def hf_generate(path: Path, device: str = "cpu") -> Generate:
    """Return a generator that runs on Hugging Face transformers in float32."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor: Any = AutoProcessor.from_pretrained(path)  # type: ignore[no-untyped-call]
    model: Any = LlavaForConditionalGeneration.from_pretrained(path, dtype=torch.float32)
    model.eval().to(device)

    @torch.inference_mode()
    def generate(images: list[Image.Image], prompts: list[str]) -> list[str]:
        inputs = processor(text=prompts, images=images, padding=True, return_tensors="pt")
        output = model.generate(**inputs.to(device), do_sample=False, max_new_tokens=MAX_TOKENS)
        replies = output[:, inputs["input_ids"].shape[1] :]
        return [str(text) for text in processor.batch_decode(replies, skip_special_tokens=True)]

    return generate


def mmcore_generate(path: Path, batch: int) -> Generate:
    """Return a generator that runs on mmcore."""
    from mmcore import LLM, SamplingParams

    llm = LLM(model=str(path), dtype="float32", max_num_seqs=batch)
    sampling = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)

    def generate(images: list[Image.Image], prompts: list[str]) -> list[str]:
        requests: list[Any] = [
            {"prompt": prompt, "multi_modal_data": {"image": image}}
            for prompt, image in zip(prompts, images, strict=True)
        ]
        return [
            output.outputs[0].text for output in llm.generate(requests, sampling, use_tqdm=False)
        ]

    return generate


def judge(
    probes: Iterable[Probe], generate: Generate, batch: int, show: int
) -> dict[str, dict[str, list[bool]]]:
    """Return, by group and task, whether each reply was right; print the first wrong ones."""
    verdicts: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    # Replies of one length together: a batch runs until its longest reply ends.
    queue = sorted(probes, key=lambda probe: len(probe.question.answer))
    shown = 0
    for start in range(0, len(queue), batch):
        part = queue[start : start + batch]
        prompts = [chat_prompt(probe.question.text) for probe in part]
        replies = generate([probe.draw() for probe in part], prompts)
        for probe, reply in zip(part, replies, strict=True):
            asked = probe.question
            right = reply.strip() == asked.answer
            verdicts[probe.group][asked.task].append(right)
            if not right and shown < show:
                shown += 1
                print(f"  {probe.group}: {asked.text!r} -> {reply!r}, not {asked.answer!r}")
    return verdicts


def line(name: str, verdicts: list[bool]) -> str:
    share = 100 * sum(verdicts) / max(1, len(verdicts))
    return f"{name:24} {sum(verdicts):6} of {len(verdicts):6}  {share:6.2f}%"


def report(verdicts: dict[str, dict[str, list[bool]]]) -> bool:
    """Print the table; say whether every group passes."""
    passed = True
    for group, tasks in verdicts.items():
        answers = [right for task, all_ in tasks.items() if task != "caption" for right in all_]
        for name, marks in (("captions", tasks.get("caption", [])), ("answers", answers)):
            if marks:
                print(line(f"{group} {name}", marks))
                passed &= sum(marks) >= PASS * len(marks)
        for task, marks in sorted(tasks.items()):
            if task not in ("caption", group):
                print(line(f"    {task}", marks))
    return passed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--engine", choices=("hf", "mmcore"), default="hf")
    parser.add_argument("--pictures", type=int, default=2000, help="held-out pictures")
    parser.add_argument("--first", type=int, default=0, help="number of the first held-out one")
    parser.add_argument("--free", type=int, default=500, help="free pictures")
    parser.add_argument("--questions", type=int, default=3, help="questions a picture")
    parser.add_argument("--no-hand", action="store_true", help="leave the hand-drawn set out")
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--device", default="cpu", help="where transformers runs")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--show", type=int, default=10, help="wrong replies to print")
    args = parser.parse_args(argv)

    held_out = range(args.first, args.first + args.pictures)
    probes = generated_probes(args.seed, held_out, args.questions, strict=True)
    probes += generated_probes(args.seed, range(args.free), args.questions, strict=False)
    if not args.no_hand:
        probes += handdrawn_probes()
    if args.engine == "hf":
        generate = hf_generate(args.checkpoint, args.device)
    else:
        generate = mmcore_generate(args.checkpoint, args.batch)
    start = time.monotonic()
    verdicts = judge(probes, generate, args.batch, args.show)
    seconds = time.monotonic() - start
    print(
        f"{args.checkpoint.name} on {args.engine}, seed {args.seed}: {args.pictures} held-out and "
        f"{args.free} free pictures, {len(probes)} replies in {seconds:.0f} s"
    )
    passed = report(verdicts)
    print("passed" if passed else f"failed: under {100 * PASS:.0f}%")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
