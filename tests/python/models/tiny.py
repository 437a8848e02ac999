"""Tiny Hugging Face models with random weights, their folders, and the same models in mmcore."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch import nn

from mmcore.config import ModelConfig
from mmcore.model_executor.model_loader import get_model

VOCABULARY = 160
IMAGE_TOKEN = 150
IMAGE_SIZE, PATCH_SIZE = 56, 14

_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_VISION: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
}


def llama_config(**changes: Any) -> tf.LlamaConfig:
    return tf.LlamaConfig(**{**_TEXT, **changes})


def mistral_config(**changes: Any) -> tf.MistralConfig:
    return tf.MistralConfig(**{**_TEXT, "sliding_window": None, **changes})


def qwen2_config(**changes: Any) -> tf.Qwen2Config:
    text = {k: v for k, v in _TEXT.items() if k != "head_dim"}
    return tf.Qwen2Config(**{**text, "hidden_size": 128, **changes})


def clip_config(**changes: Any) -> tf.CLIPVisionConfig:
    return tf.CLIPVisionConfig(**{**_VISION, "projection_dim": 64, **changes})


def siglip_config(**changes: Any) -> tf.SiglipVisionConfig:
    return tf.SiglipVisionConfig(**{**_VISION, "vision_use_head": False, **changes})


def llava_config(**changes: Any) -> tf.LlavaConfig:
    options: dict[str, Any] = {
        "vision_config": clip_config(),
        "text_config": llama_config(),
        "image_token_index": IMAGE_TOKEN,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    return tf.LlavaConfig(**{**options, **changes})


PINPOINTS = [[IMAGE_SIZE * h, IMAGE_SIZE * w] for h, w in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]


def llava_next_config(**changes: Any) -> tf.LlavaNextConfig:
    options: dict[str, Any] = {
        "vision_config": clip_config(),
        "text_config": mistral_config(),
        "image_token_index": IMAGE_TOKEN,
        "image_grid_pinpoints": PINPOINTS,
    }
    return tf.LlavaNextConfig(**{**options, **changes})


def randomize(model: nn.Module, seed: int) -> None:
    """Draws every parameter so that activations stay of order one and every tensor matters."""
    tied = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
    with torch.no_grad():
        for name, p in model.named_parameters():
            generator = torch.Generator().manual_seed(seed * 2**32 + zlib.crc32(name.encode()))
            z = torch.randn(p.shape, generator=generator)
            if p.dim() == 1:
                p.copy_(0.1 * z + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
                if name.endswith(("class_embedding", "image_newline")):
                    p.copy_(z)
            elif p.dim() == 2 and "embed" in name:
                # A table that is the output head too would give logits of the hidden size.
                p.copy_(z / p.shape[1] ** 0.5 if tied else z)
            else:
                p.copy_(1.5 * z / p[0].numel() ** 0.5)


def make(config: tf.PretrainedConfig, seed: int = 0) -> Any:
    """Makes the Hugging Face model of a configuration, in float32."""
    auto: Any = (
        tf.AutoModelForImageTextToText
        if hasattr(config, "vision_config")
        else tf.AutoModelForCausalLM
    )
    model = auto.from_config(config, attn_implementation="eager").float().eval()
    randomize(model, seed)
    model.tie_weights()
    return model


def save(model: Any, folder: Path, *, hub: bool = False, shards: bool = False) -> Path:
    """Writes a checkpoint as transformers 5 does, or as those on the hub are."""
    model.save_pretrained(folder, max_shard_size="60KB" if shards else "50GB")
    if hub:
        _to_hub_style(folder)
    return folder


def _to_hub_style(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(_hub_config(json.loads(path.read_text()))))
    path = folder / "model.safetensors"
    old = "vision_tower."
    tensors = {
        name.replace(old, f"{old}vision_model.", 1) if name.startswith(old) else name: tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def _hub_config(config: dict[str, Any]) -> dict[str, Any]:
    config = {k: _hub_config(v) if k.endswith("_config") else v for k, v in config.items()}
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    rope = config.pop("rope_parameters", None)
    if rope is not None:
        config["rope_theta"] = rope.pop("rope_theta")
        kind = rope.pop("rope_type")
        if kind != "default":
            config["rope_scaling"] = {"type": kind, **rope}
    return config


def load(folder: Path, dtype: str = "float32", **options: Any) -> tuple[Any, ModelConfig]:
    """Loads a folder into mmcore's model."""
    config = ModelConfig(str(folder), dtype=dtype, **options)
    return get_model(config), config


def both(config: tf.PretrainedConfig, folder: Path, **options: Any) -> tuple[Any, Any]:
    """Makes a Hugging Face model, and mmcore's from its checkpoint."""
    reference = make(config)
    return reference, load(save(reference, folder, **options))[0]


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    """Gives the largest difference."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return (a.float() - b.float()).abs().max().item()
