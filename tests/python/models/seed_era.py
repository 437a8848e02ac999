"""A decoder written the way model files were in the seed era: nothing of mmcore's own style.

It rotates by itself, stacks weights by hand in `load_weights`, and leaves the embedding of images
to nobody. Only the import root is mmcore's.
"""

from typing import Any, Iterable, List, Optional, Tuple  # noqa: UP035

import torch
from torch import nn

from mmcore.attention import Attention, AttentionMetadata
from mmcore.config import CacheConfig
from mmcore.distributed import get_pp_group, get_tensor_model_parallel_world_size
from mmcore.model_executor.layers.activation import SiluAndMul
from mmcore.model_executor.layers.layernorm import RMSNorm
from mmcore.model_executor.layers.linear import (
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
)
from mmcore.model_executor.layers.logits_processor import LogitsProcessor
from mmcore.model_executor.layers.quantization.base_config import QuantizationConfig
from mmcore.model_executor.layers.rotary_embedding import get_rope
from mmcore.model_executor.layers.sampler import Sampler, SamplerOutput
from mmcore.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from mmcore.model_executor.model_loader.weight_utils import default_weight_loader
from mmcore.model_executor.models.utils import is_pp_missing_parameter, make_layers
from mmcore.model_executor.sampling_metadata import SamplingMetadata
from mmcore.sequence import IntermediateTensors


class OldMLP(nn.Module):
    def __init__(self, config, quant_config=None):  # type: ignore[no-untyped-def]
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(
            config.hidden_size,
            [config.intermediate_size] * 2,
            bias=False,
            quant_config=quant_config,
        )
        self.down_proj = RowParallelLinear(
            config.intermediate_size, config.hidden_size, bias=False, quant_config=quant_config
        )
        self.act_fn = SiluAndMul()

    def forward(self, x):  # type: ignore[no-untyped-def]
        gate_up, _ = self.gate_up_proj(x)
        x = self.act_fn(gate_up)
        x, _ = self.down_proj(x)
        return x


class OldAttention(nn.Module):
    def __init__(self, config, cache_config=None, quant_config=None):  # type: ignore[no-untyped-def]
        super().__init__()
        tp_size = get_tensor_model_parallel_world_size()
        self.num_heads = config.num_attention_heads // tp_size
        self.num_kv_heads = max(1, config.num_key_value_heads // tp_size)
        self.head_dim = config.head_dim
        self.q_size = self.num_heads * self.head_dim
        self.kv_size = self.num_kv_heads * self.head_dim
        self.scaling = self.head_dim**-0.5
        self.qkv_proj = QKVParallelLinear(
            config.hidden_size,
            self.head_dim,
            config.num_attention_heads,
            config.num_key_value_heads,
            bias=False,
            quant_config=quant_config,
        )
        self.o_proj = RowParallelLinear(
            self.q_size, config.hidden_size, bias=False, quant_config=quant_config
        )
        self.rotary_emb = get_rope(
            self.head_dim,
            rotary_dim=self.head_dim,
            max_position=config.max_position_embeddings,
            base=10000,
            rope_scaling=None,
        )
        self.attn = Attention(
            self.num_heads,
            self.head_dim,
            self.scaling,
            num_kv_heads=self.num_kv_heads,
            cache_config=cache_config,
            quant_config=quant_config,
        )

    def forward(
        self,
        positions: torch.Tensor,
        hidden_states: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: AttentionMetadata,
    ) -> torch.Tensor:
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        q, k = self.rotary_emb(positions, q, k)
        attn_output = self.attn(q, k, v, kv_cache, attn_metadata)
        output, _ = self.o_proj(attn_output)
        return output  # type: ignore[no-any-return]


class OldDecoderLayer(nn.Module):
    def __init__(self, config, cache_config=None, quant_config=None):  # type: ignore[no-untyped-def]
        super().__init__()
        self.self_attn = OldAttention(config, cache_config, quant_config)
        self.mlp = OldMLP(config, quant_config)
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, positions, hidden_states, kv_cache, attn_metadata, residual):  # type: ignore[no-untyped-def]
        if residual is None:
            residual = hidden_states
            hidden_states = self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        hidden_states = self.self_attn(
            positions=positions,
            hidden_states=hidden_states,
            kv_cache=kv_cache,
            attn_metadata=attn_metadata,
        )
        hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)
        hidden_states = self.mlp(hidden_states)
        return hidden_states, residual


