"""The transformer that CLIP's and SigLIP's towers share, and their patch embedding."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from mmcore import ops
from mmcore.attention import VisionAttention
from mmcore.errors import CheckpointError, ValidationError
from mmcore.model_executor.layers.activation import kernel_activation
from mmcore.model_executor.layers.layernorm import LayerNorm
from mmcore.model_executor.layers.linear import (
    ColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
    apply_linear,
)
from mmcore.model_executor.layers.parameter import empty_parameter
from mmcore.model_executor.models.weight_mapping import AutoWeightsLoader, WeightsMapper

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = [
    "PatchEmbedding",
    "VisionEncoder",
    "VisionTower",
    "layers_needed",
    "resolve_feature_layers",
]


def resolve_feature_layers(layers: int | Sequence[int], num_hidden_layers: int) -> list[int]:
    """Translate ``vision_feature_layer`` into numbers of layers to run.

    State k is what k layers make of the embeddings, so there are ``num_hidden_layers + 1`` of them,
    and negative numbers count from the last.

    Raises
    ------
    CheckpointError
        If there is no such state.
    """
    resolved = []
    for layer in [layers] if isinstance(layers, int) else layers:
        state = layer if layer >= 0 else num_hidden_layers + 1 + layer
        if not 0 <= state <= num_hidden_layers:
            raise CheckpointError(
                f"vision_feature_layer={layer} does not exist in a tower of {num_hidden_layers} "
                "layers; correct it in config.json."
            )
        resolved.append(state)
    return resolved


def layers_needed(layers: int | Sequence[int], num_hidden_layers: int) -> int:
    """Count the layers that have to be built for ``vision_feature_layer``."""
    return max(resolve_feature_layers(layers, num_hidden_layers))


class PatchEmbedding(nn.Module):
    """One linear map of every patch: a convolution whose stride is its kernel.

    Parameters
    ----------
    channels, embed_dim
        Channels of an image, and width of an embedding.
    patch_size
        Side of a patch in pixels.
    bias
        Whether there is one.
    """

    def __init__(self, channels: int, embed_dim: int, patch_size: int, bias: bool) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.weight = empty_parameter(embed_dim, channels, patch_size, patch_size)
        self.bias = empty_parameter(embed_dim) if bias else None

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed [N, channels, H, W] as [N, rows * columns of patches, embed dim].

        Pixels beyond the last whole patch are left out.
        """
        items, channels, height, width = pixel_values.shape
        p = self.patch_size
        rows, columns = height // p, width // p
        grid = pixel_values[:, :, : rows * p, : columns * p].reshape(
            items, channels, rows, p, columns, p
        )
        patches = grid.permute(0, 2, 4, 1, 3, 5).reshape(items, rows * columns, channels * p * p)
        return apply_linear(patches, self.weight.view(self.weight.shape[0], -1), self.bias)


