"""M-RoPE against the rotations of transformers' Qwen2-VL and Qwen3-VL. Layer: kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmcore import ops

HEADS, KV_HEADS, DIM, TOKENS = 4, 2, 64, 50


def text_config(family: str, sections: list[int]) -> Any:
    shape = {
        "hidden_size": HEADS * DIM,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": DIM,
        "max_position_embeddings": 256,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": sections,
            "mrope_interleaved": family == "qwen3_vl",
        },
    }
    if family == "qwen2_vl":
        from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig

        return Qwen2VLTextConfig(**shape)
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

    return Qwen3VLTextConfig(**shape)


def rotated_by_transformers(
    family: str, sections: list[int], q: Tensor, k: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    config = text_config(family, sections)
    if family == "qwen2_vl":
        from transformers.models.qwen2_vl import modeling_qwen2_vl as model

        rotary = model.Qwen2VLRotaryEmbedding(config)
    else:
        from transformers.models.qwen3_vl import modeling_qwen3_vl as model

        rotary = model.Qwen3VLTextRotaryEmbedding(config)
    cos, sin = rotary(q, positions[:, None])
    q, k = (x.transpose(0, 1)[None] for x in (q, k))  # [1, heads, tokens, dim]
    if cos.dim() == 4:  # versions in which the rotation picks the axes
        apply: Any = model.apply_multimodal_rotary_pos_emb
        q, k = apply(q, k, cos, sin, sections)
    else:
        q, k = model.apply_rotary_pos_emb(q, k, cos, sin)
    return q[0].transpose(0, 1), k[0].transpose(0, 1)


def table(positions: int, dtype: torch.dtype) -> Tensor:
    frequencies = 10000.0 ** (-torch.arange(0, DIM, 2, dtype=dtype) / DIM)
    angles = torch.arange(positions, dtype=dtype)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "sections"),
    [("qwen2_vl", [8, 12, 12]), ("qwen3_vl", [12, 10, 10]), ("qwen3_vl", [16, 6, 10])],
)
def test_rotates_as_transformers_does(family: str, sections: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    q, k = torch.randn(TOKENS, HEADS, DIM).to(dtype), torch.randn(TOKENS, KV_HEADS, DIM).to(dtype)
    positions = torch.randint(0, 200, (3, TOKENS))
    want = rotated_by_transformers(family, sections, q.float(), k.float(), positions)
    ops.rope_kv_write(
        q, k, positions=positions, cos_sin=table(200, torch.float64), sections=sections,
        sections_interleaved=family == "qwen3_vl",
    )  # fmt: skip
    # In float32 the angles themselves, up to 200, are off by 200 * 2^-24.
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(q.float(), want[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(k.float(), want[1], rtol=0, atol=tolerance)
