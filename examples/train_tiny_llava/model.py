"""A small LLaVA-1.5 in plain PyTorch: CLIP tower, GELU projector, Llama decoder.

Parameters carry the names that checkpoints on the hub use, so that a state dict is a checkpoint.
Training packs many questions about one picture into one sequence; inference does not need that
and is left to the engines.

    prefix                                   text
    <s> U S E R : _ <image> x 196            question, reply | question, reply | ... | padding
                                             branch 1          branch 2              branch 0

A text token sees the prefix and what precedes it in its own branch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .colours import NAMES
from .forms import KINDS
from .render import GRID, PATCH, SIDE
from .tokenizer import VOCABULARY

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The widths and depths; both stacks have heads of 32."""

    vision_hidden: int = 192
    vision_inner: int = 448
    vision_layers: int = 6  # LLaVA reads the output of the last but one
    vision_heads: int = 6
    hidden: int = 192
    inner: int = 384
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    vocabulary: int = VOCABULARY
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    max_positions: int = 2048

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


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


class VisionModel(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(sizes.vision_hidden)
        self.pre_layrnorm = nn.LayerNorm(sizes.vision_hidden, sizes.norm_eps)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            VisionLayer(sizes) for _ in range(sizes.vision_layers)
        )
        self.post_layernorm = nn.LayerNorm(sizes.vision_hidden, sizes.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return what LLaVA reads: the patches after the last layer but one."""
        x = self.pre_layrnorm(self.embeddings(pixels))
        for layer in list(self.encoder.layers)[:-1]:
            x = layer(x)
        return x[:, 1:]


class Projector(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(sizes.vision_hidden, sizes.hidden)
        self.linear_2 = nn.Linear(sizes.hidden, sizes.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(x)))


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
        powers = torch.arange(0, sizes.head_dim, 2) / sizes.head_dim
        angles = torch.arange(sizes.max_positions)[:, None] / sizes.rope_theta**powers
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        cos, sin = (t[positions][:, None] for t in (self.cos, self.sin))
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)


class TinyLlava(nn.Module):
    """The whole model; ``patch_kind`` and ``patch_colour`` serve the training alone."""

    def __init__(self, sizes: Sizes = Sizes()) -> None:
        super().__init__()
        self.sizes = sizes
        self.vision_tower = nn.Module()
        self.vision_tower.vision_model = VisionModel(sizes)
        self.multi_modal_projector = Projector(sizes)
        self.language_model = nn.Module()
        self.language_model.model = TextModel(sizes)
        self.language_model.lm_head = nn.Linear(sizes.hidden, sizes.vocabulary, bias=False)
        self.patch_kind = nn.Linear(sizes.vision_hidden, len(KINDS) + 1)
        self.patch_colour = nn.Linear(sizes.vision_hidden, len(NAMES) + 1)
        self.register_buffer("mean", 255 * torch.tensor(PIXEL_MEAN), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(PIXEL_STD), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                last = name.endswith(("out_proj.weight", "fc2.weight", "o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.008 if last else 0.03)

    def checkpoint(self) -> dict[str, Tensor]:
        """Return the tensors that belong into a checkpoint."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("patch_")}

    def see(self, images: Tensor) -> Tensor:
        """Return the tower's patch features [batch, patches, width] of uint8 images, channels last."""
        pixels = ((images - self.mean) / self.std).permute(0, 3, 1, 2)
        return self.vision_tower.vision_model(pixels)

    def forward(
        self, images: Tensor, opening: Tensor, text: Tensor, branch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the logits after every text token, and the tower's features.

        ``images`` is uint8 [batch, SIDE, SIDE, 3]; ``opening`` holds the tokens before the image,
        [batch, n], padded on the left with -1; ``text`` and ``branch`` are [batch, length].
        """
        features = self.see(images)
        embed = self.language_model.model.embed_tokens
        seen = self.multi_modal_projector(features).float()
        x = torch.cat((embed(opening.clamp(min=0)), seen, embed(text)), 1)
        positions, mask = attention_plan(opening, branch)
        hidden = self.language_model.model(x, positions, mask)
        start = opening.shape[1] + GRID * GRID
        return self.language_model.lm_head(hidden[:, start:]), features


def attention_plan(opening: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
    """Return the position of every token and who sees whom, [batch, 1, query, key]."""
    batch, head = opening.shape
    device = branch.device
    present = torch.cat(
        (opening >= 0, torch.ones(batch, GRID * GRID, dtype=torch.bool, device=device)), 1
    )
    group = torch.cat((torch.zeros_like(present, dtype=branch.dtype), branch), 1)
    present = torch.cat((present, branch > 0), 1)
    index = torch.arange(present.shape[1], device=device)
    shared = index < head + GRID * GRID
    mask = (group[:, :, None] == group[:, None, :]) & ~shared | shared[None, None, :]
    mask = mask & (index[:, None] >= index[None, :]) & present[:, None, :]
    mask = mask | (index[:, None] == index[None, :])  # padding sees itself: no empty row
    # A token's position counts the present ones that it sees before itself.
    positions = (mask & present[:, None, :]).sum(-1) - 1
    return positions.clamp(min=0), mask[:, None]
