"""The embedding table, and the output head that may share it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcore import ops
from mmcore.errors import ValidationError
from mmcore.model_executor.layers.parameter import (
    copy_weight,
    empty_parameter,
    record_loaded,
    set_weight_attrs,
)

__all__ = ["DEFAULT_VOCAB_PADDING_SIZE", "ParallelLMHead", "VocabParallelEmbedding"]

DEFAULT_VOCAB_PADDING_SIZE = 64


class VocabParallelEmbedding(nn.Module):
    """The embedding table of a vocabulary.

    Parameters
    ----------
    num_embeddings
        Tokens in the vocabulary.
    embedding_dim
        Width of a row.
    params_dtype
        dtype of the table; torch's default when left out.
    org_num_embeddings, padding_size
        Of the seed era's signature; without effect on one device, where nothing is padded.
    quant_config
        Not supported; must be None.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        params_dtype: torch.dtype | None = None,
        org_num_embeddings: int | None = None,
        padding_size: int = DEFAULT_VOCAB_PADDING_SIZE,
        quant_config: object = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        if quant_config is not None:
            raise ValidationError(
                f"The embedding {prefix or 'table'} was given a quant_config; "
                "quantized weights are not supported, pass None."
            )
        self.num_embeddings = num_embeddings
        self.org_vocab_size = org_num_embeddings or num_embeddings
        self.embedding_dim = embedding_dim
        self.weight = empty_parameter(num_embeddings, embedding_dim, dtype=params_dtype)
        set_weight_attrs(self.weight, {"weight_loader": self.weight_loader})

    def weight_loader(self, param: nn.Parameter, loaded_weight: Tensor) -> None:
        """Copy a checkpoint's tensor into `param`.

        Raises
        ------
        WeightShapeError
            If it has another shape.
        """
        copy_weight(param, loaded_weight)
        record_loaded(param)

    def forward(self, input_: Tensor) -> Tensor:
        """Look tokens up.

        Parameters
        ----------
        input_
            int32 or int64, any shape.

        Returns
        -------
        Tensor
            [..., embedding dim].

        Raises
        ------
        ValidationError
            If an id is not in the vocabulary (on the CPU).
        """
        rows = ops.embedding_merge(input_.reshape(-1), self.weight)
        return rows.view(*input_.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class ParallelLMHead(VocabParallelEmbedding):
    """The output head: a table whose rows are multiplied with hidden states.

    Used through :class:`~mmcore.model_executor.layers.logits_processor.LogitsProcessor`.

    Parameters
    ----------
    bias
        Whether there is one.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        bias: bool = False,
        params_dtype: torch.dtype | None = None,
        org_num_embeddings: int | None = None,
        padding_size: int = DEFAULT_VOCAB_PADDING_SIZE,
        quant_config: object = None,
        prefix: str = "",
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            params_dtype,
            org_num_embeddings,
            padding_size,
            quant_config,
            prefix,
        )
        self.bias = empty_parameter(num_embeddings, dtype=params_dtype) if bias else None
        if self.bias is not None:
            set_weight_attrs(self.bias, {"weight_loader": self.weight_loader})

    def tie_weights(self, embed_tokens: VocabParallelEmbedding) -> ParallelLMHead:
        """Use the embedding table's rows."""
        self.weight = embed_tokens.weight
        return self

    def forward(self, input_: Tensor) -> Tensor:
        """Refuse: a head computes logits through a LogitsProcessor."""
        raise RuntimeError("LMHead's weights should be used in the sampler.")
