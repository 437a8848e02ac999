"""The memory of the paged KV cache: its size and its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from mmcore.config import CacheConfig, ModelConfig

__all__ = ["KvCacheSpec", "allocate_kv_caches", "copy_kv_blocks", "empty_kv_caches"]


@dataclass(frozen=True, slots=True)
class KvCacheSpec:
    """Shape of the cache: one tensor [2, blocks, block_size, num_kv_heads, head_size] a layer.

    Index 0 of the first axis holds the keys, index 1 the values.
    """

    num_layers: int
    block_size: int
    num_kv_heads: int
    head_size: int
    dtype: torch.dtype

    @staticmethod
    def of(model_config: ModelConfig, cache_config: CacheConfig, dtype: torch.dtype) -> KvCacheSpec:
        """Read the shape from the configuration; `dtype` is the model's own."""
        import torch

        if cache_config.cache_dtype != "auto":
            fp8 = cache_config.cache_dtype in ("fp8", "fp8_e4m3")
            dtype = torch.float8_e4m3fn if fp8 else getattr(torch, cache_config.cache_dtype)
        return KvCacheSpec(
            num_layers=model_config.get_num_layers(),
            block_size=cache_config.block_size,
            num_kv_heads=model_config.get_num_kv_heads(),
            head_size=model_config.get_head_size(),
            dtype=dtype,
        )

    @property
    def bytes_per_block(self) -> int:
        """Exact bytes of one block over all layers, keys and values."""
        per_token = self.num_kv_heads * self.head_size * self.dtype.itemsize
        return 2 * self.num_layers * self.block_size * per_token


def allocate_kv_caches(
    spec: KvCacheSpec, num_blocks: int, device: torch.device
) -> list[torch.Tensor]:
    """Allocate the cache, zeroed: a block that was never written must not hold a NaN.

    The layers lie side by side, so that :func:`copy_kv_blocks` reaches all of them at once.
    """
    import torch

    shape = (2, num_blocks, spec.block_size, spec.num_kv_heads, spec.head_size)
    whole = torch.zeros((spec.num_layers, *shape), dtype=spec.dtype, device=device)
    return list(whole.unbind())


def empty_kv_caches(spec: KvCacheSpec, device: torch.device) -> list[torch.Tensor]:
    """Give a tensor without elements for each layer: attention then runs without a cache."""
    import torch

    return [torch.empty(0, dtype=spec.dtype, device=device) for _ in range(spec.num_layers)]


def copy_kv_blocks(kv_caches: list[torch.Tensor], pairs: torch.Tensor) -> None:
    """Copy whole blocks in every layer; `pairs` is int64 [n, 2] of source and destination."""
    import torch

    from mmcore import ops

    whole = _side_by_side(kv_caches)
    if whole is None:
        for cache in kv_caches:
            ops.copy_blocks(cache[0], pairs)
            ops.copy_blocks(cache[1], pairs)
        return
    blocks = kv_caches[0].shape[1]
    firsts = torch.arange(0, whole.shape[0], blocks, dtype=torch.int64, device=pairs.device)
    # A pair may read what an earlier one wrote: each layer has all pairs, in their order.
    ops.copy_blocks(whole, (firsts.view(-1, 1, 1) + pairs).view(-1, 2))


def _side_by_side(kv_caches: list[torch.Tensor]) -> torch.Tensor | None:
    """See layers that lie in one piece, one behind the other, as blocks of keys and of values."""
    first = kv_caches[0]
    memory = first.untyped_storage().data_ptr()
    for layer, cache in enumerate(kv_caches):
        if (
            cache.untyped_storage().data_ptr() != memory
            or cache.storage_offset() != first.storage_offset() + layer * first.numel()
            or cache.shape != first.shape
            or not cache.is_contiguous()
        ):
            return None
    blocks = len(kv_caches) * first.shape[0] * first.shape[1]
    shape = (blocks, *first.shape[2:])
    return first.as_strided(shape, first[0].stride(), first.storage_offset())
