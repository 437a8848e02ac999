"""The attention layers against torch's attention. Layer: unit."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mmcore.attention import Attention, AttentionMetadata, VisionAttention
from mmcore.errors import CheckpointError, ValidationError
from mmcore.model_executor.layers.rotary_embedding import get_rope

HEADS, KV_HEADS, DIM = 4, 2, 32


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def qkv(tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    packed = torch.randn(tokens, (HEADS + 2 * KV_HEADS) * DIM)
    q, k, v = packed.split([HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM], dim=-1)
    return q, k, v


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (t.reshape(len(t), -1, DIM).transpose(0, 1) for t in (q, k, v))
    k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=0) for t in (k, v))
    out = scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(0, 1).reshape(-1, HEADS * DIM)


def paged_metadata(tokens: int, blocks: list[int], size: int) -> AttentionMetadata:
    slots = [blocks[i // size] * size + i % size for i in range(tokens)]
    return AttentionMetadata(
        slot_mapping=torch.tensor(slots),
        query_start=torch.tensor([0, tokens], dtype=torch.int32),
        seq_lens=torch.tensor([tokens], dtype=torch.int32),
        block_tables=torch.tensor([blocks], dtype=torch.int32),
        num_prefills=1,
        num_prefill_tokens=tokens,
        num_decode_tokens=0,
        max_query_len=tokens,
        max_seq_len=tokens,
    )


@pytest.mark.parametrize("empty", [None, torch.empty(0)])
def test_without_a_cache_the_batch_attends_to_itself(empty: torch.Tensor | None) -> None:
    layer = Attention(HEADS, DIM, DIM**-0.5, KV_HEADS)
    q, k, v = qkv(9)
    out = layer(q, k, v, empty, AttentionMetadata.without_cache([4, 5]))
    want = torch.cat([causal(q[:4], k[:4], v[:4]), causal(q[4:], k[4:], v[4:])])
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)


def test_keys_and_values_are_written_and_read() -> None:
    layer = Attention(HEADS, DIM, DIM**-0.5, KV_HEADS)
    cache = torch.full((2, 4, 4, KV_HEADS, DIM), float("nan"))
    q, k, v = qkv(7)
    heads_apart = (q.view(7, HEADS, DIM), k.view(7, KV_HEADS, DIM), v.view(7, KV_HEADS, DIM))
    out = layer(*heads_apart, cache, paged_metadata(7, [3, 1], 4))
    assert out.shape == (7, HEADS, DIM)
    torch.testing.assert_close(out.flatten(1), causal(q, k, v), atol=1e-5, rtol=1e-5)
    assert torch.equal(cache[0, 3].flatten(1), k[:4])
    assert torch.equal(cache[1, 1, :3].flatten(1), v[4:])
    assert cache[:, [0, 2]].isnan().all()


def test_a_float8_cache_is_scaled_and_no_other() -> None:
    layer = Attention(HEADS, DIM, DIM**-0.5, KV_HEADS)
    layer.load_cache_scale("k_scale", torch.tensor([0.01]))
    layer.load_cache_scale("v_scale", torch.tensor(0.02))
    q, k, v = qkv(7)
    shape, metadata = (2, 4, 4, KV_HEADS, DIM), paged_metadata(7, [3, 1], 4)
    plain = layer(q.clone(), k.clone(), v.clone(), torch.zeros(shape), metadata)
    torch.testing.assert_close(plain, causal(q, k, v), atol=1e-5, rtol=1e-5)
    cache = torch.zeros(shape).to(torch.float8_e4m3fn)
    scaled = layer(q, k, v, cache, metadata)
    held = [
        cache[part, [3, 1]].float().reshape(8, -1)[:7] * s for part, s in ((0, 0.01), (1, 0.02))
    ]
    torch.testing.assert_close(scaled, causal(q, *held), atol=1e-5, rtol=1e-5)
    # Three bits of mantissa: each number is off by at most 1 in 16.
    torch.testing.assert_close(held[0], k, rtol=1 / 16, atol=1e-4)
    torch.testing.assert_close(held[1], v, rtol=1 / 16, atol=1e-4)


@pytest.mark.parametrize("value", [[0.0], [-1.0], [math.nan], [math.inf], [1e-45], [1.0, 2.0], []])
def test_scales_that_are_none_are_refused(value: list[float]) -> None:
    layer = Attention(HEADS, DIM, DIM**-0.5, KV_HEADS, prefix="layers.3.attn")
    with pytest.raises(
        CheckpointError, match=r"k_scale of layers\.3\.attn is .*expected one finite"
    ):
        layer.load_cache_scale("k_scale", torch.tensor(value))


@pytest.mark.parametrize("with_cache", [True, False])
def test_rotation_inside_is_rotation_before(with_cache: bool) -> None:
    rope = get_rope(DIM, DIM, 64, 10000.0)
    inside = Attention(HEADS, DIM, DIM**-0.5, KV_HEADS, rotary=rope)
    outside = Attention(HEADS, DIM, DIM**-0.5, KV_HEADS)
    q, k, v = qkv(7)
    positions = torch.arange(7)
    metadata = paged_metadata(7, [3, 1], 4)

    def cache() -> torch.Tensor:
        return torch.zeros((2, 4, 4, KV_HEADS, DIM) if with_cache else 0)

    rotated = rope(positions, q.clone(), k.clone())
    want = outside(*rotated, v, cache(), metadata)
    unrotated = inside(q.clone(), k.clone(), v, cache(), metadata)
    got = inside(q.clone(), k.clone(), v, cache(), metadata, positions)
    torch.testing.assert_close(got, want)
    assert not torch.allclose(unrotated, want)


def test_the_table_is_no_part_of_the_model() -> None:
    layer = Attention(HEADS, DIM, 1.0, KV_HEADS, rotary=get_rope(DIM, DIM, 8, 10000.0))
    assert not list(layer.modules())[1:]
    assert not layer.state_dict()


def test_the_window_may_come_from_the_cache_configuration() -> None:
    config: Any = SimpleNamespace(sliding_window=5)
    assert Attention(HEADS, DIM, 1.0, cache_config=config).window == 5
    assert Attention(HEADS, DIM, 1.0, cache_config=config, sliding_window=3).window == 3
    assert Attention(HEADS, DIM, 1.0).window == 0


def test_what_is_not_supported_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"layers\.0\) does not support alibi_slopes"):
        Attention(HEADS, DIM, 1.0, alibi_slopes=[1.0], prefix="layers.0")
    with pytest.raises(ValidationError, match="quant_config"):
        Attention(HEADS, DIM, 1.0, quant_config=object())
    with pytest.raises(ValidationError, match="4 query heads cannot share 3"):
        Attention(4, DIM, 1.0, 3)


def test_vision_attention_with_equal_and_with_different_lengths() -> None:
    layer = VisionAttention(HEADS, DIM)
    q, k, v = (torch.randn(2, 6, HEADS * DIM) for _ in range(3))
    together = layer(q, k, v)
    starts = torch.tensor([0, 6, 12], dtype=torch.int32)
    flat = layer(*(t.flatten(0, 1) for t in (q, k, v)), cu_seqlens=starts)
    torch.testing.assert_close(flat.view(2, 6, -1), together, atol=1e-5, rtol=1e-5)
    ragged = torch.tensor([0, 4, 12], dtype=torch.int32)
    parts = layer(*(t.flatten(0, 1) for t in (q, k, v)), cu_seqlens=ragged)
    first = layer(*(t.flatten(0, 1)[None, :4] for t in (q, k, v)))
    torch.testing.assert_close(parts[:4], first[0], atol=1e-5, rtol=1e-5)
