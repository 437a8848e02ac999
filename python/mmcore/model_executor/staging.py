"""The way of a step's arrays to a GPU: side by side into pinned memory, then one copy.

They arrive in a buffer that stays where it is, so that CUDA graphs may read from it.

    token ids | positions | slots | sample rows | query start | lengths | attention plans | media
    | sources of unknown tokens | block tables

For a given number of rows and sequences all but the last three have fixed places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from mmcore.attention import AttentionMetadata
from mmcore.model_executor.step_inputs import (
    StepInputs,
    all_of,
    attention_metadata,
    fill_unknown,
    media_mask,
)

if TYPE_CHECKING:
    from mmcore import _C
    from mmcore.model_executor.attention_plans import AttentionPlanner

__all__ = ["StagedInputs", "padded_width"]

Array = np.ndarray[Any, Any]

_ALIGNMENT = 64  # bytes; kernels load up to 16 at a time
_BUFFERS = 2  # one is written while the other travels
_WIDTH_STEP = 8  # blocks; the core pads tables to a multiple of it


def padded_width(max_blocks: int) -> int:
    """Give the columns of a block table that holds so many blocks."""
    return -(-max_blocks // _WIDTH_STEP) * _WIDTH_STEP


class StagedInputs:
    """Copies a plan's arrays to a GPU at once, with the plans of its attention.

    Parameters
    ----------
    planner
        Divides the attention over the GPU.
    max_tokens, max_seqs, max_blocks
        Most rows and sequences of a step, and most blocks of a sequence.
    """

    def __init__(
        self,
        device: torch.device,
        planner: AttentionPlanner,
        max_tokens: int,
        max_seqs: int,
        max_blocks: int,
    ) -> None:
        rows = max(max_tokens, max_seqs)
        cells = max_seqs * padded_width(max_blocks)
        largest = _Places(rows, max_seqs, rows, planner.sizes(max_seqs, rows, 0), rows, rows, cells)
        self.device = device
        self._planner = planner
        self._target = _Buffer(torch.empty(largest.num_bytes, dtype=torch.uint8, device=device))
        self._buffers = [_HostBuffer(largest.num_bytes, device) for _ in range(_BUFFERS)]
        self._turn = 0

    def read(self, plan: _C.StepPlan, before: torch.Tensor | None = None) -> StepInputs:
        """Copy a plan to the device, without waiting; valid until the next plan is read."""
        mask = media_mask(plan)
        tables = plan.block_tables
        tokens, sequences, longest = plan.num_tokens, plan.num_sequences, plan.max_query_len
        places = _Places(
            tokens,
            sequences,
            plan.num_samples,
            self._planner.sizes(sequences, tokens, longest),
            0 if mask is None else tokens,
            0 if before is None else tokens,
            tables.size,
        )
        buffer = self._next_buffer()
        self._fill(buffer, places, plan, (sequences, tokens, longest))
        if mask is not None:
            buffer.array(places.media)[:] = mask
        buffer.send(self._target, places.num_bytes)
        at = self._target.tensor
        if before is not None:
            self._fill_unknown(plan, places, before)
        return StepInputs(
            token_ids=at(places.token_ids),
            positions=at(places.positions),
            attention=attention_metadata(
                plan,
                slot_mapping=at(places.slots),
                query_start=at(places.starts),
                seq_lens=at(places.lengths),
                block_tables=at(places.tables).view(tables.shape),
                plans=self._planner.plans(list(map(at, places.plans)), longest),
            ),
            sample_rows=at(places.samples),
            media_rows=None if mask is None else at(places.media),
        )

    def decode_inputs(self, rows: int, tables: torch.Tensor) -> StepInputs:
        """Give the tensors that :meth:`read_decode` fills for a batch of `rows` rows.

        Parameters
        ----------
        tables
            int32 [at least rows, W]: stays where it is; the caller copies the blocks there.
        """
        places, at = self._decode_places(rows, 0), self._target.tensor
        return StepInputs(
            token_ids=at(places.token_ids),
            positions=at(places.positions),
            attention=AttentionMetadata(
                slot_mapping=at(places.slots),
                query_start=at(places.starts),
                seq_lens=at(places.lengths),
                block_tables=tables[:rows],
                num_prefills=0,
                num_prefill_tokens=0,
                num_decode_tokens=rows,
                max_query_len=1,
                max_seq_len=0,  # of any length
                plans=self._planner.plans(list(map(at, places.plans)), 1),
            ),
            sample_rows=at(places.samples),
        )

    def read_decode(
        self, plan: _C.StepPlan, rows: int, before: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Copy a plan with one row a sequence into the places for `rows` rows, without waiting.

        Rows beyond the plan's belong to no sequence and are written to no slot.

        Returns
        -------
        Tensor
            The block tables [sequences, W] on the device.
        """
        n, tables = plan.num_sequences, plan.block_tables
        places = self._decode_places(rows, tables.size, 0 if before is None else n)
        buffer = self._next_buffer()
        self._fill(buffer, places, plan, (rows, rows, 1))
        self._pad(buffer, places, n, plan.num_samples)
        buffer.send(self._target, places.num_bytes)
        if before is not None:
            self._fill_unknown(plan, places, before)
        return self._target.tensor(places.tables).view(tables.shape)

    def clear_decode(self, rows: int) -> None:
        """Fill the places for `rows` rows with a step that has no sequences."""
        places = self._decode_places(rows, 0)
        buffer = self._next_buffer()
        none = np.zeros(1, dtype=np.int32)
        self._planner.write(list(map(buffer.tensor, places.plans)), none, none[:0], (rows, rows, 1))
        buffer.array(places.starts)[0] = 0
        self._pad(buffer, places, 0, 0)
        buffer.send(self._target, places.num_bytes)

    def _decode_places(self, rows: int, cells: int, sources: int = 0) -> _Places:
        return _Places(rows, rows, rows, self._planner.sizes(rows, rows, 1), 0, sources, cells)

    def _fill_unknown(self, plan: _C.StepPlan, places: _Places, before: torch.Tensor) -> None:
        at = self._target.tensor
        token_ids = at(places.token_ids)[: plan.num_tokens]
        fill_unknown(token_ids, at(places.sources), before, all_of(plan.token_sources))

    def _fill(
        self,
        buffer: _HostBuffer,
        places: _Places,
        plan: _C.StepPlan,
        shape: tuple[int, int, int],
    ) -> None:
        starts, lengths = plan.query_start, plan.seq_lens
        for region, array in (
            (places.token_ids, plan.token_ids),
            (places.positions, plan.positions),
            (places.slots, plan.slot_mapping),
            (places.samples, plan.sample_rows),
            (places.starts, starts),
            (places.lengths, lengths),
            (places.tables, plan.block_tables.reshape(-1)),
        ):
            buffer.array(region)[: len(array)] = array
        if places.sources.end > places.sources.start:
            buffer.array(places.sources)[:] = plan.token_sources
        # A sequence that shares a block with another that fills it counts as a prefill.
        settled = plan.num_prefills == 0
        targets = list(map(buffer.tensor, places.plans))
        self._planner.write(targets, starts, lengths, shape, settled=settled)

    @staticmethod
    def _pad(buffer: _HostBuffer, places: _Places, sequences: int, samples: int) -> None:
        buffer.array(places.token_ids)[sequences:] = 0
        buffer.array(places.positions)[sequences:] = 0
        buffer.array(places.slots)[sequences:] = -1
        buffer.array(places.samples)[samples:] = 0
        buffer.array(places.starts)[sequences + 1 :] = sequences
        buffer.array(places.lengths)[sequences:] = 0

    def _next_buffer(self) -> _HostBuffer:
        buffer = self._buffers[self._turn]
        self._turn = (self._turn + 1) % len(self._buffers)
        buffer.wait()
        return buffer


