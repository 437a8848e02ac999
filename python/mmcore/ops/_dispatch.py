"""What all ops share: when to go through torch's dispatcher, and the CPU backend's settings."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcore import _C

__all__ = ["cpu_isa", "is_traced", "num_threads", "returned", "set_cpu_isa", "set_num_threads"]

_PLAIN = (Tensor, torch.nn.Parameter)


def is_traced(x: Tensor) -> bool:
    """Tell whether `x` may have no memory: while compiling, exporting, or in a FakeTensorMode."""
    return torch.compiler.is_compiling() or type(x) not in _PLAIN


def returned(result: Tensor, out: Tensor | None) -> Tensor:
    """Give the result of a custom op, which allocates, in `out` if there is one."""
    return result if out is None else out.copy_(result)


def cpu_isa() -> str:
    """Name the instruction set that CPU ops use: ``"reference"``, ``"avx2"``, ``"avx512"``..."""
    names: dict[int, str] = {number: name for name, number in _C.ops.CPU_ISAS.items()}
    return names[_C.ops.cpu_isa()]


def set_cpu_isa(name: str) -> None:
    """Restrict CPU ops to at most one instruction set, for tests and benchmarks.

    Raises
    ------
    ValueError
        If there is none of that name.
    ValidationError
        If this machine does not have it.
    """
    if name not in _C.ops.CPU_ISAS:
        raise ValueError(f"No instruction set {name!r}; known: {', '.join(_C.ops.CPU_ISAS)}.")
    _C.ops.set_cpu_isa(_C.ops.CPU_ISAS[name])


def num_threads() -> int:
    """Count the threads that CPU ops share, the caller's included."""
    return int(_C.ops.num_threads())


def set_num_threads(n: int) -> None:
    """Set how many threads CPU ops share."""
    _C.ops.set_num_threads(n)
