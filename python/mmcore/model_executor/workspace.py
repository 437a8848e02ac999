"""The memory of one step besides weights and caches: activations, logits, encoder activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcore.config import ModelConfig

__all__ = ["encoder_bytes_per_row", "encoder_graph_bytes", "step_workspace_bytes"]

# Tensors of a layer that live at the same time, in multiples of their width: the residual, its
# normalised form, attention's output, the embeddings; gate, up and their product.
_HIDDEN_TENSORS = 5
_MLP_TENSORS = 3
_LOGITS_BYTES = 4 + 4  # the logits, and the sampler's copy in float32


def step_workspace_bytes(
    model_config: ModelConfig,
    *,
    dtype_bytes: int,
    num_tokens: int,
    num_logits: int,
    encoder_rows: int,
) -> int:
    """Bound the activations of a step.

    Parameters
    ----------
    num_tokens
        Tokens of the step.
    num_logits
        Rows whose logits are computed at a time.
    encoder_rows
        Embedding rows that the step encodes.
    """
    text = model_config.hf_text_config
    head_size = model_config.get_head_size()
    heads = model_config.get_num_attention_heads() + 2 * model_config.get_num_kv_heads()
    width = (
        _HIDDEN_TENSORS * model_config.get_hidden_size()
        + _MLP_TENSORS * _intermediate_size(text)
        + heads * head_size
    )
    decoder = num_tokens * width * dtype_bytes
    logits = num_logits * model_config.get_vocab_size() * _LOGITS_BYTES
    vision = getattr(model_config.hf_config, "vision_config", None)
    if vision is None:
        return decoder + logits
    vision_width = _HIDDEN_TENSORS * _hidden_size(vision) + 2 * _intermediate_size(vision)
    projector = 2 * model_config.get_hidden_size()
    # Merging patches makes a row of several patches; four is the usual number.
    encoder = encoder_rows * (4 * vision_width + projector) * dtype_bytes
    return max(decoder, encoder) + logits


def encoder_bytes_per_row(model_config: ModelConfig, dtype_bytes: int) -> int:
    """Give the bytes of one row of an encoder output."""
    return model_config.get_hidden_size() * dtype_bytes


def encoder_graph_bytes(model_config: ModelConfig, dtype_bytes: int, rows: int, pixels: int) -> int:
    """Bound what CUDA graphs of the encoder keep for themselves: inputs, activations, outputs.

    Parameters
    ----------
    rows, pixels
        Rows and numbers of the largest batch.
    """
    vision = getattr(model_config.hf_config, "vision_config", None)
    if vision is None or not rows:
        return 0
    # The layers' outputs that are asked for live on, so that a normalised copy may, too.
    width = (_HIDDEN_TENSORS + 2) * _hidden_size(vision) + 2 * _intermediate_size(vision)
    projector = 2 * model_config.get_hidden_size()
    inputs = pixels * (4 + 2 * dtype_bytes)  # as floats, in the model's type, as patches
    return rows * (width + projector) * dtype_bytes + inputs


def _hidden_size(config: Any) -> int:
    return int(getattr(config, "hidden_size", None) or getattr(config, "embed_dim", None) or 1024)


def _intermediate_size(config: Any) -> int:
    value = getattr(config, "intermediate_size", None)
    return int(value) if value else 4 * _hidden_size(config)
