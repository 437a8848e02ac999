"""Train the tiny LLaVA from nothing on pictures drawn as they are needed.

    cd examples && python -m train_tiny_llava.train --out runs/tiny --minutes 9

Worker processes draw pictures all the while; the newest ``--pool`` of them stay on the device,
and every step trains on a random handful.  Writes into ``--out``: ``tokenizer.json``,
``model.safetensors`` (float32, averaged over the last steps) and ``log.txt``.  ``--resume`` starts
from the weights in such a folder.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from .model import TinyLlava
from .pool import Batch, Pool, jolt, stream_of, take
from .samples import HELD_OUT, TRAINING
from .scoring import autocast, losses, right_replies
from .tokenizer import build_tokenizer

MARK = 50  # steps between lines of the log


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="folder of an earlier run to start from")
    parser.add_argument("--minutes", type=float, default=9.0, help="time to train")
    parser.add_argument("--steps", type=int, default=0, help="steps to train, instead of a time")
    parser.add_argument("--batch", type=int, default=1024, help="pictures a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--warmup", type=int, default=300, help="steps until it is reached")
    parser.add_argument("--decay", type=float, default=0.05, help="weight decay")
    parser.add_argument("--patch-loss", type=float, default=0.5, help="weight at the start")
    parser.add_argument("--average", type=float, default=0.998, help="of the weights, over steps")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    parser.add_argument("--pool", type=int, default=300_000, help="pictures kept on the device")
    parser.add_argument("--fill", type=int, default=20_000, help="pictures before the first step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", type=int, default=1024, help="held-out pictures to check on")
    parser.add_argument("--every", type=int, default=300, help="steps between checks")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


class Schedule:
    """How far the run is, by time or by steps, and the learning rate that follows."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.steps, self.seconds = int(args.steps), 60 * float(args.minutes)
        self.highest, self.warmup = float(args.rate), int(args.warmup)
        self.patch_loss = float(args.patch_loss)
        self.step, self.start = 0, time.monotonic()

    def done(self) -> float:
        """Return the share of the run that is over."""
        if self.steps:
            return self.step / self.steps
        return (time.monotonic() - self.start) / self.seconds

    def rate(self) -> float:
        """Return the learning rate: a linear rise, then half a cosine."""
        rise = min(1.0, (self.step + 1) / self.warmup)
        return self.highest * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, self.done())))

    def patch_weight(self) -> float:
        """Return the weight of the patch loss, which only gives the tower a start."""
        return self.patch_loss * max(0.05, 1 - 2.5 * self.done())


class Trainer:
    """One run: the model, its optimiser, and the running average of its weights."""

    def __init__(self, model: TinyLlava, args: argparse.Namespace) -> None:
        self.model, self.args = model, args
        self.run: Any = torch.compile(model) if args.compile else model
        self.live: list[torch.Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.averaged = [p.detach().clone() for p in self.live]
        groups = [
            {"params": [p for p in self.live if p.dim() > 1], "weight_decay": args.decay},
            {"params": [p for p in self.live if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=args.device == "cuda")
        self.schedule = Schedule(args)

    def say(self, text: str) -> None:
        """Print a line, and keep it."""
        print(text, flush=True)
        with (self.args.out / "log.txt").open("a") as log:
            print(text, file=log)

    def train(self, pool: Pool, check: Batch) -> None:
        """Train until the schedule ends."""
        schedule, marked = self.schedule, time.monotonic()
        while schedule.done() < 1:
            pool.refresh()
            reply, patch = self._step(pool.sample(self.args.batch))
            if schedule.step % MARK == 0:
                shown = f"reply {reply.item():.4f} patch {patch.item():.4f}"  # waits for the device
                pace = MARK * self.args.batch / (time.monotonic() - marked)
                self.say(
                    f"step {schedule.step} {100 * schedule.done():.0f}% {shown} "
                    f"rate {schedule.rate():.1e} {pace:.0f}/s drawn {pool.drawn}"
                )
                marked = time.monotonic()
            if schedule.step % self.args.every == 0:
                self.checkpoint(check)
        self.checkpoint(check)

    def _step(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate()
        batch["image"] = jolt(batch["image"])
        with autocast(self.args.device):
            reply, patch, _ = losses(self.model, self.run, batch)
        torch.autograd.backward(reply + self.schedule.patch_weight() * patch)
        torch.nn.utils.clip_grad_norm_(self.live, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.schedule.step += 1
        step = self.schedule.step
        keep = min(self.args.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averaged, [p.detach() for p in self.live], 1 - keep)
        return reply.detach(), patch.detach()

    @torch.no_grad()
    def checkpoint(self, check: Batch) -> None:
        """Check the averaged weights and save them."""
        kept = [p.clone() for p in self.live]
        torch._foreach_copy_(self.live, self.averaged)
        scores = right_replies(self.model, check)
        state = {key: value.contiguous().cpu() for key, value in self.model.state_dict().items()}
        torch._foreach_copy_(self.live, kept)
        path: Path = self.args.out / "model.safetensors"
        save_file(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)  # a run that is cut off leaves a whole file
        captions = scores.pop("caption")
        right, asked = (sum(pair[i] for pair in scores.values()) for i in (0, 1))
        tasks = " ".join(f"{name} {100 * r / max(a, 1):.2f}" for name, (r, a) in scores.items())
        self.say(
            f"  held out: captions {100 * captions[0] / max(captions[1], 1):.2f}% of "
            f"{captions[1]}, answers {100 * right / max(asked, 1):.2f}% of {asked}; {tasks}"
        )


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are the parallelism
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    model = TinyLlava().to(args.device)
    if args.resume:
        tokenizer = Tokenizer.from_file(str(args.resume / "tokenizer.json"))
        model.load_state_dict(load_file(args.resume / "model.safetensors"))
    else:
        tokenizer = build_tokenizer()
    tokenizer.save(str(args.out / "tokenizer.json"))
    model.freeze_unread()

    check = take(stream_of(tokenizer, args.seed, HELD_OUT, args.workers), args.check, args.device)
    began = time.monotonic()
    pool = Pool(stream_of(tokenizer, args.seed, TRAINING, args.workers), args.pool, args.device)
    while pool.drawn < args.fill:
        pool.refresh(block=True)
    pace = pool.drawn / (time.monotonic() - began)
    trainer = Trainer(model, args)
    trainer.say(f"{pace:.0f} pictures/s drawn; {vars(args)}")
    trainer.train(pool, check)
    pool.close()


if __name__ == "__main__":
    main()