class _Region(NamedTuple):
    """Elements [start, end) of a buffer seen as `dtype`."""

    dtype: torch.dtype
    start: int
    end: int


class _Places:
    """Where each array of a step lies.

    Parameters
    ----------
    tokens, sequences, samples
        Rows, sequences, and rows that are sampled.
    plan_words
        Sizes of the plans.
    media
        Entries of the mask of media.
    sources
        Rows whose tokens may be unknown.
    cells
        Entries of the block tables.
    """

    def __init__(
        self,
        tokens: int,
        sequences: int,
        samples: int,
        plan_words: Sequence[int],
        media: int,
        sources: int,
        cells: int,
    ) -> None:
        self.num_bytes = 0
        self.token_ids = self._next(tokens, torch.int64)
        self.positions = self._next(tokens, torch.int64)
        self.slots = self._next(tokens, torch.int64)
        self.samples = self._next(samples, torch.int64)
        self.starts = self._next(sequences + 1, torch.int32)
        self.lengths = self._next(sequences, torch.int32)
        self.plans = [self._next(words, torch.int32) for words in plan_words]
        self.media = self._next(media, torch.bool)
        self.sources = self._next(sources, torch.int64)
        self.tables = self._next(cells, torch.int32)

    def _next(self, count: int, dtype: torch.dtype) -> _Region:
        size = dtype.itemsize
        start = self.num_bytes // size
        self.num_bytes += -(-count * size // _ALIGNMENT) * _ALIGNMENT
        return _Region(dtype, start, start + count)


class _Buffer:
    """Bytes seen as each of the types that lie in them."""

    def __init__(self, storage: torch.Tensor) -> None:
        self.storage = storage
        self._typed = {t: storage.view(t) for t in (torch.int64, torch.int32, torch.bool)}

    def tensor(self, region: _Region) -> torch.Tensor:
        return self._typed[region.dtype][region.start : region.end]


class _HostBuffer(_Buffer):
    """Memory that a GPU's copy engine reads by itself; not to be written while it does."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        super().__init__(torch.empty(num_bytes, dtype=torch.uint8, pin_memory=on_gpu))
        self._arrays = {t: view.numpy() for t, view in self._typed.items()}
        self._sent: Any = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def array(self, region: _Region) -> Array:
        view: Array = self._arrays[region.dtype][region.start : region.end]
        return view

    def wait(self) -> None:
        if self._sent is not None:
            self._sent.synchronize()

    def send(self, target: _Buffer, num_bytes: int) -> None:
        target.storage[:num_bytes].copy_(self.storage[:num_bytes], non_blocking=True)
        if self._sent is not None:
            self._sent.record()
