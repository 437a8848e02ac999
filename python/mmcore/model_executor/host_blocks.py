"""KV blocks in host memory: what the core evicts from the device, until it needs it again.

A host block lies in one piece, all layers together::

    device   one tensor a layer   [2, blocks, block_size, heads, head_size]
    staging  on the device        [blocks of one batch, layers, 2, block_size, heads, head_size]
    host     slabs, pinned        [blocks of the slab, layers, 2, block_size, heads, head_size]

so that a transfer is one copy over the bus for each block, and one kernel for each layer of a
batch. Everything goes through the current stream: saves come before whatever the step writes, loads
before whatever it reads, and the host waits for none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from mmcore.transfer import to_device

if TYPE_CHECKING:
    from mmcore.model_executor.kv_cache import KvCacheSpec

__all__ = ["HostBlocks"]

# Pinned memory is rounded up to a power of two a piece: slabs keep what that costs small.
_SLAB_BYTES = 1 << 30
# Device memory that a batch of transfers takes for a moment.
STAGING_BYTES = 64 << 20

_Transfers = Sequence[tuple[int, int]]


class HostBlocks:
    """Host memory for evicted blocks of one KV cache.

    Parameters
    ----------
    spec
        The shape of the cache.
    kv_caches
        Its tensors, one a layer.
    num_blocks
        How many blocks to keep.
    """

    def __init__(self, spec: KvCacheSpec, kv_caches: list[torch.Tensor], num_blocks: int) -> None:
        self.num_blocks = num_blocks
        # As bytes: torch cannot index all that a cache may hold.
        bytewise = spec.dtype.itemsize == 1
        self._kv_caches = [c.view(torch.uint8) for c in kv_caches] if bytewise else kv_caches
        self._device = kv_caches[0].device
        self._shape = (spec.num_layers, 2, spec.block_size, spec.num_kv_heads, spec.head_size)
        self._batch = max(1, STAGING_BYTES // spec.bytes_per_block)
        self._slab_blocks = max(1, _SLAB_BYTES // spec.bytes_per_block)
        self._slabs = [
            torch.empty(
                (min(self._slab_blocks, num_blocks - first), *self._shape),
                dtype=self._kv_caches[0].dtype,
                pin_memory=self._device.type == "cuda",
            )
            for first in range(0, num_blocks, self._slab_blocks)
        ]

    def save(self, transfers: _Transfers) -> None:
        """Copy blocks from the device; pairs of device block and host block."""
        for batch in self._batches(transfers):
            blocks = self._index([block for block, _ in batch])
            staging = self._staging(len(batch))
            for layer, cache in enumerate(self._kv_caches):
                staging[:, layer] = cache.index_select(1, blocks).transpose(0, 1)
            for row, (_, host) in enumerate(batch):
                self._block(host).copy_(staging[row], non_blocking=True)

    def load(self, transfers: _Transfers) -> None:
        """Copy blocks to the device; pairs of device block and host block."""
        for batch in self._batches(transfers):
            blocks = self._index([block for block, _ in batch])
            staging = self._staging(len(batch))
            for row, (_, host) in enumerate(batch):
                staging[row].copy_(self._block(host), non_blocking=True)
            for layer, cache in enumerate(self._kv_caches):
                cache.index_copy_(1, blocks, staging[:, layer].transpose(0, 1))

    def _batches(self, transfers: _Transfers) -> Iterator[_Transfers]:
        for first in range(0, len(transfers), self._batch):
            yield transfers[first : first + self._batch]

    def _index(self, blocks: list[int]) -> torch.Tensor:
        return to_device(torch.tensor(blocks, dtype=torch.int64), self._device)

    def _staging(self, num_blocks: int) -> torch.Tensor:
        dtype = self._kv_caches[0].dtype
        return torch.empty((num_blocks, *self._shape), dtype=dtype, device=self._device)

    def _block(self, host: int) -> torch.Tensor:
        return self._slabs[host // self._slab_blocks][host % self._slab_blocks]
