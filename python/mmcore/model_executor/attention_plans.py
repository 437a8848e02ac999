"""Plans of a step's attention on a GPU: one for each kind of attention layer that a model has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmcore import ops
from mmcore.attention import Attention, AttentionKind, AttentionPlan

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

__all__ = ["AttentionPlanner"]


class AttentionPlanner:
    """Divides a step's attention over a GPU, on the host, once for all layers.

    Parameters
    ----------
    model
        Whose attention layers are looked for.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        layers = (module for module in model.modules() if isinstance(module, Attention))
        self._kinds: list[AttentionKind] = list(dict.fromkeys(layer.kind for layer in layers))
        self._multiprocessors = 1
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            self._multiprocessors = properties.multi_processor_count
        # Layers run one after the other and share the memory; it depends on no lengths.
        sizes = [shape.workspace_bytes for shape in self._shapes(1, 1, 0)]
        self._workspace = torch.empty(max([0, *sizes]), dtype=torch.uint8, device=device)

    def sizes(self, sequences: int, tokens: int, max_query_len: int) -> list[int]:
        """Give the int32 words of each plan for batches of so many sequences and rows.

        Parameters
        ----------
        max_query_len
            Most rows of a sequence; 0 for any number.
        """
        return [
            max(0, shape.plan_words) for shape in self._shapes(sequences, tokens, max_query_len)
        ]

    def write(
        self,
        targets: Sequence[torch.Tensor],
        query_start: np.ndarray[Any, Any],
        seq_lens: np.ndarray[Any, Any],
        shape: tuple[int, int, int],
        *,
        settled: bool = False,
    ) -> None:
        """Write each plan to its place.

        Parameters
        ----------
        targets
            int32 tensors of :meth:`sizes`, on the CPU.
        query_start, seq_lens
            Of the sequences that there are.
        shape
            The arguments of :meth:`sizes`.
        settled
            Whether no sequence shares a block with another that fills it in this step.
        """
        for plan, target in zip(self._shapes(*shape), targets, strict=True):
            plan.plan(query_start, seq_lens, target, settled=settled)

    def plans(
        self, words: Sequence[torch.Tensor], max_query_len: int
    ) -> Mapping[AttentionKind, AttentionPlan]:
        """Name the plans, which are on the GPU now, for the layers."""
        return {
            kind: AttentionPlan(tensor, self._workspace, max_query_len)
            for kind, tensor in zip(self._kinds, words, strict=True)
        }

    def _shapes(
        self, sequences: int, tokens: int, max_query_len: int
    ) -> list[ops.AttentionPlanShape]:
        return [
            ops.AttentionPlanShape(
                sequences=sequences,
                tokens=tokens,
                max_query_len=max_query_len,
                heads=kind.num_heads,
                kv_heads=kind.num_kv_heads,
                head_dim=kind.head_size,
                window=kind.window,
                causal=True,
                multiprocessors=self._multiprocessors,
            )
            for kind in self._kinds
        ]
