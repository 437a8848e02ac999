"""Rotary embeddings against transformers. Layer: unit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from mmcore.errors import CheckpointError
from mmcore.model_executor.layers.rotary_embedding import (
    RotaryEmbedding,
    get_rope,
    get_rope_from_config,
)

pytestmark = pytest.mark.hf

THETA = 10000.0
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "llama3 blended": {
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 16.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "yarn given": {
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "attention_factor": 0.8,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "yarn mscale": {
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "mscale": 0.7,
        "mscale_all_dim": 1.3,
    },
}
MAX_POSITION, DIM = 256, 64


def config_of(name: str, **changes: Any) -> tf.LlamaConfig:
    rope = {"rope_type": name.partition(" ")[0], "rope_theta": THETA, **SCALINGS[name]}
    return tf.LlamaConfig(
        hidden_size=2 * DIM,
        num_attention_heads=2,
        max_position_embeddings=MAX_POSITION,
        rope_parameters=rope,
        **changes,
    )


def hf_table(config: tf.LlamaConfig, positions: torch.Tensor) -> torch.Tensor:
    rotary = LlamaRotaryEmbedding(config)
    cos, sin = rotary(torch.zeros(1), positions[None])
    half = DIM // 2
    return torch.cat([cos[0, :, :half], sin[0, :, :half]], dim=-1)


@pytest.mark.parametrize("name", SCALINGS)
def test_table(name: str) -> None:
    config = config_of(name)
    rope = get_rope_from_config(config, DIM)
    table = rope.table_on(torch.device("cpu"))
    assert table.dtype == torch.float32
    positions = torch.arange(MAX_POSITION)
    torch.testing.assert_close(table[:MAX_POSITION], hf_table(config, positions), atol=2e-5, rtol=0)


def test_dynamic_scaling_beyond_the_trained_length_follows_generation() -> None:
    config = config_of("dynamic")
    table = get_rope_from_config(config, DIM).table_on(torch.device("cpu"))
    assert table.shape[0] == 2 * MAX_POSITION
    rotary = LlamaRotaryEmbedding(config)
    for position in (MAX_POSITION - 1, MAX_POSITION, MAX_POSITION + 100, 2 * MAX_POSITION - 1):
        cos, sin = rotary(torch.zeros(1), torch.tensor([[position]]))  # as when decoding
        want = torch.cat([cos[0, 0, : DIM // 2], sin[0, 0, : DIM // 2]])
        torch.testing.assert_close(table[position], want, atol=5e-5, rtol=0)


@pytest.mark.parametrize("name", ["linear", "yarn"])
def test_scaled_embeddings_cover_the_longer_context(name: str) -> None:
    scaling = {"type": name, **SCALINGS[name]}  # the hub's dialect
    rope = get_rope(DIM, DIM, 64, THETA, rope_scaling=scaling)
    assert rope.num_positions == 256


def test_rotation_is_in_place_and_like_transformers() -> None:
    torch.manual_seed(0)
    config = config_of("default")
    rope = get_rope_from_config(config, DIM)
    positions = torch.tensor([3, 0, 250, 17])
    q, k = torch.randn(4, 3 * DIM), torch.randn(4, DIM)
    cos, sin = LlamaRotaryEmbedding(config)(q, positions[None])
    want_q, want_k = apply_rotary_pos_emb(
        q.view(1, 4, 3, DIM), k.view(1, 4, 1, DIM), cos, sin, unsqueeze_dim=2
    )
    got_q, got_k = rope(positions, q, k)
    assert got_q is q
    assert got_k is k
    torch.testing.assert_close(q.view(4, 3, DIM), want_q[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(k.view(4, 1, DIM), want_k[0], atol=1e-5, rtol=0)


def test_offsets_shift_positions() -> None:
    rope = get_rope(DIM, DIM, 32, THETA)
    a, b = torch.randn(2, DIM), torch.randn(2, DIM)
    one = rope(torch.tensor([1, 2]), a.clone(), b.clone(), offsets=torch.tensor([4, 5]))
    two = rope(torch.tensor([5, 7]), a.clone(), b.clone())
    assert torch.equal(one[0], two[0])


def test_partial_and_interleaved_rotation() -> None:
    rope = get_rope(DIM, DIM, 32, THETA, is_neox_style=False, partial_rotary_factor=0.25)
    assert rope.rotary_dim == 16
    q, k = torch.randn(2, DIM), torch.randn(2, DIM)
    before = q.clone()
    rope(torch.tensor([0, 9]), q, k)
    assert torch.equal(q[:, 16:], before[:, 16:])
    assert torch.equal(q[0], before[0])
    cos, sin = rope.table_on(q.device)[9].chunk(2)
    pairs = before[1, :16].view(8, 2)
    want = torch.stack(
        [pairs[:, 0] * cos - pairs[:, 1] * sin, pairs[:, 1] * cos + pairs[:, 0] * sin], dim=-1
    )
    torch.testing.assert_close(q[1, :16], want.flatten(), atol=1e-6, rtol=0)


def test_layers_share_one_embedding() -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    one = get_rope(DIM, DIM, 32, 10000, rope_scaling=scaling)
    assert get_rope(DIM, DIM, 32, 10000.0, rope_scaling=dict(scaling)) is one
    assert get_rope(DIM, DIM, 32, 500000, rope_scaling=scaling) is not one
    assert not list(one.parameters())
    assert not one.state_dict()


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "magic"}, r"'magic' is not supported; known: default"),
        ({"rope_type": "linear"}, "needs a number 'factor', got None"),
        ({"rope_type": "llama3", "factor": "8"}, "needs a number 'factor', got '8'"),
    ],
)
def test_bad_scalings_are_refused(scaling: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        get_rope(DIM, DIM, 32, THETA, rope_scaling=scaling).table_on(torch.device("cpu"))


def test_odd_dimensions_are_refused() -> None:
    with pytest.raises(CheckpointError, match="must be even"):
        RotaryEmbedding(8, 7, 4, THETA)
