"""The Llama decoder, under the names that hub checkpoints use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sizes import Sizes


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply Llama's rotary position embedding: the halves of a head are the pairs."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class TextAttention(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.head_dim, self.groups = sizes.head_dim, sizes.heads // sizes.kv_heads
        self.q_proj = nn.Linear(sizes.hidden, sizes.heads * sizes.head_dim, bias=False)
        self.k_proj = nn.Linear(sizes.hidden, sizes.kv_heads * sizes.head_dim, bias=False)
        self.v_proj = nn.Linear(sizes.hidden, sizes.kv_heads * sizes.head_dim, bias=False)
        self.o_proj = nn.Linear(sizes.heads * sizes.head_dim, sizes.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            p(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        cos, sin = cos.to(q.dtype), sin.to(q.dtype)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(self.groups, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class TextMlp(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.hidden, sizes.inner, bias=False)
        self.up_proj = nn.Linear(sizes.hidden, sizes.inner, bias=False)
        self.down_proj = nn.Linear(sizes.inner, sizes.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class TextLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn, self.mlp = TextAttention(sizes), TextMlp(sizes)
        self.input_layernorm = nn.RMSNorm(sizes.hidden, sizes.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(sizes.hidden, sizes.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class TextModel(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(sizes.vocabulary, sizes.hidden)
        self.layers = nn.ModuleList(TextLayer(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.hidden, sizes.norm_eps)
        self.cos: Tensor
        self.sin: Tensor
        powers = torch.arange(0, sizes.head_dim, 2) / sizes.head_dim
        angles = torch.arange(sizes.max_positions)[:, None] / sizes.rope_theta**powers
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        cos, sin = (t[positions][:, None] for t in (self.cos, self.sin))
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)


class Decoder(nn.Module):
    """The text model and the head that scores the vocabulary."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.model = TextModel(sizes)
        self.lm_head = nn.Linear(sizes.hidden, sizes.vocabulary, bias=False)
