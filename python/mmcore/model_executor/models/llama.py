"""Llama, and the decoder that models like it are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from mmcore import ops
from mmcore.attention import Attention, AttentionMetadata
from mmcore.model_executor.layers.activation import kernel_activation
from mmcore.model_executor.layers.layernorm import RMSNorm
from mmcore.model_executor.layers.linear import (
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
)
from mmcore.model_executor.layers.logits_processor import LogitsProcessor
from mmcore.model_executor.layers.rotary_embedding import get_rope_from_config
from mmcore.model_executor.layers.sampler import Sampler, SamplerOutput
from mmcore.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from mmcore.model_executor.models.weight_mapping import AutoWeightsLoader, StackedParameter

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from mmcore.config import CacheConfig
    from mmcore.model_executor.sampling_metadata import SamplingMetadata
    from mmcore.sequence import IntermediateTensors

__all__ = [
    "AttentionVariant",
    "LlamaAttention",
    "LlamaDecoderLayer",
    "LlamaForCausalLM",
    "LlamaMLP",
    "LlamaModel",
]


@dataclass(frozen=True, slots=True)
class AttentionVariant:
    """What differs between the attention layers of Llama-like models.

    Parameters
    ----------
    qkv_bias, output_bias
        Whether these projections have a bias.
    sliding_window
        Keys that a query sees at most; None for all.
    """

    qkv_bias: bool = False
    output_bias: bool = False
    sliding_window: int | None = None


class LlamaMLP(nn.Module):
    """``down(act(gate(x)) * up(x))``, gate and up as one product."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        hidden_act: str,
        quant_config: object = None,
        bias: bool = False,
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(
            hidden_size,
            [intermediate_size] * 2,
            bias=bias,
            quant_config=quant_config,
            prefix=f"{prefix}.gate_up_proj",
        )
        self.down_proj = RowParallelLinear(
            intermediate_size,
            hidden_size,
            bias=bias,
            quant_config=quant_config,
            prefix=f"{prefix}.down_proj",
        )
        self.act = kernel_activation(hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """Transform [T, hidden]."""
        gate_up, _ = self.gate_up_proj(x)
        out: Tensor = self.down_proj(ops.activation_mul(gate_up, self.act))[0]
        return out


class LlamaAttention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(
        self,
        config: PretrainedConfig,
        variant: AttentionVariant,
        cache_config: CacheConfig | None = None,
        quant_config: object = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        heads: int = config.num_attention_heads
        kv_heads: int = getattr(config, "num_key_value_heads", None) or heads
        head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.sizes = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim]
        self.qkv_proj = QKVParallelLinear(
            config.hidden_size,
            head_dim,
            heads,
            kv_heads,
            bias=variant.qkv_bias,
            quant_config=quant_config,
            prefix=f"{prefix}.qkv_proj",
        )
        self.o_proj = RowParallelLinear(
            heads * head_dim,
            config.hidden_size,
            bias=variant.output_bias,
            quant_config=quant_config,
            prefix=f"{prefix}.o_proj",
        )
        self.attn = Attention(
            heads,
            head_dim,
            head_dim**-0.5,
            kv_heads,
            cache_config=cache_config,
            rotary=get_rope_from_config(config, head_dim),
            sliding_window=variant.sliding_window,
            prefix=f"{prefix}.attn",
        )

    def forward(
        self,
        positions: Tensor,
        hidden_states: Tensor,
        kv_cache: Tensor,
        attn_metadata: AttentionMetadata,
    ) -> Tensor:
        """Attend; [T, hidden] to [T, hidden]."""
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = qkv.split(self.sizes, dim=-1)
        attended = self.attn(q, k, v, kv_cache, attn_metadata, positions)
        out: Tensor = self.o_proj(attended)[0]
        return out


class LlamaDecoderLayer(nn.Module):
    """Attention and MLP, each behind a norm and with a residual."""

    def __init__(
        self,
        config: PretrainedConfig,
        variant: AttentionVariant,
        cache_config: CacheConfig | None = None,
        quant_config: object = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(
            config, variant, cache_config, quant_config, prefix=f"{prefix}.self_attn"
        )
        self.mlp = LlamaMLP(
            config.hidden_size,
            config.intermediate_size,
            config.hidden_act,
            quant_config,
            bias=getattr(config, "mlp_bias", False),
            prefix=f"{prefix}.mlp",
        )
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        positions: Tensor,
        hidden_states: Tensor,
        kv_cache: Tensor,
        attn_metadata: AttentionMetadata,
        residual: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Run the layer.

        Parameters
        ----------
        hidden_states
            [T, hidden]: the embeddings, or what the layer before added. Overwritten, unless they
            are the embeddings.
        residual
            The sum so far, changed in place; None in the first layer, which starts it.

        Returns
        -------
        tuple of Tensor
            What this layer adds, and the sum so far.
        """
        if residual is None:
            # The caller's embeddings must not change.
            residual = hidden_states.clone()
            hidden_states = self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        hidden_states = self.self_attn(positions, hidden_states, kv_cache, attn_metadata)
        hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)
        return self.mlp(hidden_states), residual


class LlamaModel(nn.Module):
    """The decoder without its output head.

    Parameters
    ----------
    config
        The language model's configuration.
    variants
        The attention of each layer; plain Llama's when left out.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        cache_config: CacheConfig | None = None,
        quant_config: object = None,
        variants: Iterable[AttentionVariant] | None = None,
        prefix: str = "model",
    ) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        if variants is None:
            variants = [llama_attention_variant(config)] * config.num_hidden_layers
        self.layers = nn.ModuleList(
            LlamaDecoderLayer(
                config, variant, cache_config, quant_config, prefix=f"{prefix}.layers.{i}"
            )
            for i, variant in enumerate(variants)
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """Look token ids [T] up."""
        embeds: Tensor = self.embed_tokens(input_ids)
        return embeds

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        kv_caches: list[Tensor],
        attn_metadata: AttentionMetadata,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Run all layers.

        Parameters
        ----------
        input_ids
            int [T]; not used if there are `inputs_embeds`.
        positions
            int64 [T].
        kv_caches
            One a layer.
        inputs_embeds
            [T, hidden].

        Returns
        -------
        Tensor
            [T, hidden], normalised.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("Give input_ids or inputs_embeds.")
            inputs_embeds = self.embed_input_ids(input_ids)
        hidden_states: Tensor = inputs_embeds
        residual: Tensor | None = None
        for layer, kv_cache in zip(self.layers, kv_caches, strict=True):
            hidden_states, residual = layer(
                positions, hidden_states, kv_cache, attn_metadata, residual
            )
        if residual is None:  # no layers
            return torch.as_tensor(self.norm(hidden_states))
        out: Tensor = self.norm(hidden_states, residual)[0]
        return out


def llama_attention_variant(config: PretrainedConfig) -> AttentionVariant:
    """Read what Llama's configuration says of its attention."""
    bias = bool(getattr(config, "attention_bias", False))
    return AttentionVariant(qkv_bias=bias, output_bias=bias)


class LlamaForCausalLM(nn.Module):
    """Llama with its output head; other models override :meth:`attention_variant`."""

    stacked_params_mapping: ClassVar[tuple[StackedParameter, ...]] = (
        ("qkv_proj", "q_proj", "q"),
        ("qkv_proj", "k_proj", "k"),
        ("qkv_proj", "v_proj", "v"),
        ("gate_up_proj", "gate_proj", 0),
        ("gate_up_proj", "up_proj", 1),
    )

    def __init__(
        self,
        config: PretrainedConfig,
        cache_config: CacheConfig | None = None,
        quant_config: object = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.config = config
        self.model = LlamaModel(
            config,
            cache_config,
            quant_config,
            [self.attention_variant(config, i) for i in range(config.num_hidden_layers)],
            prefix=f"{prefix}.model" if prefix else "model",
        )
        self.lm_head: VocabParallelEmbedding
        if config.tie_word_embeddings:
            self.lm_head = self.model.embed_tokens
        else:
            self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size)
        self.logits_processor = LogitsProcessor(
            config.vocab_size, scale=getattr(config, "logit_scale", 1.0)
        )
        self.sampler = Sampler()

    @staticmethod
    def attention_variant(config: PretrainedConfig, layer: int) -> AttentionVariant:
        """Say what is special about one layer's attention."""
        return llama_attention_variant(config)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """Look token ids [T] up."""
        return self.model.embed_input_ids(input_ids)

    def get_input_embeddings(self) -> VocabParallelEmbedding:
        """Give the embedding table."""
        return self.model.embed_tokens

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        kv_caches: list[Tensor],
        attn_metadata: AttentionMetadata,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Run the decoder, see :meth:`LlamaModel.forward`."""
        hidden: Tensor = self.model(
            input_ids, positions, kv_caches, attn_metadata, intermediate_tensors, inputs_embeds
        )
        return hidden

    def compute_logits(
        self, hidden_states: Tensor, sampling_metadata: SamplingMetadata | None
    ) -> Tensor:
        """Give the logits [S, vocabulary] of the rows that are sampled, or of all."""
        logits: Tensor = self.logits_processor(self.lm_head, hidden_states, sampling_metadata)
        return logits

    def sample(self, logits: Tensor, sampling_metadata: SamplingMetadata) -> SamplerOutput | None:
        """Sample one token a row of logits."""
        output: SamplerOutput | None = self.sampler(logits, sampling_metadata)
        return output

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load a checkpoint's tensors, under Hugging Face's names."""
        # A tied head may be stored all the same.
        skipped = ["lm_head."] if self.config.tie_word_embeddings else []
        loader = AutoWeightsLoader(self, skip_prefixes=skipped, stacked=self.stacked_params_mapping)
        return loader.load_weights(weights)
