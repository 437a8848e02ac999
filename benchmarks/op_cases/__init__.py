"""The ops at the shapes that real models run them at, each with its equal in torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.op_cases.attention import attention_cases
from benchmarks.op_cases.case import Case
from benchmarks.op_cases.matrices import matrix_cases
from benchmarks.op_cases.rows import row_cases
from benchmarks.op_cases.vocabulary import vocabulary_cases

__all__ = ["Case", "all_cases"]


def all_cases(dtype: torch.dtype) -> Iterator[Case]:
    """Yield every case; tensors are made when a case is reached."""
    yield from row_cases(dtype)
    yield from matrix_cases(dtype)
    yield from attention_cases(dtype)
    yield from vocabulary_cases(dtype)
