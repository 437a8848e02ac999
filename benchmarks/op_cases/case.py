"""One op at one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

# Half of the last place of the output, and as much again for the order of the sum.
TOLERANCE = {torch.float32: (2e-4, 2e-5), torch.bfloat16: (2e-2, 2e-2)}


@dataclass(frozen=True, slots=True)
class Case:
    """An op to check and to time.

    Parameters
    ----------
    ours, theirs
        The op, and what a torch program would write for it.
    result, expected
        Tensors that `ours` leaves behind, and a function that gives what they should be, worked
        out in float32 or better. Exact for integers.
    moved_bytes
        Bytes that must be read or written once, whoever does it.
    """

    op: str
    shape: str
    dtype: torch.dtype
    ours: Callable[[], object]
    theirs: Callable[[], object]
    result: Callable[[], Sequence[torch.Tensor]]
    expected: Callable[[], Sequence[torch.Tensor]]
    moved_bytes: int
    flops: int = 0


def check(case: Case) -> None:
    """Run our side once and compare it.

    Raises
    ------
    AssertionError
        With the op's name, if a result is wrong: a wrong op is not worth timing.
    """
    expected = [tensor.clone() for tensor in case.expected()]  # before an op works in place
    case.ours()
    for got, want in zip(case.result(), expected, strict=True):
        rtol, atol = TOLERANCE[case.dtype] if want.is_floating_point() else (0, 0)
        torch.testing.assert_close(
            got.to(want.dtype),
            want,
            rtol=rtol,
            atol=atol,
            msg=lambda text: f"{case.op} {case.shape} {case.dtype}: {text}",
        )


def nbytes(*tensors: torch.Tensor) -> int:
    """Add up the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
