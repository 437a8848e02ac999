"""Mistral: Llama with a sliding window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmcore.model_executor.models.llama import AttentionVariant, LlamaForCausalLM

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["MistralForCausalLM"]


class MistralForCausalLM(LlamaForCausalLM):
    """Mistral with its output head. Every layer sees the window, if there is one."""

    @staticmethod
    def attention_variant(config: PretrainedConfig, layer: int) -> AttentionVariant:
        """Give every layer the configuration's window."""
        return AttentionVariant(sliding_window=getattr(config, "sliding_window", None))
