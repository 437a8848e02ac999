"""A LLaVA-1.5 checkpoint without weights, of the real shape or a tiny one, and requests for it."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = [
    "ONE_B",
    "SEVEN_B",
    "TEXT_TOKENS",
    "TINY",
    "Request",
    "Requests",
    "Shape",
    "write_checkpoint",
]

TEXT_TOKENS = 65
PATCH = 14

_CONFIG: dict[str, Any] = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "dtype": "bfloat16",
    "image_token_index": 32000,
    "image_seq_length": 576,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "tie_word_embeddings": False,
    "text_config": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 32064,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 32001,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": PATCH,
        "projection_dim": 768,
    },
}
_PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's configuration, and what its requests need of it."""

    name: str
    config: dict[str, Any]

    @property
    def image_size(self) -> int:
        """Side of a picture in pixels."""
        return int(self.config["vision_config"]["image_size"])

    @property
    def image_token(self) -> int:
        """The placeholder."""
        return int(self.config["image_token_index"])

    @property
    def rows(self) -> int:
        """Embedding rows of a picture."""
        return int(self.config["image_seq_length"])


def _tiny() -> Shape:
    config = deepcopy(_CONFIG)
    config |= {"image_token_index": 500, "image_seq_length": 4}
    config["text_config"] |= {
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 501,
    }
    config["vision_config"] |= {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 2 * PATCH,
    }
    return Shape("a tiny LLaVA", config)


def _one_b() -> Shape:
    config = deepcopy(_CONFIG)
    config["text_config"] |= {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
    }
    return Shape("a LLaVA with TinyLlama-1.1B's decoder", config)


ONE_B = _one_b()
SEVEN_B = Shape("LLaVA-1.5-7B", _CONFIG)
TINY = _tiny()


def write_checkpoint(shape: Shape, folder: Path) -> None:
    """Write all of a checkpoint that is not weights."""
    side = shape.image_size
    size = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    (folder / "config.json").write_text(json.dumps(shape.config), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**_PREPROCESSOR, **size}), encoding="utf-8"
    )


@dataclass(frozen=True, slots=True)
class Request:
    """A picture, and the tokens around its placeholder."""

    picture: Image.Image
    before: list[int]
    after: list[int]


class Requests:
    """An endless row of requests that share nothing, the same in every run.

    Parameters
    ----------
    shape
        Of the model.
    picture_size
        Width and height; what the model takes when left out.
    """

    def __init__(self, shape: Shape, picture_size: tuple[int, int] | None = None) -> None:
        self._random = np.random.default_rng(0)
        self.prompt_tokens = shape.rows + TEXT_TOKENS
        self._last_token = min(31000, shape.image_token)
        self._size = picture_size or (shape.image_size, shape.image_size)

    def take(self, count: int) -> list[Request]:
        """Give the next ones."""
        width, height = self._size
        made = []
        for _ in range(count):
            pixels = self._random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            text = self._random.integers(5, self._last_token, TEXT_TOKENS - 1).tolist()
            made.append(Request(Image.fromarray(pixels), [1, *text[:4]], text[4:]))
        return made
