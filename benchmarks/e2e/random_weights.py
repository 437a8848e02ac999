"""A LLaVA-1.5 checkpoint with random weights: of the real size, for programs that read files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.e2e.llava_requests import Shape, write_checkpoint

__all__ = ["write_random_checkpoint"]

_DEVIATION = 0.02


def _linear(name: str, rows: int, columns: int, *, bias: bool) -> Iterator[tuple[str, list[int]]]:
    yield f"{name}.weight", [rows, columns]
    if bias:
        yield f"{name}.bias", [rows]


def _norm(name: str, width: int) -> Iterator[tuple[str, list[int]]]:
    yield f"{name}.weight", [width]
    yield f"{name}.bias", [width]


def _tower(vision: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    tower = "vision_tower.vision_model"
    rows = (vision["image_size"] // patch) ** 2 + 1
    yield f"{tower}.embeddings.class_embedding", [width]
    yield f"{tower}.embeddings.patch_embedding.weight", [width, 3, patch, patch]
    yield f"{tower}.embeddings.position_embedding.weight", [rows, width]
    yield from _norm(f"{tower}.pre_layrnorm", width)
    yield from _norm(f"{tower}.post_layernorm", width)
    for i in range(vision["num_hidden_layers"]):
        layer = f"{tower}.encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{name}", width, width, bias=True)
        yield from _norm(f"{layer}.layer_norm1", width)
        yield from _norm(f"{layer}.layer_norm2", width)
        yield from _linear(f"{layer}.mlp.fc1", inner, width, bias=True)
        yield from _linear(f"{layer}.mlp.fc2", width, inner, bias=True)


def _decoder(text: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    width, inner, heads = (
        text["hidden_size"],
        text["intermediate_size"],
        text["num_attention_heads"],
    )
    kv = width // heads * text["num_key_value_heads"]
    model = "language_model.model"
    yield f"{model}.embed_tokens.weight", [text["vocab_size"], width]
    for i in range(text["num_hidden_layers"]):
        layer = f"{model}.layers.{i}"
        for name, rows in (("q_proj", width), ("k_proj", kv), ("v_proj", kv), ("o_proj", width)):
            yield from _linear(f"{layer}.self_attn.{name}", rows, width, bias=False)
        for name in ("gate_proj", "up_proj"):
            yield from _linear(f"{layer}.mlp.{name}", inner, width, bias=False)
        yield from _linear(f"{layer}.mlp.down_proj", width, inner, bias=False)
        yield f"{layer}.input_layernorm.weight", [width]
        yield f"{layer}.post_attention_layernorm.weight", [width]
    yield f"{model}.norm.weight", [width]
    yield "language_model.lm_head.weight", [text["vocab_size"], width]


def write_random_checkpoint(shape: Shape, folder: Path) -> None:
    """Write a checkpoint in bfloat16, without a tokenizer."""
    write_checkpoint(shape, folder)
    text, vision = shape.config["text_config"], shape.config["vision_config"]
    width = text["hidden_size"]
    projector = "multi_modal_projector"
    shapes = [
        *_tower(vision),
        *_linear(f"{projector}.linear_1", width, vision["hidden_size"], bias=True),
        *_linear(f"{projector}.linear_2", width, width, bias=True),
        *_decoder(text),
    ]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    tensors = {}
    for name, size in shapes:
        tensor = torch.empty(size, dtype=torch.bfloat16, device=device).normal_(std=_DEVIATION)
        if "norm" in name and name.endswith("weight"):
            tensor.fill_(1)
        tensors[name] = tensor.cpu()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
