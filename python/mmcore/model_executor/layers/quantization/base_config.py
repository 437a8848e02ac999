"""The type of ``quant_config`` in signatures of the seed era."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["QuantizationConfig"]


class QuantizationConfig(ABC):
    """How weights are quantized. There is no such way yet, so every ``quant_config`` is None."""

    @abstractmethod
    def get_name(self) -> str:
        """Name the way."""
        raise NotImplementedError
