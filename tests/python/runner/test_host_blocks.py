"""KV blocks in host memory: every byte comes back to the right place. Layer: unit."""

from __future__ import annotations

import pytest
import torch

from mmcore.model_executor import host_blocks
from mmcore.model_executor.kv_cache import KvCacheSpec, allocate_kv_caches


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_host_blocks_hold_every_layer(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    spec = KvCacheSpec(3, 4, 2, 8, dtype)
    monkeypatch.setattr(host_blocks, "STAGING_BYTES", 2 * spec.bytes_per_block)
    monkeypatch.setattr(host_blocks, "_SLAB_BYTES", 3 * spec.bytes_per_block)
    caches = allocate_kv_caches(spec, 9, torch.device("cpu"))
    for cache in caches:
        cache.copy_(torch.randn(cache.shape))
    original = [cache.float().clone() for cache in caches]
    host = host_blocks.HostBlocks(spec, caches, 7)
    saves = [(1, 6), (4, 0), (8, 3), (2, 2), (3, 5)]  # batches of two, slabs of three
    host.save(saves)
    for cache in caches:
        cache.zero_()
    host.load([(9 - block, kept) for block, kept in saves])
    for cache, was in zip(caches, original, strict=True):
        for block, _ in saves:
            assert torch.equal(cache[:, 9 - block].float(), was[:, block])
        untouched = set(range(9)) - {9 - block for block, _ in saves}
        assert not cache[:, sorted(untouched)].float().any()
