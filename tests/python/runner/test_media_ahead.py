"""Preparing media while a device works. Layer: unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from mmcore.errors import MediaError
from mmcore.model_executor.media_ahead import MediaAhead


@dataclass(frozen=True)
class Item:
    content_id: bytes
    data: Any = None
    modality: str = "image"
    processor_kwargs: Any = None


@dataclass
class Mapper:
    seen: list[bytes] = field(default_factory=list)

    def map(self, items: list[Item]) -> None:
        [item] = items
        self.seen.append(item.content_id)
        if item.content_id == b"bad":
            raise MediaError("nothing to see")


@dataclass
class Countdown:
    """A device that is done after some questions."""

    left: int

    def query(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture
def mapper() -> Mapper:
    return Mapper()


@pytest.fixture
def ahead(mapper: Mapper) -> MediaAhead:
    fake: Any = mapper
    return MediaAhead(fake)


def test_it_works_as_long_as_the_device(ahead: MediaAhead, mapper: Mapper) -> None:
    ahead.add(1, [Item(b"a"), Item(b"bad")])
    ahead.add(2, [Item(b"b"), Item(b"c")])
    ahead.work_until(Countdown(3))
    assert mapper.seen == [b"a", b"bad", b"b"]
    ahead.work_until(Countdown(0))
    assert len(ahead) == 1
    ahead.work_until(Countdown(9))
    assert mapper.seen[3:] == [b"c"]


def test_media_in_use_and_of_requests_that_are_gone_are_left_out(
    ahead: MediaAhead, mapper: Mapper
) -> None:
    ahead.add(1, [Item(b"a")])
    ahead.add(2, [Item(b"b")])
    ahead.forget(1)
    ahead.work_until(Countdown(9))
    assert mapper.seen == [b"b"]
    ahead.add(3, [Item(b"c")])
    ahead.forget(3)
    ahead.forget(2)
    assert len(ahead) == 0


def test_media_without_a_name_are_left_out(ahead: MediaAhead) -> None:
    ahead.add(1, [Item(b"")])
    assert len(ahead) == 0


def test_it_stops_before_the_cache_overflows(ahead: MediaAhead, mapper: Mapper) -> None:
    for i in range(100):
        ahead.add(i, [Item(bytes([i + 1]))])
    ahead.work_until(Countdown(1000))
    assert len(mapper.seen) == 64
    ahead.forget(0)
    ahead.work_until(Countdown(1000))
    assert len(mapper.seen) == 65
