"""Prepares media of waiting requests on the host while a GPU works."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mmcore.errors import MmcoreError

if TYPE_CHECKING:
    from mmcore.model_executor.media_mapper import MediaItemLike, MediaMapper

__all__ = ["MediaAhead"]


class Event(Protocol):
    """What a device reaches some time, such as a torch.cuda.Event."""

    def query(self) -> bool:
        """Tell whether it was reached."""
        ...


class Work(Protocol):
    """What the host may do while a device works."""

    def work_until(self, done: Event) -> None:
        """Do some of it, piece by piece, until the device is done."""
        ...

    def __len__(self) -> int: ...


# Requests whose media are prepared and not used yet: more would push each other out of the cache.
_MOST_AHEAD = 64


class MediaAhead:
    """Fills the mapper's cache with what steps to come will ask it for.

    A step's kernels are launched long before they end, and then the host waits for the tokens. It
    may as well prepare the next pictures.

    Parameters
    ----------
    mapper
        Whose cache is filled.

    Attributes
    ----------
    then
        More work for when nothing is left to prepare, such as that of prompts to come.
    """

    def __init__(self, mapper: MediaMapper) -> None:
        self._mapper = mapper
        self._waiting: deque[tuple[int, MediaItemLike]] = deque()
        self._wanted: set[int] = set()
        self._ahead: set[int] = set()
        self.then: Work | None = None

    def add(self, request_id: int, items: Sequence[MediaItemLike]) -> None:
        """Note the media of a new request. What cannot be named cannot be kept, and is left out."""
        named = [(request_id, item) for item in items if item.content_id]
        if named:
            self._waiting += named
            self._wanted.add(request_id)

    def forget(self, request_id: int) -> None:
        """Note that a request's media are being used now, or never will be."""
        self._wanted.discard(request_id)
        self._ahead.discard(request_id)
        if not self._wanted:
            self._waiting.clear()

    def work_until(self, done: Event) -> None:
        """Prepare media, one item after the other, until the device is done."""
        while self._waiting and len(self._ahead) < _MOST_AHEAD and not done.query():
            request_id, item = self._waiting.popleft()
            if request_id not in self._wanted:
                continue
            self._ahead.add(request_id)
            try:
                self._mapper.map([item])
            except MmcoreError:
                continue  # told to its request when its turn comes
        if self.then is not None:
            self.then.work_until(done)

    def __len__(self) -> int:
        return len(self._waiting) + (0 if self.then is None else len(self.then))
