"""What the bindings take for a tensor. Layer: bindings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmcore import _C
from mmcore.errors import ValidationError

kernels: Any = _C.ops


def norm(x: Any, weight: Any, out: Any) -> Any:
    kernels.rms_norm(x, weight, out)
    return out


def reference() -> torch.Tensor:
    return norm(torch.arange(6.0).view(2, 3), torch.ones(3), torch.empty(2, 3))


class OnlyDlpack:
    """Speaks the protocol and nothing else."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.tensor.__dlpack__(**kwargs)


def test_numpy_torch_and_dlpack_mix() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    out = norm(x, OnlyDlpack(torch.ones(3)), np.empty((2, 3), np.float32))
    assert torch.equal(torch.from_numpy(out), reference())


def test_strides_are_honoured() -> None:
    wide = torch.zeros(2, 8)
    wide[:, 2:5] = torch.arange(6.0).view(2, 3)
    assert torch.equal(norm(wide[:, 2:5], torch.ones(3), torch.empty(2, 3)), reference())
    array = np.zeros((4, 3), np.float32)
    array[::2] = np.arange(6).reshape(2, 3)
    assert torch.equal(norm(array[::2], torch.ones(3), torch.empty(2, 3)), reference())


def test_read_only_arrays_are_inputs_only() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    x.flags.writeable = False
    assert torch.equal(norm(x, torch.ones(3), torch.empty(2, 3)), reference())
    with pytest.raises(TypeError, match="read-only"):
        norm(torch.ones(2, 3), torch.ones(3), x)


def test_buffers_are_taken() -> None:
    data = bytearray(np.arange(6, dtype=np.float32).tobytes())
    x = memoryview(data).cast("B").cast("f", (2, 3))
    assert torch.equal(norm(x, torch.ones(3), torch.empty(2, 3)), reference())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([1.0, 2.0], "a list was given where a tensor was expected"),
        (3.5, "a float was given"),
        (b"1234", "a bytes was given"),
        (torch.ones(2, 3, dtype=torch.float64), r"torch\.float64"),
        (torch.ones(2, 3, dtype=torch.bool), r"torch\.bool"),
        (torch.ones(2, 3, device="meta"), "device meta"),
        (np.ones((2, 3), np.complex64), "complex64|DLPack type"),
        (np.ones((2, 3), ">f4"), "was given|not supported"),
        (torch.ones([1] * 7), "rank 7"),
        (np.ones([1] * 7, np.float32), "rank 7"),
    ],
)
def test_what_is_no_tensor_is_named(bad: Any, message: str) -> None:
    with pytest.raises((TypeError, BufferError), match=message):
        norm(bad, torch.ones(3), torch.empty(2, 3))


def test_absent_required_tensors_are_named() -> None:
    with pytest.raises(ValidationError, match="weight is absent"):
        norm(torch.ones(2, 3), None, torch.empty(2, 3))


def test_a_column_major_tensor_is_refused_by_the_op() -> None:
    with pytest.raises(ValidationError, match="x"):
        norm(torch.ones(3, 2).t(), torch.ones(3), torch.empty(2, 3))


def test_tensors_with_gradients_and_parameters_are_taken() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    x = torch.arange(6.0).view(2, 3).requires_grad_()
    assert torch.equal(norm(x, weight, torch.empty(2, 3)), reference())
