"""Train the tiny LLaVA from nothing on pictures drawn as they are needed.

    cd examples && python -m train_tiny_llava.train --out runs/tiny --minutes 9

Worker processes draw pictures all the while; the newest ``--pool`` of them stay on the device, and
every step trains on a random handful.  Writes ``tokenizer.json``, ``model.safetensors`` (float32,
averaged over the last steps) and ``log.txt`` into ``--out``; ``--resume`` goes on from such a folder.
"""

from __future__ import annotations

import argparse
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from .model import TinyLlava
from .questions import TASKS
from .samples import HELD_OUT, TRAINING, SampleStream
from .tokenizer import build_tokenizer

Batch = dict[str, Tensor]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
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
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pool", type=int, default=300_000, help="pictures kept on the device")
    parser.add_argument("--fill", type=int, default=20_000, help="pictures before the first step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", type=int, default=1024, help="held-out pictures to check on")
    parser.add_argument("--every", type=int, default=300, help="steps between checks")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


class Pool:
    """The newest pictures and their questions, on the device.

    A thread brings the workers' batches to the device; the trainer takes them in with ``refresh``.
    """

    def __init__(self, stream: Iterator[Batch], size: int, device: str) -> None:
        self.stream, self.size, self.device = stream, size, device
        self.rows: Batch = {}
        self.drawn = 0
        self.stopped = False
        self._arrived: queue.Queue[Batch | Exception] = queue.Queue(64)
        threading.Thread(target=self._fetch, daemon=True).start()

    def _fetch(self) -> None:
        # A stream of its own, or every copy would wait for the steps queued before it.
        own = torch.cuda.Stream() if self.device == "cuda" else None
        try:
            for batch in self.stream:
                if self.stopped:
                    return
                with torch.cuda.stream(own) if own else nullcontext():
                    batch = {key: rows.to(self.device) for key, rows in batch.items()}
                if own:
                    own.synchronize()
                self._arrived.put(batch)
        except Exception as error:  # the trainer would wait for ever otherwise
            self._arrived.put(error)

    def refresh(self, block: bool = False) -> None:
        """Take in what has arrived; with ``block`` wait for one batch at least."""
        while block or not self._arrived.empty():
            block = False
            batch = self._arrived.get()
            if isinstance(batch, Exception):
                raise batch
            self._insert(batch)

    def _insert(self, batch: Batch) -> None:
        count = len(batch["text"])
        if not self.rows:
            self.size -= self.size % count
            self.rows = {
                key: torch.empty((self.size, *rows.shape[1:]), dtype=rows.dtype, device=self.device)
                for key, rows in batch.items()
            }
        at = self.drawn % self.size
        for key, rows in batch.items():
            self.rows[key][at : at + count] = rows
            if rows.is_cuda:
                rows.record_stream(torch.cuda.current_stream())
        self.drawn += count

    def sample(self, count: int) -> Batch:
        """Return ``count`` random rows."""
        index = torch.randint(min(self.drawn, self.size), (count,), device=self.device)
        return {key: rows[index] for key, rows in self.rows.items()}


def jolt(images: Tensor) -> Tensor:
    """Shift, scale and roughen pictures a little, so that none comes twice.

    The changes are too small to alter any answer.  Returns float pictures, 0 to 255.
    """
    count, device = len(images), images.device
    x = images.permute(0, 3, 1, 2).float()
    scale = torch.empty(count, device=device).uniform_(0.97, 1.03)
    transform = torch.zeros(count, 2, 3, device=device)
    transform[:, 0, 0], transform[:, 1, 1] = scale, scale
    transform[:, :, 2].uniform_(-0.03, 0.03)  # of half a side
    grid = F.affine_grid(transform, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    x += torch.randn_like(x) * torch.empty(count, 1, 1, 1, device=device).uniform_(0, 5)
    x = x.clamp(0, 255).permute(0, 2, 3, 1)
    keep = torch.rand(count, 1, 1, 1, device=device) < 0.3
    return torch.where(keep, images.float(), x)


def stream_of(tokenizer: Tokenizer, args: argparse.Namespace, name: str, batch: int) -> Iterator[Batch]:
    """Return stacked samples from worker processes, without end."""
    dataset = SampleStream(tokenizer, args.seed, name, batch)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=args.workers,
        prefetch_factor=4 if args.workers else None,
    )
    return iter(loader)


