"""What model files share: merging embeddings, building inner models, loading weights by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmcore import ops
from mmcore.errors import CheckpointError
from mmcore.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from mmcore.model_executor.model_loader.construction import construct_model
from mmcore.model_executor.models.registry import ModelRegistry
from mmcore.model_executor.models.weight_mapping import (
    AutoWeightsLoader,
    StackedParameter,
    UnexpectedTensorError,
    WeightsMapper,
)
from mmcore.sequence import IntermediateTensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from mmcore.config import CacheConfig, MultiModalConfig, SchedulerConfig
    from mmcore.multimodal import NestedTensors

__all__ = [
    "AutoWeightsLoader",
    "StackedParameter",
    "UnexpectedTensorError",
    "WeightsMapper",
    "embed_with_media",
    "flatten_bn",
    "init_mmcore_registered_model",
    "init_vllm_registered_model",
    "is_pp_missing_parameter",
    "make_empty_intermediate_tensors_factory",
    "make_layers",
    "maybe_prefix",
    "merge_multimodal_embeddings",
]


def flatten_bn(x: Any, *, concat: bool = False) -> Any:
    """Join the first two dimensions, prompts and items, of what ``MultiModalInputs.batch`` gives.

    Parameters
    ----------
    x
        [B, N, ...], or a list of B tensors [N_i, ...] or of B lists of tensors.
    concat
        Join a list to one tensor.

    Returns
    -------
    Tensor or list of Tensor
        [B * N, ...], or a list of all items.
    """
    if isinstance(x, Tensor):
        return x.flatten(0, 1)
    if concat:
        return torch.cat(
            [prompt if isinstance(prompt, Tensor) else torch.cat(prompt) for prompt in x]
        )
    return [item for prompt in x for item in prompt]


def merge_multimodal_embeddings(
    input_ids: Tensor,
    inputs_embeds: Tensor,
    multimodal_embeddings: NestedTensors,
    placeholder_token_id: int | Sequence[int],
) -> Tensor:
    """Overwrite the embeddings of placeholder tokens, in place and in order.

    Parameters
    ----------
    input_ids
        [T].
    inputs_embeds
        [T, hidden].
    multimodal_embeddings
        Tensors [..., hidden], nested in any way.
    placeholder_token_id
        The id, or several ids, of placeholders.

    Returns
    -------
    Tensor
        `inputs_embeds`.

    Raises
    ------
    ValueError
        If there are more or fewer embeddings than placeholders.
    """
    if isinstance(placeholder_token_id, int):
        mask = input_ids == placeholder_token_id
    else:
        mask = torch.isin(
            input_ids, torch.tensor(list(placeholder_token_id), device=input_ids.device)
        )
    flat = _flatten_embeddings(multimodal_embeddings)
    _check_counts(int(mask.sum()), flat.shape[0], multimodal_embeddings)
    inputs_embeds[mask] = flat.to(inputs_embeds.dtype)
    return inputs_embeds


def embed_with_media(
    embedding: nn.Module,
    input_ids: Tensor,
    multimodal_embeddings: NestedTensors | Sequence[Tensor] | None,
    is_multimodal: Tensor,
) -> Tensor:
    """Embed tokens, taking the rows of media from their embeddings.

    The ids of media tokens are not looked up.

    Parameters
    ----------
    embedding
        The language model's embedding table.
    input_ids
        int [T].
    multimodal_embeddings
        Tensors [rows, hidden] in the order of the prompt; None or empty for text only.
    is_multimodal
        bool [T]: which tokens stand for media, on any device.

    Raises
    ------
    ValueError
        If there are more or fewer embeddings than tokens that stand for media. A mask on a GPU is
        not counted, since that would wait for all that the GPU has to do before.
    """
    if multimodal_embeddings is None or len(multimodal_embeddings) == 0:
        embeds: Tensor = embedding(input_ids)
        return embeds
    media = _flatten_embeddings(multimodal_embeddings)
    rows = is_multimodal.cumsum(0)
    # Nothing out of range may ever be read.
    if is_multimodal.is_cuda:
        rows.clamp_(max=media.shape[0])
    else:
        _check_counts(int(rows[-1]) if len(rows) else 0, media.shape[0], multimodal_embeddings)
    if isinstance(embedding, VocabParallelEmbedding):
        source = torch.where(is_multimodal, rows - 1, -1).to(input_ids.device)
        table = embedding.weight
        return ops.embedding_merge(input_ids, table, source, media.to(table.dtype))
    mask = is_multimodal.to(input_ids.device)
    embeds = embedding(input_ids.masked_fill(mask, 0))
    embeds[mask] = media.to(embeds.dtype)
    return embeds


def _flatten_embeddings(embeddings: NestedTensors | Sequence[Tensor]) -> Tensor:
    """Join nested embeddings to [rows, hidden]."""
    if isinstance(embeddings, Tensor):
        return embeddings.flatten(0, -2)
    flat = [_flatten_embeddings(part) for part in embeddings]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def _check_counts(
    placeholders: int, rows: int, embeddings: NestedTensors | Sequence[Tensor]
) -> None:
    if rows != placeholders:
        raise ValueError(
            f"Attempted to assign {_count_expression(embeddings)} = {rows} multimodal tokens "
            f"to {placeholders} placeholders"
        )


def _count_expression(embeddings: NestedTensors | Sequence[Tensor]) -> str:
    """Write how many rows there are as a sum of products: ``1 x 576``, ``841 + 1032``."""
    if isinstance(embeddings, Tensor):
        return " x ".join(str(size) for size in embeddings.shape[:-1])
    return " + ".join(_count_expression(part) for part in embeddings)


def init_mmcore_registered_model(
    hf_config: PretrainedConfig,
    cache_config: CacheConfig | None = None,
    quant_config: object = None,
    lora_config: object = None,
    multimodal_config: MultiModalConfig | None = None,
    scheduler_config: SchedulerConfig | None = None,
    *,
    tie_word_embeddings: bool | None = None,
    prefix: str = "",
) -> nn.Module:
    """Make the model that is registered for a configuration, such as a ``text_config``.

    Parameters
    ----------
    hf_config
        The inner model's configuration. Where it does not name its architecture, the causal
        language model of its ``model_type`` is taken.
    tie_word_embeddings
        Overrides the configuration's: some outer models decide it.

    Raises
    ------
    ValidationError
        If no class is registered.
    """
    if tie_word_embeddings is not None and tie_word_embeddings != hf_config.tie_word_embeddings:
        hf_config = copy.copy(hf_config)
        hf_config.tie_word_embeddings = tie_word_embeddings
    architectures = list(getattr(hf_config, "architectures", None) or ())
    if not architectures:
        architectures = [_causal_architecture(hf_config.model_type)]
    return construct_model(
        ModelRegistry.resolve_model_cls(architectures)[0],
        hf_config,
        cache_config=cache_config,
        quant_config=quant_config,
        lora_config=lora_config,
        multimodal_config=multimodal_config,
        scheduler_config=scheduler_config,
        prefix=prefix,
    )


# The name that seed-era model files import.
init_vllm_registered_model = init_mmcore_registered_model


def _causal_architecture(model_type: str) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    if not isinstance(name, str):
        raise CheckpointError(
            f"The language model's configuration names no architecture, and its model_type "
            f"{model_type!r} is not known as a language model."
        )
    return name


# Names that seed-era model files use to be cut over devices. There is one stage here.


def maybe_prefix(prefix: str, name: str) -> str:
    """Join the names of a module and its child."""
    return f"{prefix}.{name}" if prefix else name


def make_layers(
    num_hidden_layers: int, layer_fn: Callable[..., nn.Module], prefix: str = ""
) -> tuple[int, int, nn.ModuleList]:
    """Make all layers; gives the first one's number, the number after the last, and the layers."""
    layers = nn.ModuleList(
        layer_fn(prefix=maybe_prefix(prefix, str(i))) for i in range(num_hidden_layers)
    )
    return 0, num_hidden_layers, layers


def is_pp_missing_parameter(name: str, model: nn.Module) -> bool:
    """Tell whether a parameter lives in another stage: never."""
    return False


def make_empty_intermediate_tensors_factory(
    keys: Sequence[str], hidden_size: int
) -> Callable[[int, torch.dtype, torch.device], IntermediateTensors]:
    """Give a function that makes the tensors which a stage gets from the one before."""

    def make(batch_size: int, dtype: torch.dtype, device: torch.device) -> IntermediateTensors:
        shape = (batch_size, hidden_size)
        return IntermediateTensors(
            {key: torch.zeros(shape, dtype=dtype, device=device) for key in keys}
        )

    return make
