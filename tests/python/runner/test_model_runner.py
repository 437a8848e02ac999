"""Steps over the tiny models, looked at from inside the runner. Layer: runner and core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_fixtures import assert_idle, make_llm, picture, with_picture
from tiny_models import token_ids

from mmcore import LLM, SamplingParams
from mmcore.attention import AttentionMetadata
from mmcore.errors import InternalError
from mmcore.model_executor.forward_signature import required_media_arguments
from mmcore.model_executor.sampling_metadata import SamplingMetadata
from mmcore.sequence import SampledToken, SamplerOutput

GREEDY = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True)


class Recorder:
    """Stands before a model and keeps what its forward gets."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, ids: Any, positions: Any, kv_caches: Any, metadata: AttentionMetadata, **media: Any
    ) -> Any:
        self.calls.append(
            {
                "ids": ids.tolist(),
                "positions": positions.tolist(),
                "dtypes": (ids.dtype, positions.dtype),
                "query_start": metadata.query_start.tolist(),
                "seq_lens": metadata.seq_lens.tolist(),
                "counts": (
                    metadata.num_prefills, metadata.num_prefill_tokens, metadata.num_decode_tokens,
                ),
                "longest": (metadata.max_query_len, metadata.max_seq_len),
                "media": sorted(media),
                "inference": torch.is_inference_mode_enabled(),
            }
        )  # fmt: skip
        return self.model(ids, positions, kv_caches, metadata, **media)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


@pytest.fixture
def recorded(llava: LLM, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    llava.llm_engine.reset_caches()
    recorder = Recorder(llava.llm_engine.model_runner.model)
    monkeypatch.setattr(llava.llm_engine.model_runner, "model", recorder)
    return recorder


def test_what_a_forward_gets(llava: LLM, recorded: Recorder) -> None:
    llava.generate(["ab", with_picture(0, "<image>x")], GREEDY, use_tqdm=False)
    first, second = recorded.calls[:2]
    assert first["positions"] == [0, 1, 0, 1, 2, 3, 4]
    assert first["dtypes"] == (torch.int64, torch.int64)
    assert first["query_start"] == [0, 2, 7]
    assert first["counts"] == (2, 7, 0)
    assert first["longest"] == (5, 5)
    assert first["media"] == ["inputs_embeds"]
    assert second["positions"] == [2, 5]
    assert second["seq_lens"] == [3, 6]
    assert second["counts"] == (0, 0, 2)
    assert second["media"] == [], "a step without media embeds its tokens itself"
    assert all(call["inference"] for call in recorded.calls)


def test_rows_of_an_image_come_from_the_encoder(llava: LLM, recorded: Recorder) -> None:
    seen: list[torch.Tensor] = []
    original = recorded.model.embed_input_ids

    def embed(ids: Any, pieces: Any = None, *, is_multimodal: Any = None) -> Any:
        embeds = original(ids, pieces, is_multimodal=is_multimodal)
        seen.append(is_multimodal.clone())
        assert torch.equal(embeds[is_multimodal], torch.cat(list(pieces)))
        assert torch.equal(embeds[~is_multimodal], original(ids[~is_multimodal]))
        return embeds

    recorded.embed_input_ids = embed  # type: ignore[attr-defined]
    prompt = {
        "prompt": "a<image>b<image>",
        "multi_modal_data": {"image": [picture(0), picture(1)]},
    }
    llava.generate([prompt], GREEDY, use_tqdm=False)
    assert seen[0].tolist() == [False, *[True] * 4, False, *[True] * 4]


def test_chunks_without_a_newest_token_compute_no_logits(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = make_llm(llama_folder, max_num_batched_tokens=4)
    model = llm.llm_engine.model_runner.model
    rows = []
    original = model.compute_logits

    def counting(hidden: Any, metadata: SamplingMetadata) -> Any:
        assert metadata.selected_token_indices is not None
        rows.append(metadata.selected_token_indices.tolist())
        return original(hidden, metadata)

    monkeypatch.setattr(model, "compute_logits", counting)
    llm.generate(["x" * 10], SamplingParams(temperature=0.0, max_tokens=2), use_tqdm=False)
    assert rows == [[1], [0]]


def test_prompt_logits_are_computed_in_pieces(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama.llm_engine.model_runner.model
    pieces = []
    original = model.compute_logits

    def counting(hidden: Any, metadata: SamplingMetadata) -> Any:
        logits = original(hidden, metadata)
        pieces.append(len(logits))
        return logits

    monkeypatch.setattr(model, "compute_logits", counting)
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
    [output] = llama.generate(["z" * 400], params, use_tqdm=False)
    assert pieces == [256, 143, 1]
    assert output.prompt_logprobs is not None
    assert len(output.prompt_logprobs) == 400


def test_a_model_may_sample_by_itself(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama.llm_engine.model_runner.model

    def sample(logits: torch.Tensor, metadata: SamplingMetadata) -> SamplerOutput:
        return SamplerOutput([SampledToken(token_ids("k")[0]) for _ in logits])

    monkeypatch.setattr(model, "sample", sample)
    [output] = llama.generate(["hello"], GREEDY, use_tqdm=False)
    assert output.outputs[0].text == "kkkkk"


def test_a_sampler_may_look_at_the_tokens(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama.llm_engine.model_runner.model
    original = model.sample
    seen: list[int] = []

    def looking(logits: torch.Tensor, metadata: SamplingMetadata) -> Any:
        output = original(logits, metadata)
        assert len(output) == len(logits)
        seen.extend(token.token_id for token in output)
        assert output[0].token_id == output.outputs[0:1][0].token_id
        return output

    monkeypatch.setattr(model, "sample", looking)
    [output] = llama.generate(["hello"], GREEDY, use_tqdm=False)
    assert seen == list(output.outputs[0].token_ids)


def test_metadata_without_a_plan_samples_nothing() -> None:
    with pytest.raises(InternalError):
        SamplingMetadata(None, None).sample(torch.zeros(1, 4))


def test_an_item_that_comes_again_is_prepared_once(llava_folder: Path) -> None:
    llm = make_llm(llava_folder, enable_prefix_caching=False, encoder_cache_rows=4,
                   encoder_budget=4)  # fmt: skip
    mapper = llm.llm_engine.model_runner.mapper
    assert mapper is not None
    mapper.cache.clear()
    mapper.cache.hits = mapper.cache.misses = 0
    for seed in (0, 1, 0, 1):  # the encoder cache holds one image only
        llm.generate([with_picture(seed)], GREEDY, use_tqdm=False)
    assert llm.llm_engine.metrics()["items_encoded"] == 4
    assert (mapper.cache.hits, mapper.cache.misses) == (2, 2)
    assert_idle(llm)


def test_forwards_that_require_a_media_argument() -> None:
    class Seed(torch.nn.Module):
        def forward(
            self, input_ids: Any, positions: Any, kv_caches: Any, attn_metadata: Any,
            pixel_values: Any, image_sizes: Any = 3, **kwargs: Any,
        ) -> Any: ...  # fmt: skip

    assert required_media_arguments(Seed()) == {"pixel_values": None}
