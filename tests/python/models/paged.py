"""Runs a model over a paged KV cache, in whatever pieces a test asks for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from mmcore.attention import AttentionMetadata

BLOCK_SIZE = 4


def run_whole(model: Any, ids: Tensor, **inputs: Any) -> Tensor:
    """Gives the logits of a prompt that runs whole, without a cache."""
    config = model.config.get_text_config()
    hidden = model(
        ids,
        torch.arange(len(ids)),
        [torch.empty(0)] * config.num_hidden_layers,
        AttentionMetadata.without_cache([len(ids)]),
        **inputs,
    )
    logits: Tensor = model.compute_logits(hidden, None)
    return logits


class PagedRun:
    """A cache, and sequences that grow in it. Blocks are handed out in a random order."""

    def __init__(
        self, model: Any, num_blocks: int = 64, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        config = model.config.get_text_config()
        heads = config.num_key_value_heads
        head_dim = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        shape = (2, num_blocks, BLOCK_SIZE, heads, head_dim)
        # A key that was never written must not be read.
        self.caches = [
            torch.full(shape, float("nan"), dtype=dtype) for _ in range(config.num_hidden_layers)
        ]
        generator = torch.Generator().manual_seed(0)
        self._free = torch.randperm(num_blocks - 1, generator=generator).add(1).tolist()
        self._blocks: dict[str, list[int]] = {}
        self._done: dict[str, int] = {}

    def step(self, pieces: Sequence[tuple[str, Tensor]], **inputs: Any) -> list[Tensor]:
        """Runs the next tokens of some sequences; gives each sequence's logits."""
        slots: list[int] = []
        positions: list[int] = []
        lengths = [len(ids) for _, ids in pieces]
        for name, ids in pieces:
            blocks = self._blocks.setdefault(name, [])
            for position in range(self._done.get(name, 0), self._done.get(name, 0) + len(ids)):
                if position // BLOCK_SIZE == len(blocks):
                    blocks.append(self._free.pop())
                slots.append(blocks[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE)
                positions.append(position)
            self._done[name] = self._done.get(name, 0) + len(ids)
        seq_lens = [self._done[name] for name, _ in pieces]
        width = max(len(self._blocks[name]) for name, _ in pieces)
        tables = torch.zeros(len(pieces), width, dtype=torch.int32)
        for row, (name, _) in enumerate(pieces):
            tables[row, : len(self._blocks[name])] = torch.tensor(self._blocks[name])
        metadata = AttentionMetadata(
            slot_mapping=torch.tensor(slots),
            query_start=torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
            seq_lens=torch.tensor(seq_lens, dtype=torch.int32),
            block_tables=tables,
            num_prefills=sum(n > 1 for n in lengths),
            num_prefill_tokens=sum(n for n in lengths if n > 1),
            num_decode_tokens=sum(n == 1 for n in lengths),
            max_query_len=max(lengths),
            max_seq_len=max(seq_lens),
        )
        ids = torch.cat([ids for _, ids in pieces])
        hidden = self.model(ids, torch.tensor(positions), self.caches, metadata, **inputs)
        return list(self.model.compute_logits(hidden, None).split(lengths))
