"""The encoder side of a runner, with an encoder that doubles its pixels. Layer: unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from mmcore.errors import InternalError, MediaError, MmcoreError
from mmcore.model_executor.encoder_runner import EncodeJob, EncoderRunner
from mmcore.multimodal import MultiModalInputs

HIDDEN = 4
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Item:
    data: Any
    modality: str = "image"
    content_id: bytes = b""
    processor_kwargs: Any = None


class Mapper:
    """Gives one row of pixels an entry of the data; refuses None."""

    def map(self, items: list[Item]) -> MultiModalInputs:
        [item] = items
        if item.data is None:
            raise MediaError("nothing to see")
        rows = torch.tensor(item.data, dtype=torch.float32)
        return MultiModalInputs({"pixels": rows[:, None].repeat(1, HIDDEN)})


class Model(torch.nn.Module):
    """Gives its pixels doubled, a tensor an item, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def embed_multimodal(self, pixels: Any) -> list[torch.Tensor]:
        self.batches.append(len(pixels))
        if any(bool((p == 13).any()) for p in pixels):
            raise RuntimeError("unlucky")
        return [2 * p for p in pixels]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def encoder(model: Model) -> EncoderRunner:
    mapper: Any = Mapper()
    return EncoderRunner(model, mapper, CPU)


def job(request: int, slot: int, data: Any, rows: int | None = None) -> EncodeJob:
    return EncodeJob(request, slot, len(data or ()) if rows is None else rows, Item(data))


def values(encoder: EncoderRunner, slot: int, start: int = 0, end: int = 99) -> list[float]:
    return encoder.rows(slot, start, end)[:, 0].tolist()


def test_items_of_one_shape_run_together(encoder: EncoderRunner, model: Model) -> None:
    jobs = [job(1, 10, [1, 2]), job(2, 11, [3, 4]), job(2, 12, [5, 6, 7]), job(3, 13, [8, 9])]
    assert encoder.encode(jobs) == []
    assert sorted(model.batches) == [1, 3]
    assert [values(encoder, slot) for slot in (10, 11, 12, 13)] == [
        [2, 4], [6, 8], [10, 12, 14], [16, 18],
    ]  # fmt: skip
    assert values(encoder, 12, 1, 2) == [12]
    assert encoder.num_rows == 9


def test_dropping_an_output_of_a_group_frees_its_memory(encoder: EncoderRunner) -> None:
    encoder.encode([job(1, 10, [1, 2]), job(2, 11, [3, 4])])
    for slot in (10, 11):
        rows = encoder.rows(slot, 0, 2)
        assert rows.untyped_storage().nbytes() == rows.nbytes
    encoder.drop([10, 99])
    assert len(encoder) == 1
    with pytest.raises(KeyError):
        encoder.rows(10, 0, 1)


def test_the_item_at_fault_is_found_in_its_group(encoder: EncoderRunner) -> None:
    failures = encoder.encode([job(1, 10, [1]), job(2, 11, [13]), job(3, 12, [3])])
    [(request, error)] = failures
    assert request == 2
    assert isinstance(error, InternalError)
    assert error.code == "encoder_error"
    assert isinstance(error.__cause__, RuntimeError)
    assert values(encoder, 10) == [2]
    assert values(encoder, 12) == [6]


def test_a_refused_item_does_not_stop_the_others(encoder: EncoderRunner) -> None:
    [(request, error)] = encoder.encode([job(1, 10, None), job(2, 11, [5])])
    assert request == 1
    assert isinstance(error, MediaError)
    assert values(encoder, 11) == [10]


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_do_not_fit_the_placeholders(encoder: EncoderRunner, rows: int) -> None:
    [(_, error)] = encoder.encode([job(1, 10, [1, 2], rows)])
    assert isinstance(error, MmcoreError)
    assert error.code == "mm_mismatch"
    assert f"take {rows} rows" in str(error)
    assert len(encoder) == 0


def test_one_item_made_of_several(encoder: EncoderRunner, model: Model) -> None:
    model.embed_multimodal = lambda pixels: [pixels[0, :1], pixels[0, 1:]]  # type: ignore
    assert encoder.encode([job(1, 10, [1, 2, 3])]) == []
    assert values(encoder, 10) == [1, 2, 3]


def test_a_stacked_output_is_taken_apart(encoder: EncoderRunner, model: Model) -> None:
    model.embed_multimodal = lambda pixels: pixels  # type: ignore[method-assign, assignment]
    assert encoder.encode([job(1, 10, [1, 2]), job(2, 11, [3, 4])]) == []
    assert values(encoder, 11) == [3, 4]


def test_too_few_outputs_are_found(encoder: EncoderRunner, model: Model) -> None:
    model.embed_multimodal = lambda pixels: []  # type: ignore[method-assign]
    failures = encoder.encode([job(1, 10, [1]), job(2, 11, [2])])
    assert [request for request, _ in failures] == [1, 2]