def held_out(tokenizer: Tokenizer, args: argparse.Namespace) -> Batch:
    """Return the pictures that progress is checked on."""
    stream = stream_of(tokenizer, args, HELD_OUT, 64)
    parts = [next(stream) for _ in range(-(-args.check // 64))]
    return {key: torch.cat([p[key] for p in parts]).to(args.device) for key in parts[0]}


def losses(model: torch.nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss on the replies, that on the patches, and the logits."""
    logits, features = model(batch["image"], batch["opening"].int(), batch["text"].int(), batch["branch"])
    target = batch["target"].long()
    reply = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=-1)
    inner = getattr(model, "_orig_mod", model)
    patch = sum(
        F.cross_entropy(head(features).flatten(0, 1).float(), batch["patches"][:, i].flatten().long())
        for i, head in enumerate((inner.patch_kind, inner.patch_colour))
    )
    return reply, patch, logits


@torch.no_grad()
def right_replies(model: TinyLlava, batch: Batch, part: int = 256) -> dict[str, tuple[int, int]]:
    """Return (right, asked) of every task.

    A reply counts as right if every token of it is the likeliest after the true ones before it,
    which is to say that greedy decoding writes exactly this reply.
    """
    right, asked = torch.zeros(len(TASKS)), torch.zeros(len(TASKS))
    for start in range(0, len(batch["text"]), part):
        rows = {key: value[start : start + part] for key, value in batch.items()}
        with autocast(rows["text"].device.type):
            _, _, logits = losses(model, rows)
        target = rows["target"]
        wrong = (logits.argmax(-1) != target) & (target >= 0)
        # A turn is a run of targets: number the runs, then see which of them hold a mistake.
        begins = (target >= 0) & F.pad(target[:, :-1] < 0, (1, 0), value=True)
        turn = begins.flatten().cumsum(0) - 1
        turns = int(begins.sum())
        bad = torch.zeros(turns, device=target.device)
        bad.index_add_(0, turn[wrong.flatten()], torch.ones_like(turn[wrong.flatten()], dtype=bad.dtype))
        task = rows["task"][begins].long()
        asked += torch.bincount(task, minlength=len(TASKS)).cpu()
        right += torch.bincount(task[bad == 0], minlength=len(TASKS)).cpu()
    return {name: (int(r), int(a)) for name, r, a in zip(TASKS, right, asked)}


def autocast(device: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def parameter_groups(model: TinyLlava, decay: float) -> list[dict[str, object]]:
    """Decay the matrices only."""
    used = [p for n, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for p in used if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in used if p.dim() <= 1], "weight_decay": 0.0},
    ]


class Schedule:
    """How far the run is, by time or by steps, and the learning rate that follows."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.step, self.start = args, 0, time.monotonic()

    def done(self) -> float:
        """Return the share of the run that is over."""
        if self.args.steps:
            return self.step / self.args.steps
        return (time.monotonic() - self.start) / (60 * self.args.minutes)

    def rate(self) -> float:
        rise = min(1.0, (self.step + 1) / self.args.warmup)
        return self.args.rate * rise * max(0.0, 0.5 * (1 + math.cos(math.pi * min(1.0, self.done()))))

    def patch_weight(self) -> float:
        """Return the weight of the patch loss, which only gives the tower a start."""
        return self.args.patch_loss * max(0.05, 1 - 2.5 * self.done())


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / "log.txt").open("a")

    def say(text: str) -> None:
        print(text, flush=True)
        print(text, file=log, flush=True)

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
    # LLaVA does not read the tower's last layer; it stays as it was drawn.
    model.vision_tower.vision_model.encoder.layers[-1].requires_grad_(False)
    model.vision_tower.vision_model.post_layernorm.requires_grad_(False)

    check = held_out(tokenizer, args)
    pool = Pool(stream_of(tokenizer, args, TRAINING, 64), args.pool, args.device)
    began = time.monotonic()
    while pool.drawn < args.fill:
        pool.refresh(block=True)
    say(f"{pool.drawn / (time.monotonic() - began):.0f} pictures/s drawn; {args}")
    train(model, pool, check, args, say)
    pool.stopped = True
    log.close()


def train(model: TinyLlava, pool: Pool, check: Batch, args: argparse.Namespace, say) -> None:  # type: ignore[no-untyped-def]
    step_model = torch.compile(model) if args.compile else model
    fused = args.device == "cuda"
    optimiser = torch.optim.AdamW(parameter_groups(model, args.decay), betas=(0.9, 0.98), fused=fused)
    live = [p for p in model.parameters() if p.requires_grad]
    averaged = [p.detach().clone() for p in live]
    schedule = Schedule(args)
    marked, since = time.monotonic(), 0
    while schedule.done() < 1:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate()
        pool.refresh()
        batch = pool.sample(args.batch)
        batch["image"] = jolt(batch["image"])
        with autocast(args.device):
            reply, patch, _ = losses(step_model, batch)
        (reply + schedule.patch_weight() * patch).backward()
        torch.nn.utils.clip_grad_norm_(live, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step += 1
        keep = min(args.average, (1 + schedule.step) / (10 + schedule.step))
        torch._foreach_lerp_(averaged, [p.detach() for p in live], 1 - keep)
        if schedule.step % 50 == 0:
            now = reply.item(), patch.item()  # waits for the device
            pace = 50 * args.batch / (time.monotonic() - marked)
            say(
                f"step {schedule.step} {100 * schedule.done():.0f}% reply {now[0]:.4f} "
                f"patch {now[1]:.4f} rate {schedule.rate():.1e} {pace:.0f}/s drawn {pool.drawn}"
            )
            marked = time.monotonic()
        if schedule.step % args.every == 0:
            checkpoint(model, live, averaged, check, args.out, say)
            marked = time.monotonic()
    checkpoint(model, live, averaged, check, args.out, say)


def checkpoint(model: TinyLlava, live, averaged, check: Batch, out: Path, say) -> None:  # type: ignore[no-untyped-def]
    """Check the averaged weights and save them."""
    kept = [p.detach().clone() for p in live]
    with torch.no_grad():
        for p, mean in zip(live, averaged):
            p.copy_(mean)
        scores = right_replies(model, check)
        state = {key: value.contiguous().cpu() for key, value in model.state_dict().items()}
        for p, value in zip(live, kept):
            p.copy_(value)
    save_file(state, out / "model.safetensors.part")
    (out / "model.safetensors.part").rename(out / "model.safetensors")
    shown = " ".join(f"{n} {100 * r / max(a, 1):.2f}" for n, (r, a) in scores.items())
    right, asked = (sum(pair[i] for n, pair in scores.items() if n != "caption") for i in (0, 1))
    say(f"  held out: answers {100 * right / max(asked, 1):.2f}% of {asked}; {shown}")


if __name__ == "__main__":
    sys.exit(main())
