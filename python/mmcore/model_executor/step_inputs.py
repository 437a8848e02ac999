"""A step's arrays as tensors: what a model computes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from mmcore.attention import AttentionMetadata

if TYPE_CHECKING:
    from mmcore import _C

__all__ = ["HostInputs", "PlanReader", "StepInputs", "attention_metadata", "media_mask"]

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class StepInputs:
    """What a step computes with.

    Parameters
    ----------
    token_ids, positions
        int64 [T].
    attention
        Where the rows belong.
    sample_rows
        int64 [S]: rows whose logits are sampled.
    media_rows
        bool [T]: rows that stand for media; None without any.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    attention: AttentionMetadata
    sample_rows: torch.Tensor
    media_rows: torch.Tensor | None = None


class PlanReader(Protocol):
    """Turns plans into tensors."""

    def read(self, plan: _C.StepPlan) -> StepInputs:
        """Give a plan's tensors; they are valid while the step runs."""
        ...


class HostInputs:
    """Views of the core's memory, for a model on the CPU."""

    def read(self, plan: _C.StepPlan) -> StepInputs:
        """Give a plan's tensors, most of them without a copy."""
        mask = media_mask(plan)
        return StepInputs(
            token_ids=torch.from_numpy(plan.token_ids).long(),
            positions=torch.from_numpy(plan.positions),
            attention=attention_metadata(
                plan,
                slot_mapping=torch.from_numpy(plan.slot_mapping),
                query_start=torch.from_numpy(plan.query_start),
                seq_lens=torch.from_numpy(plan.seq_lens),
                block_tables=torch.from_numpy(plan.block_tables),
            ),
            sample_rows=torch.from_numpy(plan.sample_rows).long(),
            media_rows=None if mask is None else torch.from_numpy(mask),
        )


def attention_metadata(plan: _C.StepPlan, **tensors: Any) -> AttentionMetadata:
    """Describe a plan's rows, with these tensors."""
    num_prefill_tokens = plan.num_prefill_tokens
    return AttentionMetadata(
        num_prefills=plan.num_prefills,
        num_prefill_tokens=num_prefill_tokens,
        num_decode_tokens=plan.num_tokens - num_prefill_tokens,
        max_query_len=plan.max_query_len,
        max_seq_len=plan.max_seq_len,
        **tensors,
    )


def media_mask(plan: _C.StepPlan) -> Array | None:
    """Mark the rows that stand for media, bool [T]; None without any."""
    media = plan.embeddings
    if not len(media):
        return None
    mask = np.zeros(plan.num_tokens, dtype=np.bool_)
    for _, _, _, _, target, rows in media.tolist():
        mask[target : target + rows] = True
    return mask
