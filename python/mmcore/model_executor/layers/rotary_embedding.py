"""Rotary position embedding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmcore import ops
from mmcore.errors import CheckpointError
from mmcore.hf_config import rope_parameters
from mmcore.model_executor.layers.rope_frequencies import rope_angles, table_rows

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["RotaryEmbedding", "get_rope", "get_rope_from_config"]


class RotaryEmbedding(nn.Module):
    """Rotates pairs of dimensions of queries and keys by angles that grow with the position.

    Has no parameters. Layers of one kind share one instance, see :func:`get_rope`.

    Parameters
    ----------
    head_size
        Width of a head.
    rotary_dim
        Leading dimensions of a head that are rotated.
    max_position_embeddings
        As in config.json.
    base
        ``rope_theta``.
    is_neox_style
        Pair dimension i with i + rotary_dim / 2 (Llama); otherwise 2i with 2i + 1 (GPT-J).
    rope_scaling
        ``rope_type`` and its numbers; None for none.
    """

    def __init__(
        self,
        head_size: int,
        rotary_dim: int,
        max_position_embeddings: int,
        base: float,
        is_neox_style: bool = True,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if rotary_dim % 2 or not 0 < rotary_dim <= head_size:
            raise CheckpointError(
                f"rotary_dim must be even and at most the head size {head_size}, got {rotary_dim}."
            )
        scaling = dict(rope_scaling or {})
        old_name = scaling.pop("type", None)
        self.rope_type = str(scaling.get("rope_type") or old_name or "default")
        self.head_size = head_size
        self.rotary_dim = rotary_dim
        self.max_position_embeddings = max_position_embeddings
        self.base = base
        self.is_neox_style = is_neox_style
        self.num_positions = table_rows(self.rope_type, max_position_embeddings, scaling)
        self._scaling = scaling
        self._tables: dict[torch.device, Tensor] = {}

    def table_on(self, device: torch.device) -> Tensor:
        """Give the float32 [positions, rotary dim] table: cosines, then sines.

        Made when first asked for, since for long contexts it takes tens of MB; the loader asks.
        """
        table = self._tables.get(device)
        if table is None:
            # Without the device context that a loader may have set: the numbers are the CPU's.
            with torch.device("cpu"):
                angles, factor = rope_angles(
                    self.rope_type,
                    self.rotary_dim,
                    self.base,
                    self.max_position_embeddings,
                    self._scaling,
                )
                made = torch.cat([angles.cos(), angles.sin()], dim=-1).mul_(factor)
            table = self._tables[device] = made.to(device)
        return table

    def prepare_on(self, device: torch.device) -> None:
        """Make the table for a device now: code that is being compiled cannot."""
        self.table_on(device)

    def forward(
        self, positions: Tensor, query: Tensor, key: Tensor, offsets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rotate in place.

        Parameters
        ----------
        positions
            int64 [T].
        query, key
            [T, heads * head size], changed in place.
        offsets
            int64 [T], added to the positions.

        Returns
        -------
        tuple of Tensor
            `query` and `key`.
        """
        tokens = query.shape[0]
        ops.rope_kv_write(
            query.view(tokens, -1, self.head_size),
            key.view(tokens, -1, self.head_size),
            positions=positions if offsets is None else positions + offsets,
            cos_sin=self.table_on(query.device),
            interleaved=not self.is_neox_style,
        )
        return query, key

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return (
            f"{self.rope_type}, rotary_dim={self.rotary_dim}, positions={self.num_positions}, "
            f"base={self.base}, neox={self.is_neox_style}"
        )


def get_rope(
    head_size: int,
    rotary_dim: int,
    max_position: int,
    base: float,
    is_neox_style: bool = True,
    rope_scaling: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    partial_rotary_factor: float = 1.0,
) -> RotaryEmbedding:
    """Give the rotary embedding with these numbers; the same instance for the same numbers.

    Parameters
    ----------
    head_size, rotary_dim, max_position, base, is_neox_style, rope_scaling
        As for :class:`RotaryEmbedding`. `rope_scaling` may be in either dialect of config.json,
        with ``type`` or with ``rope_type``.
    dtype
        Of the seed era's signature; without effect, tables are float32.
    partial_rotary_factor
        Share of `rotary_dim` that is rotated.

    Raises
    ------
    CheckpointError
        If the scaling is of an unknown type or lacks a number.
    """
    if partial_rotary_factor < 1.0:
        rotary_dim = int(rotary_dim * partial_rotary_factor)
    scaling = json.dumps(dict(rope_scaling or {}), sort_keys=True)
    return _shared(head_size, rotary_dim, max_position, float(base), is_neox_style, scaling)


def get_rope_from_config(
    config: PretrainedConfig, head_size: int, is_neox_style: bool = True
) -> RotaryEmbedding:
    """Give the rotary embedding of a decoder's configuration, in either dialect.

    Parameters
    ----------
    config
        The language model's configuration, with ``rope_parameters``, or with ``rope_theta`` and
        perhaps ``rope_scaling``.
    head_size
        Width of a head.
    """
    scaling = rope_parameters(config)
    base = scaling.pop("rope_theta")
    partial = scaling.pop("partial_rotary_factor", None)
    if partial is None:
        partial = getattr(config, "partial_rotary_factor", None)
    return get_rope(
        head_size,
        rotary_dim=head_size,
        max_position=config.max_position_embeddings,
        base=base,
        is_neox_style=is_neox_style,
        rope_scaling=scaling,
        partial_rotary_factor=1.0 if partial is None else float(partial),
    )


@lru_cache(maxsize=16)
def _shared(
    head_size: int,
    rotary_dim: int,
    max_position: int,
    base: float,
    is_neox_style: bool,
    scaling: str,
) -> RotaryEmbedding:
    return RotaryEmbedding(
        head_size, rotary_dim, max_position, base, is_neox_style, json.loads(scaling)
    )
