"""The cache of preprocessed media. Layer: unit."""

from __future__ import annotations

import torch

from mmcore.model_executor.mapped_input_cache import MappedInputCache, nbytes_of
from mmcore.multimodal import MultiModalInputs


def entry(num_bytes: int) -> MultiModalInputs:
    return MultiModalInputs({"pixel_values": torch.zeros(num_bytes, dtype=torch.uint8)})


def test_the_least_recently_used_entries_make_room() -> None:
    cache = MappedInputCache(100)
    for key in "abc":
        cache.put(key, entry(30))
    assert cache.get("a") is not None
    cache.put("d", entry(30))
    assert cache.get("b") is None
    assert all(cache.get(key) is not None for key in "acd")
    assert cache.num_bytes == 90
    assert (cache.hits, cache.misses) == (4, 1)


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = MappedInputCache(100)
    cache.put("small", entry(50))
    cache.put("large", entry(101))
    assert cache.get("large") is None
    assert cache.get("small") is not None


def test_replacing_an_entry_counts_it_once() -> None:
    cache = MappedInputCache(100)
    cache.put("a", entry(60))
    cache.put("a", entry(70))
    assert (len(cache), cache.num_bytes) == (1, 70)
    cache.clear()
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_nested_tensors_are_counted() -> None:
    tensors = [torch.zeros(3), [torch.zeros(2, 2), torch.zeros(1)]]
    assert nbytes_of(tensors) == 4 * (3 + 4 + 1)
