"""Llama, Mistral and Qwen2 against transformers in float32. Layer: model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny
from models.paged import PagedRun, run_whole

pytestmark = pytest.mark.hf

TOLERANCE = 1e-4
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS: dict[str, Any] = {
    "llama": lambda: tiny.llama_config(),
    "llama biases": lambda: tiny.llama_config(attention_bias=True, mlp_bias=True),
    "llama tied, llama3 rope": lambda: tiny.llama_config(
        tie_word_embeddings=True, rope_parameters=LLAMA3
    ),
    "llama one kv head, gelu": lambda: tiny.llama_config(
        num_key_value_heads=1, hidden_act="gelu_pytorch_tanh"
    ),
    "mistral": lambda: tiny.mistral_config(),
    "mistral window": lambda: tiny.mistral_config(sliding_window=9),
    "qwen2": lambda: tiny.qwen2_config(),
    "qwen2 tied": lambda: tiny.qwen2_config(tie_word_embeddings=True),
    "qwen2 window above": lambda: tiny.qwen2_config(
        use_sliding_window=True, sliding_window=9, max_window_layers=1
    ),
}


@pytest.fixture(scope="module", params=CONFIGS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    return tiny.both(CONFIGS[request.param](), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(autouse=True)
def inference() -> Any:
    with torch.inference_mode():
        yield


def prompt(length: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, tiny.VOCABULARY, (length,), generator=generator)


def expected(reference: Any, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = reference(input_ids=ids[None]).logits[0]
    return logits


def test_prefill(pair: tuple[Any, Any]) -> None:
    reference, model = pair
    ids = prompt(70)
    want = expected(reference, ids)
    assert want.abs().max() > 1  # or the tolerance would say nothing
    assert tiny.worst(run_whole(model, ids), want) < TOLERANCE


def test_chunks_decodes_and_company_change_nothing(pair: tuple[Any, Any]) -> None:
    reference, model = pair
    ids, other = prompt(40), prompt(23, seed=2)
    want, want_other = expected(reference, ids), expected(reference, other)
    run = PagedRun(model)
    got = [run.step([("a", ids[:13])])[0]]
    first, begun = run.step([("a", ids[13:14]), ("b", other[:10])])  # a decode beside a prefill
    got.append(first)
    got.append(run.step([("a", ids[14:30])])[0])  # a chunk
    got_other = [begun]
    for i in range(10):
        one, two = run.step([("a", ids[30 + i : 31 + i]), ("b", other[10 + i : 11 + i])])
        got.append(one)
        got_other.append(two)
    got_other.append(run.step([("b", other[20:])])[0])
    assert tiny.worst(torch.cat(got), want) < TOLERANCE
    assert tiny.worst(torch.cat(got_other), want_other) < TOLERANCE


def test_embeddings_may_be_given_and_are_left_alone(pair: tuple[Any, Any]) -> None:
    _, model = pair
    ids = prompt(12)
    embeds = model.embed_input_ids(ids)
    kept = embeds.clone()
    got = run_whole(model, torch.zeros_like(ids), inputs_embeds=embeds)
    assert torch.equal(got, run_whole(model, ids))
    assert torch.equal(embeds, kept)


def test_two_dialects_of_a_checkpoint_are_one_model(tmp_path: Path) -> None:
    reference = tiny.make(tiny.llama_config(rope_parameters=LLAMA3))
    native, _ = tiny.load(tiny.save(reference, tmp_path / "native"))
    hub, config = tiny.load(tiny.save(reference, tmp_path / "hub", hub=True))
    written = (tmp_path / "hub" / "config.json").read_text()
    assert '"rope_scaling"' in written
    assert "rope_parameters" not in written
    ids = prompt(80)
    assert torch.equal(run_whole(hub, ids), run_whole(native, ids))
    assert tiny.worst(run_whole(hub, ids), expected(reference, ids)) < TOLERANCE
    assert config.max_model_len == 256


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_sequence_alone_is_a_sequence_in_company(tmp_path: Path, dtype: str) -> None:
    reference = tiny.make(tiny.llama_config())
    model, _ = tiny.load(tiny.save(reference, tmp_path), dtype)
    ids, other = prompt(30), prompt(17, seed=5)
    cache_dtype = getattr(torch, dtype)
    alone = PagedRun(model, dtype=cache_dtype).step([("a", ids)])[0]
    beside = PagedRun(model, dtype=cache_dtype).step([("b", other), ("a", ids)])[1]
    want = expected(reference, ids)
    scale = want.abs().max().item()
    limit = TOLERANCE if dtype == "float32" else 0.05
    assert tiny.worst(alone, want) < limit * scale
    assert tiny.worst(alone, beside) < limit * scale


def test_a_token_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    _, model = tiny.both(tiny.llama_config(), tmp_path)
    with pytest.raises(ValueError, match=rf"token_ids\[1\] is {tiny.VOCABULARY}"):
        run_whole(model, torch.tensor([3, tiny.VOCABULARY]))