class VisionSelfAttention(nn.Module):
    """Attention over all patches of an image."""

    def __init__(self, config: PretrainedConfig, prefix: str = "") -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        if width % heads:
            raise CheckpointError(f"{heads} attention heads do not divide a width of {width}.")
        self.qkv_proj = QKVParallelLinear(width, width // heads, heads, prefix=f"{prefix}.qkv_proj")
        self.out_proj = RowParallelLinear(width, width, prefix=f"{prefix}.out_proj")
        self.attn = VisionAttention(heads, width // heads)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Attend; [N, patches, width] to the same."""
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = qkv.chunk(3, dim=-1)
        out: Tensor = self.out_proj(self.attn(q, k, v))[0]
        return out


class VisionMLP(nn.Module):
    """``fc2(act(fc1(x)))``."""

    def __init__(self, config: PretrainedConfig, prefix: str = "") -> None:
        super().__init__()
        self.act = kernel_activation(config.hidden_act)
        self.fc1 = ColumnParallelLinear(
            config.hidden_size, config.intermediate_size, prefix=f"{prefix}.fc1"
        )
        self.fc2 = RowParallelLinear(
            config.intermediate_size, config.hidden_size, prefix=f"{prefix}.fc2"
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Transform [N, patches, width]."""
        inner, _ = self.fc1(hidden_states)
        out: Tensor = self.fc2(ops.activation(inner, self.act, out=inner))[0]
        return out


class VisionEncoderLayer(nn.Module):
    """Attention and MLP, each behind a norm and with a residual."""

    def __init__(self, config: PretrainedConfig, prefix: str = "") -> None:
        super().__init__()
        eps = config.layer_norm_eps
        self.self_attn = VisionSelfAttention(config, prefix=f"{prefix}.self_attn")
        self.layer_norm1 = LayerNorm(config.hidden_size, eps=eps)
        self.mlp = VisionMLP(config, prefix=f"{prefix}.mlp")
        self.layer_norm2 = LayerNorm(config.hidden_size, eps=eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Transform [N, patches, width]."""
        hidden_states = self.self_attn(self.layer_norm1(hidden_states)).add_(hidden_states)
        out: Tensor = self.mlp(self.layer_norm2(hidden_states)).add_(hidden_states)
        return out


class VisionEncoder(nn.Module):
    """The layers of a tower, as many as are needed."""

    def __init__(self, config: PretrainedConfig, num_layers: int, prefix: str = "") -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            VisionEncoderLayer(config, prefix=f"{prefix}.layers.{i}") for i in range(num_layers)
        )

    def forward(self, hidden_states: Tensor, states: Collection[int]) -> dict[int, Tensor]:
        """Give the asked-for states: state k is the output of k layers."""
        found = {0: hidden_states} if 0 in states else {}
        for i, layer in enumerate(self.layers, 1):
            hidden_states = layer(hidden_states)
            if i in states:
                found[i] = hidden_states
        return found


class VisionTower(nn.Module):
    """A tower of either kind: embeddings, layers, and a norm behind the last one.

    Parameters
    ----------
    config
        The vision model's configuration.
    embeddings
        From pixels [N, channels, S, S] to [N, rows, width].
    num_hidden_layers_override
        Layers to build; all when left out. A truncated tower has no norm behind its last layer.
    """

    # On the hub the tower lies in one more module.
    _mapper = WeightsMapper(orig_to_new_prefix={"vision_model.": ""})

    def __init__(
        self,
        config: PretrainedConfig,
        embeddings: nn.Module,
        num_hidden_layers_override: int | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        total: int = config.num_hidden_layers
        count = total if num_hidden_layers_override is None else num_hidden_layers_override
        if not 0 <= count <= total:
            raise ValidationError(f"A tower of {total} layers cannot be built with {count}.")
        self.config = config
        self.embeddings = embeddings
        self.encoder = VisionEncoder(config, count, prefix=f"{prefix}.encoder")
        self.post_layernorm = (
            LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            if num_hidden_layers_override is None
            else None
        )

    def embed(self, pixel_values: Tensor) -> Tensor:
        """Give state 0."""
        embeds: Tensor = self.embeddings(pixel_values)
        return embeds

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Give the last state, normalised if the tower is whole.

        Parameters
        ----------
        pixel_values
            [N, channels, S, S]; converted to the tower's dtype.

        Returns
        -------
        Tensor
            [N, rows, width].
        """
        last = len(self.encoder.layers)
        hidden = self.hidden_states(pixel_values, [last])[0]
        if self.post_layernorm is None:
            return hidden
        out: Tensor = self.post_layernorm(hidden)
        return out

    def hidden_states(self, pixel_values: Tensor, states: Sequence[int]) -> list[Tensor]:
        """Give several states, as :func:`resolve_feature_layers` numbers them."""
        found = self.encoder(self.embed(pixel_values), set(states))
        return [found[state] for state in states]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load a checkpoint's tensors; those of layers that were not built are left out."""
        unused = [f"encoder.layers.{i}." for i in range(*self._unbuilt_layers())]
        if self.post_layernorm is None:
            unused.append("post_layernorm.")
        loader = AutoWeightsLoader(
            self,
            skip_prefixes=[*unused, "head."],
            stacked=[
                ("self_attn.qkv_proj", "self_attn.q_proj", "q"),
                ("self_attn.qkv_proj", "self_attn.k_proj", "k"),
                ("self_attn.qkv_proj", "self_attn.v_proj", "v"),
            ],
        )
        return loader.load_weights(weights, mapper=self._mapper)

    def _unbuilt_layers(self) -> tuple[int, int]:
        return len(self.encoder.layers), self.config.num_hidden_layers
