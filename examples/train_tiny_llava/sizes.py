"""How wide and deep the model is, and what its pixels are."""

from __future__ import annotations

from dataclasses import dataclass

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
        """Return the width of one attention head of the decoder."""
        return self.hidden // self.heads


DEFAULT = Sizes()
