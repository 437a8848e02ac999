"""How items are divided over graphs of an encoder, and what a graph takes. Layer: unit.

Graphs themselves need a GPU (tests/python/gpu); here "replaying" is calling again into the same
outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmcore.model_executor import encoder_graphs
from mmcore.model_executor.encoder_graphs import EncoderGraphs, divide, item_counts
from mmcore.model_executor.encoder_runner import EncodeJob, EncoderRunner
from mmcore.model_executor.models.interfaces import FixedMediaInput, fixed_media_input
from mmcore.model_executor.models.llava import LlavaForConditionalGeneration
from mmcore.multimodal import MultiModalInputs
from mmcore.multimodal.byte_pixels import BytePixels

CPU = torch.device("cpu")
SHAPE = (1, 3, 2, 2)


def test_counts_never_exceed_what_a_step_encodes() -> None:
    assert item_counts(100) == [1, 2, 4, 8, 16]
    assert item_counts(14) == [1, 2, 4, 8]
    assert item_counts(0) == [1]


@pytest.mark.parametrize("most", [1, 2, 5, 16])
def test_graphs_are_filled_by_three_quarters(most: int) -> None:
    counts = item_counts(most)
    for items in range(1, 70):
        pieces = divide(items, counts)
        assert sum(taken for _, taken in pieces) == items
        assert all(count in counts and 4 * taken >= 3 * count for count, taken in pieces)
    assert divide(0, counts) == []


def test_a_batch_takes_few_graphs() -> None:
    counts = item_counts(16)
    assert divide(16, counts) == [(16, 16)]
    assert divide(3, counts) == [(4, 3)]
    assert divide(9, counts) == [(8, 8), (1, 1)]
    assert divide(33, counts) == [(16, 16), (16, 16), (1, 1)]


class Model(torch.nn.Module):
    """Gives 3 rows an item, which are its pixels' sums; counts the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def embed_multimodal(self, pixel_values: Any) -> list[torch.Tensor]:
        self.calls.append(len(pixel_values))
        sums = pixel_values.flatten(1).sum(1)
        return list(sums[:, None, None].repeat(1, 3, 4).unbind(0))


class CallingAgain:
    """Stands for a graph: a replay writes where the captured call wrote."""

    def __init__(self, device: torch.device, stream: Any = None) -> None:
        pass

    def capture(self, work: Callable[[], list[torch.Tensor]]) -> Any:
        outputs = work()

        def replay() -> None:
            for target, new in zip(outputs, work(), strict=True):
                target.copy_(new)

        return SimpleNamespace(replay=replay), outputs


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def graphs(model: Model, monkeypatch: pytest.MonkeyPatch) -> EncoderGraphs:
    monkeypatch.setattr(encoder_graphs, "GraphCapture", CallingAgain)
    return EncoderGraphs(model, FixedMediaInput("pixel_values", SHAPE), item_counts(4), CPU)


def pixels(items: int) -> BytePixels:
    data = torch.randint(0, 256, (items, *SHAPE), dtype=torch.uint8)
    return BytePixels(data, torch.rand(3, 256))


def test_each_item_gets_its_own_rows(graphs: EncoderGraphs) -> None:
    for items in (1, 2, 3, 4, 7):
        batch = pixels(items)
        floats = batch.floats()
        expected = Model().embed_multimodal(floats)
        for value in (batch, floats):
            outputs = graphs.run({"pixel_values": value})
            assert outputs is not None
            graphs.run({"pixel_values": pixels(items)})  # what was given stays as it is
            assert len(outputs) == items
            for output, rows in zip(outputs, expected, strict=True):
                assert torch.allclose(output, rows)
                assert output.untyped_storage().nbytes() == output.nbytes
    assert len(graphs) == 3


@pytest.mark.parametrize(
    "batch",
    [
        {"pixel_values": torch.rand(2, 1, 3, 2, 3)},
        {"pixel_values": torch.rand(2, *SHAPE).double()},
        {"pixel_values": [torch.rand(1, *SHAPE), torch.rand(2, *SHAPE)]},
        {"pixel_values": torch.rand(2, *SHAPE), "image_sizes": torch.ones(2, 2)},
        {"image_embeds": torch.rand(1, 3, 4)},
    ],
)
def test_other_inputs_are_none_for_a_graph(graphs: EncoderGraphs, batch: Any) -> None:
    assert graphs.run(batch) is None
    assert len(graphs) == 0


def test_an_encoder_that_cannot_be_captured(
    graphs: EncoderGraphs, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(pixel_values: Any) -> list[torch.Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    model.embed_multimodal = failing  # type: ignore[method-assign]
    assert graphs.run({"pixel_values": pixels(1)}) is None
    assert "cannot be captured" in caplog.text
    del model.embed_multimodal
    assert graphs.run({"pixel_values": pixels(1)}) is None, "it is not tried again"


def test_the_runner_encodes_from_graphs_and_without(graphs: EncoderGraphs, model: Model) -> None:
    class Mapper:
        def map(self, items: list[Any]) -> MultiModalInputs:
            return MultiModalInputs({"pixel_values": items[0].data})

    def job(slot: int, data: Any) -> EncodeJob:
        item: Any = SimpleNamespace(modality="image", data=data, content_id=b"")
        return EncodeJob(slot, slot, 3, item)

    mapper: Any = Mapper()
    table = torch.rand(3, 256)
    items = [BytePixels(torch.randint(0, 256, SHAPE, dtype=torch.uint8), table) for _ in range(3)]
    kept = []
    for use in (None, graphs):
        encoder = EncoderRunner(model, mapper, CPU)
        encoder.graphs = use
        assert encoder.encode([job(slot, item) for slot, item in enumerate(items)]) == []
        kept.append([encoder.rows(slot, 0, 3) for slot in range(3)])
    for ours, theirs in zip(*kept, strict=True):
        assert torch.allclose(ours, theirs)
    assert len(graphs) == 1


def test_who_may_run_from_graphs() -> None:
    class Inherits(LlavaForConditionalGeneration):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.config: Any = SimpleNamespace(vision_config=SimpleNamespace(image_size=28))

    class EncodesOtherwise(Inherits):
        def embed_multimodal(self, **kwargs: Any) -> list[torch.Tensor]:
            return []

    assert fixed_media_input(Inherits()) == FixedMediaInput("pixel_values", (1, 3, 28, 28))
    assert fixed_media_input(EncodesOtherwise()) is None
    assert fixed_media_input(Model()) is None
