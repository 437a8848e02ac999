"""The encoder on a stream of its own: beside other work, and never with its memory.

One of the two streams is kept busy, so that what does not wait for it comes first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gpu.needs_gpu import GPU
from tiny_fixtures import assert_idle, make_llm, picture

from mmcore import LLM, SamplingParams
from mmcore.model_executor import encoder_stream
from mmcore.model_executor.encoder_graphs import EncoderGraphs
from mmcore.model_executor.encoder_stream import EncoderStream
from mmcore.model_executor.graph_capture import capture_stream
from mmcore.model_executor.models.interfaces import FixedMediaInput

pytestmark = GPU

SHAPE = (1, 3, 8, 8)
CYCLES = 400_000_000  # some 0.2 s, in which the host launches all that a test has to


class Model(torch.nn.Module):
    """Gives 64 rows an item, each the item's sum."""

    def embed_multimodal(self, pixel_values: Any) -> list[torch.Tensor]:
        sums = pixel_values.flatten(1).sum(1)
        return list(sums[:, None, None].repeat(1, 64, 512).unbind(0))


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def beside(device: torch.device) -> EncoderStream:
    return EncoderStream(device)


@pytest.fixture
def graphs(device: torch.device, beside: EncoderStream) -> EncoderGraphs:
    made = EncoderGraphs(Model(), FixedMediaInput("pixel_values", SHAPE), [1, 2], device, beside)
    made.capture_all()
    assert len(made) == 2
    with torch.inference_mode():
        # Memory for all that a test launches: to allocate some may wait for the device.
        warm = [encode(made, float(value)) for value in range(40)]
    torch.cuda.synchronize()
    del warm
    return made


def encode(graphs: EncoderGraphs, *values: float) -> list[torch.Tensor]:
    """Encode an item for each value; its rows are to be 192 times that."""
    pixels = torch.stack([torch.full(SHAPE, value) for value in values])
    outputs = graphs.run({"pixel_values": pixels})
    assert outputs is not None
    return outputs


def busy() -> torch.cuda.Event:
    """Keep the current stream busy; the event is when it is done."""
    torch.cuda._sleep(CYCLES)  # type: ignore[no-untyped-call]
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


@torch.inference_mode()
def test_it_does_not_wait_for_the_current_stream(
    graphs: EncoderGraphs, beside: EncoderStream
) -> None:
    done = busy()
    outputs = encode(graphs, 1.0, 2.0, 3.0)
    beside.stream.synchronize()
    assert not done.query(), "the encoder has ended, and the step before has not"
    assert [float(rows[-1, -1]) for rows in outputs] == [192.0, 384.0, 576.0]


@torch.inference_mode()
def test_the_current_stream_waits_for_it(graphs: EncoderGraphs, beside: EncoderStream) -> None:
    with beside():
        done = busy()
    [rows] = encode(graphs, 5.0)
    copy = rows.clone()
    assert not done.query()
    assert torch.equal(copy.cpu(), torch.full((64, 512), 960.0))


@torch.inference_mode()
def test_what_a_step_still_reads_is_not_written_again(graphs: EncoderGraphs) -> None:
    for _ in range(3):  # the first time there is memory left over from elsewhere
        [rows] = encode(graphs, 1.0)
        done = busy()
        copy = rows.clone()
        del rows  # dropped from the encoder cache while the step that reads it has not begun
        others = [encode(graphs, float(value)) for value in range(2, 12)]
        assert not done.query()
        assert torch.equal(copy.cpu(), torch.full((64, 512), 192.0))
        del others


def test_the_stream_is_never_that_of_other_captures(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        encoder_stream, "_encoder_stream", encoder_stream._encoder_stream.__wrapped__
    )
    streams = [EncoderStream(device).stream for _ in range(100)]
    assert len(set(streams)) < 100, "torch gives streams out again"
    assert capture_stream(device) not in streams
    assert torch.cuda.default_stream(device) not in streams


def tokens(llm: LLM, prompts: list[Any]) -> list[list[int]]:
    greedy = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)
    outputs = llm.generate(prompts, greedy, use_tqdm=False)
    assert_idle(llm)
    assert llm.llm_engine.metrics()["steps_failed"] == 0
    return [list(output.outputs[0].token_ids) for output in outputs]


# An encoder cache that holds little more than a step encodes, so that outputs are dropped in each
# step, and a pool in which requests are preempted and their pictures encoded again.
def test_tokens_are_the_same_while_outputs_come_and_go(llava_folder: Path) -> None:
    prompts: list[Any] = []
    for i in range(60):
        pictures = [picture(3 * i + k) for k in range(1 + i % 3)]
        text = "<image>" * len(pictures) + "?" * (1 + i % 5)
        prompts.append({"prompt": text, "multi_modal_data": {"image": pictures}})
    made = []
    for beside in (False, True):
        llm = make_llm(
            llava_folder, device="cuda", limit_mm_per_prompt={"image": 3}, enforce_eager=False,
            encoder_stream=beside, max_num_seqs=12, max_num_batched_tokens=64, block_size=4,
            num_gpu_blocks_override=40, encoder_budget=24, encoder_cache_rows=24, headroom=0,
        )  # fmt: skip
        made.append([tokens(llm, prompts), tokens(llm, prompts[::-1])])
        metrics = llm.llm_engine.metrics()
        assert metrics["steps_ahead"] > 0
        assert metrics["items_encoded"] > 120
        assert metrics["preemptions"] > 0
        encoder = llm.llm_engine.model_runner.encoder
        assert encoder is not None and encoder.graphs is not None and len(encoder.graphs) > 0
    assert made[0] == made[1]
    assert made[0][0] == made[0][1][::-1]
