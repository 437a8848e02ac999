"""One run of the model on its registered dummy data, to check the memory plan before serving.

Dummy data are an upper bound by contract: as many items as the limits allow, each of the largest
size. The run shows that the model can take them and that the registered token counts hold. On a
GPU it also measures the peak; on a CPU only as many tokens run as the media need.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmcore.attention import AttentionMetadata
from mmcore.errors import ValidationError
from mmcore.inputs import INPUT_REGISTRY, token_inputs
from mmcore.model_executor.encoder_runner import EncodeJob, EncoderRunner
from mmcore.model_executor.forward_signature import required_media_arguments
from mmcore.model_executor.models.interfaces import supports_encoder_split
from mmcore.model_executor.sampling_metadata import SamplingMetadata
from mmcore.multimodal import MULTIMODAL_REGISTRY, MultiModalInputs
from mmcore.multimodal.items import split_items
from mmcore.multimodal.placeholders import PlaceholderRange, find_item_ranges

if TYPE_CHECKING:
    from torch import nn

    from mmcore.config import ModelConfig
    from mmcore.inputs import DummyData
    from mmcore.model_executor.media_mapper import MediaMapper

__all__ = ["ProfileResult", "profile_run"]

logger = logging.getLogger(__name__)

_TEXT_TOKENS = 16


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """What the run found.

    Parameters
    ----------
    num_tokens
        Tokens that ran.
    logits_size
        Columns of the logits.
    peak_bytes
        Memory that the run took besides what was there before; None where it cannot be measured.
    """

    num_tokens: int
    logits_size: int
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _DummyItem:
    modality: str
    data: Any
    span: PlaceholderRange
    content_id: bytes = b""
    processor_kwargs: Mapping[str, Any] | None = None


@torch.inference_mode()
def profile_run(
    model: nn.Module,
    model_config: ModelConfig,
    mapper: MediaMapper | None,
    kv_caches: list[torch.Tensor],
    device: torch.device,
    *,
    max_num_batched_tokens: int,
    placeholder_ids: Mapping[str, int],
) -> ProfileResult:
    """Run the model once.

    Parameters
    ----------
    kv_caches
        A tensor without elements for each layer.
    placeholder_ids
        The placeholder token of each modality.

    Raises
    ------
    ValidationError
        If the dummy data break the model's registered token counts.
    """
    on_gpu = device.type == "cuda"
    seq_len = _sequence_length(model_config, mapper, max_num_batched_tokens if on_gpu else 0)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if on_gpu else 0

    dummy = INPUT_REGISTRY.dummy_data_for_profiling(model_config, seq_len, MULTIMODAL_REGISTRY)
    token_ids = torch.tensor(dummy.seq_data.prompt_token_ids, dtype=torch.long, device=device)
    inputs: dict[str, Any] = {}
    if mapper is not None:
        items = _items(model_config, dummy, placeholder_ids)
        inputs = _media_inputs(model, mapper, items, token_ids)
    num_tokens = len(token_ids)
    positions = torch.arange(num_tokens, device=device).clamp_(max=model_config.max_model_len - 1)
    metadata = AttentionMetadata.without_cache([num_tokens], device)
    hidden = model(token_ids, positions, kv_caches, metadata, **inputs)
    last = torch.tensor([num_tokens - 1], device=device)
    logits: torch.Tensor = model.compute_logits(  # type: ignore[operator]
        hidden, SamplingMetadata(None, last)
    )
    if logits.ndim != 2 or logits.shape[0] != 1:
        raise ValidationError(
            f"compute_logits gave {tuple(logits.shape)} for one selected row; expected "
            "(1, vocabulary).",
            code="invalid_model",
        )
    peak = torch.cuda.max_memory_allocated(device) - before if on_gpu else None
    return ProfileResult(num_tokens, int(logits.shape[1]), peak)


def _sequence_length(model_config: ModelConfig, mapper: MediaMapper | None, least: int) -> int:
    media = 0
    if mapper is not None:
        media = MULTIMODAL_REGISTRY.get_max_multimodal_tokens(model_config)
        if media >= model_config.max_model_len:
            logger.warning(
                "As many media items as the limits allow take %d tokens, but max_model_len is %d: "
                "prompts with that many large items will be refused.",
                media,
                model_config.max_model_len,
            )
    return max(least, media + _TEXT_TOKENS)


def _items(
    model_config: ModelConfig, dummy: DummyData, placeholder_ids: Mapping[str, int]
) -> list[_DummyItem]:
    """Match the dummy items with their placeholders, and check the registered counts."""
    data = dummy.multi_modal_data or {}
    split = split_items(data)
    if not split:
        return []
    ids = list(dummy.seq_data.prompt_token_ids)
    counts: dict[str, int] = {}
    for item in split:
        counts[item.modality] = counts.get(item.modality, 0) + 1
    inputs = token_inputs(ids, multi_modal_placeholders=dummy.multi_modal_placeholders)
    ranges = find_item_ranges(inputs, ids, counts, placeholder_ids)
    most = MULTIMODAL_REGISTRY.get_max_tokens_per_item(model_config)
    items = []
    for item in split:
        span = ranges[item.modality][item.index]
        if span.num_embeds > most[item.modality]:
            raise ValidationError(
                f"The model's dummy data use {span.num_embeds} tokens for one {item.modality}, "
                f"but the registered maximum is {most[item.modality]}; the maximum must be an "
                "upper bound.",
                code="invalid_model",
            )
        items.append(_DummyItem(item.modality, item.data, span))
    return sorted(items, key=lambda item: item.span.offset)


def _media_inputs(
    model: Any, mapper: MediaMapper, items: Sequence[_DummyItem], token_ids: torch.Tensor
) -> dict[str, Any]:
    split: bool = supports_encoder_split(model)
    if not split:
        inputs: dict[str, Any] = dict(required_media_arguments(model))
        if items:
            batch = MultiModalInputs.batch([mapper.map(items)])
            inputs.update(MultiModalInputs.as_kwargs(batch, device=token_ids.device))
        return inputs
    if not items:
        return {}
    encoder = EncoderRunner(model, mapper, token_ids.device)
    jobs = [EncodeJob(0, slot, item.span.num_embeds, item) for slot, item in enumerate(items)]
    for _, error in encoder.encode(jobs):
        raise error
    mask = torch.zeros(len(token_ids), dtype=torch.bool)
    for item in items:
        embed = item.span.is_embed
        mask[item.span.offset : item.span.end] = True if embed is None else torch.tensor(embed)
    pieces = [encoder.rows(job.slot, 0, job.num_rows) for job in jobs]
    return {
        "inputs_embeds": model.embed_input_ids(
            token_ids, pieces, is_multimodal=mask.to(token_ids.device)
        )
    }
