"""Merging embeddings, and the helpers of model files. Layer: unit."""

from __future__ import annotations

import re

import pytest
import torch
from models import tiny
from torch import nn

from mmcore.errors import CheckpointError, ValidationError
from mmcore.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from mmcore.model_executor.models.llama import LlamaForCausalLM
from mmcore.model_executor.models.utils import (
    embed_with_media,
    flatten_bn,
    init_mmcore_registered_model,
    init_vllm_registered_model,
    is_pp_missing_parameter,
    make_empty_intermediate_tensors_factory,
    make_layers,
    maybe_prefix,
    merge_multimodal_embeddings,
)

IDS = torch.tensor([1, 9, 9, 2, 9])


def test_merging_goes_in_order_and_in_place() -> None:
    embeds = torch.zeros(5, 2)
    media = torch.arange(1.0, 7.0).view(3, 2)
    out = merge_multimodal_embeddings(IDS, embeds, [media[:2], [media[2:]]], 9)
    assert out is embeds
    assert torch.equal(embeds[IDS == 9], media)
    assert (embeds[IDS != 9] == 0).all()


def test_merging_takes_several_placeholder_ids() -> None:
    embeds = torch.zeros(5, 2)
    merge_multimodal_embeddings(IDS, embeds, torch.ones(2, 2, 2), [9, 2])
    assert embeds.sum(-1).tolist() == [0, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ([(1, 576, 4)], "1 x 576 = 576 multimodal tokens to 3"),
        ([(2, 4), (5, 4)], "2 + 5 = 7 multimodal tokens to 3"),
        ([(2, 4)], "2 = 2 multimodal tokens to 3"),
    ],
)
def test_a_wrong_number_of_embeddings_is_refused(shapes: list[tuple[int, ...]], text: str) -> None:
    parts = [torch.zeros(shape) for shape in shapes]
    media = parts[0] if len(parts) == 1 else parts
    message = re.escape(f"Attempted to assign {text} placeholders")
    with pytest.raises(ValueError, match=message):
        merge_multimodal_embeddings(IDS, torch.zeros(5, 4), media, 9)
    table = VocabParallelEmbedding(10, 4)
    with pytest.raises(ValueError, match=message):
        embed_with_media(table, IDS, media, IDS == 9)


@pytest.mark.parametrize("table_type", [VocabParallelEmbedding, nn.Embedding])
def test_embedding_with_media_does_not_look_placeholders_up(table_type: type[nn.Module]) -> None:
    torch.manual_seed(0)
    table = table_type(10, 4)
    with torch.no_grad():
        table.weight.copy_(torch.randn(10, 4))  # type: ignore[operator]
        ids = torch.tensor([1, 900, 900, 2])
        media = torch.randn(2, 4)
        out = embed_with_media(table, ids, [media[:1], media[1:]], ids == 900)
        assert torch.equal(out, torch.stack([table.weight[1], *media, table.weight[2]]))  # type: ignore[index]
        assert torch.equal(embed_with_media(table, ids[[0, 3]], None, ids[:2] < 0), out[[0, 3]])


def test_a_placeholder_typed_as_text_stays_text() -> None:
    table = VocabParallelEmbedding(10, 4)
    with torch.no_grad():
        table.weight.copy_(torch.randn(10, 4))
        mask = torch.tensor([False, True, False, False, True])
        out = embed_with_media(table, IDS, [torch.zeros(2, 4)], mask)
    assert torch.equal(out[2], table.weight[9])
    assert (out[mask] == 0).all()


def test_flatten_bn() -> None:
    x = torch.randn(2, 3, 4)
    assert torch.equal(flatten_bn(x), x.view(6, 4))
    ragged = [torch.zeros(1, 4), torch.ones(2, 4)]
    assert [t.shape for t in flatten_bn(ragged)] == [(4,)] * 3
    assert flatten_bn(ragged, concat=True).shape == (3, 4)
    assert len(flatten_bn([[torch.zeros(2)], [torch.ones(3), torch.ones(1)]])) == 3


def test_inner_models_are_found_by_architecture_or_model_type() -> None:
    assert init_vllm_registered_model is init_mmcore_registered_model
    config = tiny.llama_config()
    assert type(init_mmcore_registered_model(config)) is LlamaForCausalLM
    config.architectures = ["Qwen2ForCausalLM"]
    assert type(init_mmcore_registered_model(config)).__name__ == "Qwen2ForCausalLM"
    config.architectures = ["Unheard"]
    with pytest.raises(ValidationError, match="Unheard"):
        init_mmcore_registered_model(config)
    with pytest.raises(CheckpointError, match="clip_vision_model"):
        init_mmcore_registered_model(tiny.clip_config())


def test_tying_can_be_decided_by_the_outer_model() -> None:
    config = tiny.llama_config()
    model = init_mmcore_registered_model(config, tie_word_embeddings=True)
    assert model.lm_head is model.model.embed_tokens  # type: ignore[union-attr]
    assert config.tie_word_embeddings is False


def test_names_of_pipeline_stages() -> None:
    assert maybe_prefix("", "a") == "a"
    assert maybe_prefix("a", "b") == "a.b"
    seen: list[str] = []

    def layer(prefix: str) -> nn.Module:
        seen.append(prefix)
        return nn.Identity()

    start, end, layers = make_layers(3, layer, prefix="model.layers")
    assert (start, end, len(layers)) == (0, 3, 3)
    assert seen[2] == "model.layers.2"
    assert not is_pp_missing_parameter("x", layers)
    made = make_empty_intermediate_tensors_factory(["h"], 5)(2, torch.bfloat16, torch.device("cpu"))
    assert made["h"].shape == (2, 5)
