"""Preprocessed media, kept so that an item that comes again is not prepared again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcore.multimodal import MultiModalInputs

__all__ = ["MappedInputCache", "nbytes_of"]


def nbytes_of(value: Any) -> int:
    """Count the bytes of the tensors in a nested value."""
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    if isinstance(value, (list, tuple)):
        return sum(nbytes_of(child) for child in value)
    return 8


class MappedInputCache:
    """What the input mappers gave, by content id, with the least recently used dropped first.

    Parameters
    ----------
    max_bytes
        Memory for the tensors; 0 keeps nothing. An entry larger than this is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, tuple[MultiModalInputs, int]] = OrderedDict()
        self.num_bytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> MultiModalInputs | None:
        """Give an entry and count it as used now."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Hashable, inputs: MultiModalInputs) -> None:
        """Keep an entry, dropping others until there is room."""
        size = sum(nbytes_of(value) for value in inputs.values())
        if size > self._max_bytes:
            return
        old = self._entries.pop(key, None)
        if old is not None:
            self.num_bytes -= old[1]
        while self.num_bytes + size > self._max_bytes:
            self.num_bytes -= self._entries.popitem(last=False)[1][1]
        self._entries[key] = (inputs, size)
        self.num_bytes += size

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()
        self.num_bytes = 0
