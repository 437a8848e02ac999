"""The training's losses, and how many replies are right to the letter."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .model import TinyLlava
from .pool import Batch
from .questions import TASKS


def losses(
    model: TinyLlava, run: Callable[..., tuple[Tensor, Tensor]], batch: Batch
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss on the replies, that on the patches, and the logits.

    ``run`` is the model, compiled or not.
    """
    logits, features = run(
        batch["image"], batch["opening"].int(), batch["text"].int(), batch["branch"]
    )
    target = batch["target"].long()
    reply = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=-1)
    kind, colour = batch["patches"].long().unbind(1)
    patch = F.cross_entropy(model.patch_kind(features).flatten(0, 1).float(), kind.flatten())
    patch += F.cross_entropy(model.patch_colour(features).flatten(0, 1).float(), colour.flatten())
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
            _, _, logits = losses(model, model, rows)
        target = rows["target"]
        wrong = (logits.argmax(-1) != target) & (target >= 0)
        # A turn is a run of targets: number the runs, then see which of them hold a mistake.
        begins = (target >= 0) & F.pad(target[:, :-1] < 0, (1, 0), value=True)
        turn = begins.flatten().cumsum(0) - 1
        bad = torch.bincount(turn[wrong.flatten()], minlength=int(begins.sum()))
        task = rows["task"][begins].long()
        asked += torch.bincount(task, minlength=len(TASKS)).cpu()
        right += torch.bincount(task[bad == 0], minlength=len(TASKS)).cpu()
    return {name: (int(r), int(a)) for name, r, a in zip(TASKS, right, asked, strict=True)}


def autocast(device: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")