class OldModel(nn.Module):
    def __init__(self, config, cache_config=None, quant_config=None, prefix=""):  # type: ignore[no-untyped-def]
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.start_layer, self.end_layer, self.layers = make_layers(
            config.num_hidden_layers,
            lambda prefix: OldDecoderLayer(config, cache_config, quant_config),
            prefix=f"{prefix}.layers",
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, input_ids, positions, kv_caches, attn_metadata):  # type: ignore[no-untyped-def]
        hidden_states = self.embed_tokens(input_ids)
        residual = None
        for i in range(self.start_layer, self.end_layer):
            hidden_states, residual = self.layers[i](
                positions, hidden_states, kv_caches[i - self.start_layer], attn_metadata, residual
            )
        if not get_pp_group().is_last_rank:
            return IntermediateTensors({"hidden_states": hidden_states, "residual": residual})
        hidden_states, _ = self.norm(hidden_states, residual)
        return hidden_states


class OldForCausalLM(nn.Module):
    def __init__(
        self,
        config: Any,
        cache_config: Optional[CacheConfig] = None,  # noqa: UP045
        quant_config: Optional[QuantizationConfig] = None,  # noqa: UP045
        lora_config: Any = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.quant_config = quant_config
        self.model = OldModel(config, cache_config, quant_config, prefix="model")
        self.lm_head = ParallelLMHead(
            config.vocab_size, config.hidden_size, quant_config=quant_config
        )
        self.logits_processor = LogitsProcessor(config.vocab_size)
        self.sampler = Sampler()

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        kv_caches: List[torch.Tensor],  # noqa: UP006
        attn_metadata: AttentionMetadata,
        intermediate_tensors: Optional[IntermediateTensors] = None,  # noqa: UP045
    ) -> torch.Tensor:
        return self.model(input_ids, positions, kv_caches, attn_metadata)  # type: ignore[no-any-return]

    def compute_logits(
        self, hidden_states: torch.Tensor, sampling_metadata: SamplingMetadata
    ) -> Optional[torch.Tensor]:  # noqa: UP045
        return self.logits_processor(self.lm_head, hidden_states, sampling_metadata)  # type: ignore[no-any-return]

    def sample(
        self, logits: torch.Tensor, sampling_metadata: SamplingMetadata
    ) -> Optional[SamplerOutput]:  # noqa: UP045
        return self.sampler(logits, sampling_metadata)  # type: ignore[no-any-return]

    def load_weights(self, weights: Iterable[Tuple[str, torch.Tensor]]):  # type: ignore[no-untyped-def]  # noqa: UP006
        stacked_params_mapping = [
            # (param_name, shard_name, shard_id)
            ("qkv_proj", "q_proj", "q"),
            ("qkv_proj", "k_proj", "k"),
            ("qkv_proj", "v_proj", "v"),
            ("gate_up_proj", "gate_proj", 0),
            ("gate_up_proj", "up_proj", 1),
        ]
        params_dict = dict(self.named_parameters())
        for name, loaded_weight in weights:
            if "rotary_emb.inv_freq" in name:
                continue
            for param_name, weight_name, shard_id in stacked_params_mapping:
                if weight_name not in name:
                    continue
                name = name.replace(weight_name, param_name)
                if is_pp_missing_parameter(name, self):
                    continue
                param = params_dict[name]
                weight_loader = param.weight_loader  # type: ignore[attr-defined]
                weight_loader(param, loaded_weight, shard_id)
                break
            else:
                param = params_dict[name]
                weight_loader = getattr(param, "weight_loader", default_weight_loader)
                weight_loader(param, loaded_weight)
