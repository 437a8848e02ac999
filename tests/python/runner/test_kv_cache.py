"""Copies of blocks over all layers at once. Layer: runner, no model."""

from __future__ import annotations

import pytest
import torch
from gpu.needs_gpu import GPU

from mmcore import ops
from mmcore.model_executor import kv_cache
from mmcore.model_executor.kv_cache import KvCacheSpec, allocate_kv_caches, copy_kv_blocks

# A chain, a block that is read twice, one that is written twice.
PAIRS = torch.tensor([[1, 3], [3, 4], [0, 5], [0, 6], [2, 6]])


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=GPU)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("together", [True, False])
def test_every_layer_gets_every_pair(
    device: str, dtype: torch.dtype, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    copy = ops.copy_blocks
    monkeypatch.setattr(ops, "copy_blocks", lambda *args: (calls.append(1), copy(*args)))
    spec = KvCacheSpec(num_layers=3, block_size=4, num_kv_heads=2, head_size=8, dtype=dtype)
    caches = allocate_kv_caches(spec, 7, torch.device(device))
    for cache in caches:
        cache.copy_(torch.randint(-8, 8, cache.shape).to(dtype))
    expected = [cache.cpu().clone().view(torch.uint8) for cache in caches]
    for cache in expected:
        for source, target in PAIRS.tolist():
            cache[:, target] = cache[:, source].clone()
    if not together:
        caches = [cache.clone() for cache in caches]
    copy_kv_blocks(caches, PAIRS.to(device))
    for cache, want in zip(caches, expected, strict=True):
        assert torch.equal(cache.cpu().view(torch.uint8), want)
    assert len(calls) == (1 if together else 6)


def test_layers_in_another_order_are_not_side_by_side() -> None:
    spec = KvCacheSpec(num_layers=3, block_size=1, num_kv_heads=1, head_size=2, dtype=torch.float32)
    caches = allocate_kv_caches(spec, 2, torch.device("cpu"))
    assert kv_cache._side_by_side(caches) is not None
    assert kv_cache._side_by_side(caches[::-1]) is None
    assert kv_cache._side_by_side([caches[0], caches[2]]) is None
