"""Fresh training pictures: drawn by worker processes, kept on the device, roughened when used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from .samples import SampleStream

Batch = dict[str, Tensor]
STACK = 64  # samples that travel together


def stream_of(tokenizer: Tokenizer, seed: int, name: str, workers: int) -> Iterator[Batch]:
    """Return stacks of samples from worker processes, without end."""
    loader = torch.utils.data.DataLoader(
        SampleStream(tokenizer, seed, name, STACK),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    return iter(loader)


def take(stream: Iterator[Batch], count: int, device: str) -> Batch:
    """Return at least ``count`` samples as one batch on the device."""
    parts = [next(stream) for _ in range(-(-count // STACK))]
    return {key: torch.cat([part[key] for part in parts]).to(device) for key in parts[0]}


class Pool:
    """The newest pictures and their questions, on the device.

    A thread brings the workers' batches to the device; the trainer takes them in with ``refresh``.
    """

    def __init__(self, stream: Iterator[Batch], size: int, device: str) -> None:
        self.stream, self.size, self.device = stream, size, device
        self.rows: Batch = {}
        self.drawn = 0
        self._stopped = False
        self._arrived: queue.Queue[Batch | Exception] = queue.Queue(16)
        self._thread = threading.Thread(target=self._fetch, daemon=True)
        self._thread.start()

    def _fetch(self) -> None:
        # A stream of its own, or every copy would wait for the steps queued before it.
        own = torch.cuda.Stream() if self.device == "cuda" else None
        try:
            for batch in self.stream:
                with torch.cuda.stream(own) if own else nullcontext():
                    batch = {key: rows.to(self.device) for key, rows in batch.items()}
                if own:
                    own.synchronize()
                self._arrived.put(batch)
                if self._stopped:
                    return
        except Exception as error:  # the trainer would wait for ever otherwise
            self._arrived.put(error)

    def close(self) -> None:
        """Stop drawing."""
        self._stopped = True
        while self._thread.is_alive():  # it may wait for room in the queue
            with suppress(queue.Empty):
                self._arrived.get(timeout=0.1)

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
