"""From hidden states to logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmcore.model_executor.layers.linear import apply_linear

if TYPE_CHECKING:
    from mmcore.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
    from mmcore.model_executor.sampling_metadata import SamplingMetadata

__all__ = ["LogitsProcessor"]


class LogitsProcessor(nn.Module):
    """Picks the rows that are sampled and multiplies them with the output head.

    Parameters
    ----------
    vocab_size
        Columns of the logits.
    org_vocab_size
        Columns that are kept, where the head has more rows.
    scale
        Factor of the logits.
    logits_as_input
        Whether ``forward`` is given logits instead of hidden states.
    soft_cap
        Logits become ``soft_cap * tanh(logits / soft_cap)``; None for none.
    """

    def __init__(
        self,
        vocab_size: int,
        org_vocab_size: int | None = None,
        scale: float = 1.0,
        logits_as_input: bool = False,
        soft_cap: float | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.org_vocab_size = org_vocab_size or vocab_size
        self.scale = scale
        self.logits_as_input = logits_as_input
        self.soft_cap = soft_cap

    def forward(
        self,
        lm_head: VocabParallelEmbedding,
        hidden_states: Tensor,
        sampling_metadata: SamplingMetadata | None = None,
        embedding_bias: Tensor | None = None,
    ) -> Tensor:
        """Compute logits.

        Parameters
        ----------
        lm_head
            The output head, or the embedding table that it shares.
        hidden_states
            [T, hidden].
        sampling_metadata
            Says which rows are sampled; all of them without it.
        embedding_bias
            Added to the logits, instead of the head's own bias.

        Returns
        -------
        Tensor
            [S, vocabulary].
        """
        rows = None if sampling_metadata is None else sampling_metadata.selected_token_indices
        if rows is not None:
            hidden_states = hidden_states.index_select(0, rows)
        if self.logits_as_input:
            logits = hidden_states
        else:
            bias = getattr(lm_head, "bias", None) if embedding_bias is None else embedding_bias
            logits = apply_linear(hidden_states, lm_head.weight, bias)
        logits = logits[..., : self.org_vocab_size]
        if self.soft_cap is not None:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        return logits if self.scale == 1.0 else logits * self.scale

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return f"{self.org_vocab_size}, scale={self.scale}, logits_as_input={self.logits_as_input}"
