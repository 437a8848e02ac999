"""How many devices share a model: one. For model files of the seed era, which ask.

They divide heads and widths by :func:`get_tensor_model_parallel_world_size` and ask
:func:`get_pp_group` whether they are the first or the last stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

__all__ = [
    "GroupCoordinator",
    "divide",
    "get_pp_group",
    "get_tensor_model_parallel_rank",
    "get_tensor_model_parallel_world_size",
    "get_tp_group",
    "tensor_model_parallel_all_gather",
    "tensor_model_parallel_all_reduce",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GroupCoordinator:
    """The devices that share something, and the place of this one among them."""

    world_size: int = 1
    rank_in_group: int = 0

    @property
    def is_first_rank(self) -> bool:
        """Whether this is the first."""
        return self.rank_in_group == 0

    @property
    def is_last_rank(self) -> bool:
        """Whether this is the last."""
        return self.rank_in_group == self.world_size - 1


_ALONE = GroupCoordinator()


def get_pp_group() -> GroupCoordinator:
    """Give the stages of the pipeline."""
    return _ALONE


def get_tp_group() -> GroupCoordinator:
    """Give the devices that share each layer."""
    return _ALONE


def get_tensor_model_parallel_world_size() -> int:
    """Count the devices that share each layer."""
    return _ALONE.world_size


def get_tensor_model_parallel_rank() -> int:
    """Give this device's place among them."""
    return _ALONE.rank_in_group


def tensor_model_parallel_all_reduce(input_: T) -> T:
    """Sum over devices."""
    return input_


def tensor_model_parallel_all_gather(input_: T, dim: int = -1) -> T:
    """Join over devices."""
    return input_


def divide(numerator: int, denominator: int) -> int:
    """Divide without a rest.

    Raises
    ------
    ValueError
        If there is one.
    """
    if numerator % denominator:
        raise ValueError(f"{numerator} is not divisible by {denominator}")
    return numerator // denominator
