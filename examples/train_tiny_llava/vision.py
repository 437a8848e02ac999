"""The CLIP tower and the projector, under the names that hub checkpoints use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .render import GRID, PATCH
from .sizes import Sizes


class VisionAttention(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.vision_hidden
        self.heads = sizes.vision_heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class VisionMlp(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.vision_hidden, sizes.vision_inner)
        self.fc2 = nn.Linear(sizes.vision_inner, sizes.vision_hidden)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc1(x)
        return self.fc2(y * torch.sigmoid(1.702 * y))  # CLIP's "quick" GELU


class VisionLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn, self.mlp = VisionAttention(sizes), VisionMlp(sizes)
        self.layer_norm1 = nn.LayerNorm(sizes.vision_hidden, sizes.norm_eps)
        self.layer_norm2 = nn.LayerNorm(sizes.vision_hidden, sizes.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class VisionEmbeddings(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(width) * 0.02)
        self.patch_embedding = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.position_embedding = nn.Embedding(GRID * GRID + 1, width)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat((first, patches), 1) + self.position_embedding.weight


class VisionEncoder(nn.Module):
    """The stack of layers; the last one, which LLaVA does not read, is not run."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(sizes) for _ in range(sizes.vision_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x)
        return x


class VisionModel(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(sizes.vision_hidden)
        self.pre_layrnorm = nn.LayerNorm(sizes.vision_hidden, sizes.norm_eps)
        self.encoder = VisionEncoder(sizes)
        self.post_layernorm = nn.LayerNorm(sizes.vision_hidden, sizes.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return what LLaVA reads: the patches after the last layer but one."""
        x = self.pre_layrnorm(self.embeddings(pixels))
        return self.encoder(x)[:, 1:]


class VisionTower(nn.Module):
    """A level that exists in checkpoints' names."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.vision_model = VisionModel(sizes)


class Projector(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(sizes.vision_hidden, sizes.hidden)
        self.linear_2 = nn.Linear(sizes.hidden, sizes.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(x)))
