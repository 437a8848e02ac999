"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.model_executor.models.llama import AttentionVariant, LlamaForCausalLM

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["Qwen2ForCausalLM"]


class Qwen2ForCausalLM(LlamaForCausalLM):
    """Qwen2 with its output head. Some checkpoints have a window in their upper layers."""

    @staticmethod
    def attention_variant(config: PretrainedConfig, layer: int) -> AttentionVariant:
        """Give layers of the kind ``sliding_attention`` the configuration's window."""
        kinds = getattr(config, "layer_types", None)
        slides = kinds is not None and kinds[layer] == "sliding_attention"
        window = getattr(config, "sliding_window", None) if slides else None
        return AttentionVariant(qkv_bias=True, sliding_window=window)
