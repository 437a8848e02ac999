"""The encoder from CUDA graphs, compared with the encoder without. Layer: whole engine, tiny."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu.needs_gpu import GPU
from tiny_fixtures import assert_idle, make_llm, picture

from mmcore import LLM, SamplingParams
from mmcore.multimodal import MULTIMODAL_REGISTRY, MultiModalInputs
from mmcore.multimodal.byte_pixels import BytePixels

pytestmark = GPU

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


def make(folder: Path, **options: Any) -> LLM:
    return make_llm(folder, device="cuda", limit_mm_per_prompt={"image": 8}, **options)


def prompt(first: int, count: int) -> Any:
    pictures = [picture(first + i) for i in range(count)]
    return {"prompt": "<image>" * count + "?", "multi_modal_data": {"image": pictures}}


def tokens(llm: LLM, prompts: list[Any]) -> list[list[int]]:
    outputs = llm.generate(prompts, GREEDY, use_tqdm=False)
    assert_idle(llm)
    assert llm.llm_engine.metrics()["steps_failed"] == 0
    return [list(output.outputs[0].token_ids) for output in outputs]


def encoder_graphs(llm: LLM) -> Any:
    runner = llm.llm_engine.model_runner
    assert runner.encoder is not None
    return runner.encoder.graphs


def test_graphs_change_no_token(llava_folder: Path) -> None:
    prompts = [prompt(10 * i, i) for i in range(1, 9)]
    made = []
    for enforce_eager in (True, False):
        llm = make(llava_folder, enforce_eager=enforce_eager)
        graphs = encoder_graphs(llm)
        assert (graphs is None) == enforce_eager
        made.append([*tokens(llm, prompts), *tokens(llm, [prompt(200, 5)])])
        assert graphs is None or len(graphs) > 1, "the graphs were given up"
    assert made[0] == made[1]


@torch.inference_mode()
def test_a_full_graph_gives_the_same_rows(llava_folder: Path) -> None:
    llm = make(llava_folder, enforce_eager=False)
    graphs, model = encoder_graphs(llm), llm.llm_engine.model_runner.model
    config = llm.llm_engine.get_model_config()
    kept = []
    for count in (1, 2, 4, 8, 4, 1):
        mapped = [
            MULTIMODAL_REGISTRY.map_input(config, {"image": picture(i + count)}, as_bytes=True)
            for i in range(count)
        ]
        batch = MultiModalInputs.batch(mapped)
        expected = model.embed_multimodal(**MultiModalInputs.as_kwargs(batch, device="cuda"))
        outputs = graphs.run(batch)
        assert outputs is not None
        kept.append((outputs, [rows.clone() for rows in expected]))
    # Compared in the end: what one run gave must outlive the others.
    for outputs, expected in kept:
        for output, rows in zip(outputs, expected, strict=True):
            torch.testing.assert_close(output, rows, rtol=1e-5, atol=1e-5)


def test_bytes_become_the_same_floats_on_the_device() -> None:
    data = torch.randint(0, 256, (2, 5, 3, 17, 19), dtype=torch.uint8)
    pixels = BytePixels(data, torch.randn(3, 256))
    assert torch.equal(pixels.floats("cuda").cpu(), pixels.floats())


def test_other_shapes_and_embeddings_pass_by(llava_folder: Path) -> None:
    llm = make(llava_folder, enforce_eager=False)
    eager = make(llava_folder, enforce_eager=True)
    rows = torch.rand(1, 4, 64)
    embeds: Any = {"prompt": "<image>?", "multi_modal_data": {"image": rows}}
    assert tokens(llm, [embeds, prompt(0, 1)]) == tokens(eager, [embeds, prompt(0, 1)])


def test_an_encoder_that_waits_cannot_be_captured(
    llava_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mmcore.model_executor.models.vision_encoder import VisionTower

    expected = tokens(make(llava_folder), [prompt(0, 2)])
    original = VisionTower.hidden_states

    def waiting(self: Any, *args: Any, **kwargs: Any) -> Any:
        states = original(self, *args, **kwargs)
        assert states[0].sum().item() is not None
        return states

    monkeypatch.setattr(VisionTower, "hidden_states", waiting)
    llm = make(llava_folder, enforce_eager=False)
    assert "encoder of LlavaForConditionalGeneration cannot be captured" in caplog.text
    assert tokens(llm, [prompt(0, 2)]) == expected
    decoder = llm.llm_engine.model_runner.graphs
    assert decoder is not None and len(decoder) > 1, "the decoder's graphs are not concerned"


def test_memory_comes_back(llava_folder: Path) -> None:
    def used() -> int:
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    make(llava_folder, enforce_eager=False)
    before = used()
    llm = make(llava_folder, enforce_eager=False)
    tokens(llm, [prompt(0, 3)])
    del llm
    assert used() - before < 1 << 20
