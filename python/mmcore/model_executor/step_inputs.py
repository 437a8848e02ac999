"""A step's arrays as tensors: what a model computes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from mmcore.attention import AttentionMetadata

if TYPE_CHECKING:
    from mmcore import _C

__all__ = [
    "HostInputs",
    "PlanReader",
    "StepInputs",
    "all_of",
    "attention_metadata",
    "fill_unknown",
    "media_mask",
]

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

    def read(self, plan: _C.StepPlan, before: torch.Tensor | None = None) -> StepInputs:
        """Give a plan's tensors; they are valid while the step runs.

        Parameters
        ----------
        before
            int64: what the step before it samples, if the plan has unknown tokens.
        """
        ...


class HostInputs:
    """Views of the core's memory, for a model on the CPU."""

    def read(self, plan: _C.StepPlan, before: torch.Tensor | None = None) -> StepInputs:
        """Give a plan's tensors, most of them without a copy."""
        mask = media_mask(plan)
        token_ids = torch.from_numpy(plan.token_ids).long()
        if before is not None:
            sources = plan.token_sources
            fill_unknown(token_ids, torch.from_numpy(sources).long(), before, all_of(sources))
        return StepInputs(
            token_ids=token_ids,
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


def all_of(sources: Array) -> bool:
    """Tell whether no token of a plan is known."""
    return bool((sources >= 0).all())


def fill_unknown(
    token_ids: torch.Tensor, sources: torch.Tensor, before: torch.Tensor, all_unknown: bool
) -> None:
    """Put the tokens that the step before samples where they are unknown, without waiting.

    Parameters
    ----------
    token_ids
        int64 [T], changed in place.
    sources
        int64 [T]: for each row an index into `before`, or -1 where the token is known.
    """
    if all_unknown:
        torch.index_select(before, 0, sources, out=token_ids)
    else:
        found = before.index_select(0, sources.clamp(min=0))
        token_ids.copy_(torch.where(sources < 0, token_ids, found))


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
