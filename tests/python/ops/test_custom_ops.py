"""The ops as torch custom ops: schemas, fake implementations, compilation. Layer: kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mmcore import ops


def _cases() -> dict[str, tuple[Any, ...]]:
    torch.manual_seed(4)
    x, w = torch.randn(3, 32), torch.randn(32)
    q, k = torch.randn(3, 2, 32), torch.randn(3, 1, 32)
    cache = torch.randn(2, 4, 2, 1, 32)
    start = torch.tensor([0, 3], dtype=torch.int32)
    tables = torch.tensor([[1, 2]], dtype=torch.int32)
    seq_lens = torch.tensor([3], dtype=torch.int32)
    slots = torch.tensor([2, 3, 4])
    rows = torch.tensor([1, -1, 0])
    return {
        "rms_norm": (x, w, None, 1e-6),
        "rms_norm (residual)": (x, w, torch.randn(3, 32), 1e-6),
        "layer_norm": (x, w, w, 1e-5),
        "activation": (x, "gelu"),
        "activation_mul": (x, "silu"),
        "linear": (x, torch.randn(8, 32), torch.randn(8), "relu"),
        "linear_rows": (x, torch.randn(8, 32), None, torch.zeros(4, 8), rows, "none"),
        "vision_projector": (x, torch.randn(8, 32), None, torch.randn(6, 8), None, "gelu"),
        "vision_projector_rows": (
            x, torch.randn(8, 32), None, torch.randn(6, 8), None, rows, torch.zeros(4, 6), "gelu",
        ),
        "embedding_merge": (torch.tensor([1, 0]), x, torch.tensor([-1, 0]), torch.randn(1, 32)),
        "rope_kv_write": (
            q, k, torch.randn(3, 1, 32), torch.arange(3), torch.randn(8, 32), cache[0].clone(),
            cache[1].clone(), slots, False, [0, 0, 0], False, 1.0, 1.0, True,
        ),
        "rope_kv_write (three axes)": (
            q, k, torch.randn(3, 1, 32), torch.arange(9).view(3, 3), torch.randn(9, 32),
            cache[0].clone(), cache[1].clone(), slots, False, [8, 4, 4], True, 1.0, 1.0, False,
        ),
        "copy_blocks": (cache[0].clone(), torch.tensor([[0, 2]])),
        "paged_attention": (
            q, cache[0], cache[1], tables, start, seq_lens, 0.2, 0.0, 0, True,
        ),
        "varlen_attention": (q, k, torch.randn(3, 1, 32), start, start, 0.2, 0.0, 0, True),
        "sample_tensors": (
            torch.randn(3, 9), torch.ones(3), torch.ones(3), torch.zeros(3),
            torch.full((3,), -1, dtype=torch.int32), torch.arange(3), torch.arange(3),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("case", _cases())
def test_opcheck(case: str) -> None:
    op = getattr(torch.ops.mmcore, case.partition(" ")[0])
    torch.library.opcheck(op, _cases()[case])


def test_every_op_is_checked() -> None:
    checked = {case.partition(" ")[0] for case in _cases()} | {"sample"}
    registered = {
        schema.name.removeprefix("mmcore::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("mmcore::")
    }
    assert registered == checked


def _block(x: Tensor, w: Tensor, residual: Tensor, cache: Tensor) -> Tensor:
    """A bit of a decoder: everything that mutates, in a row."""
    h = ops.rms_norm(x, w, residual=residual)
    q, k, v = h.view(3, -1, 32).split([2, 1, 1], dim=1)
    k_cache, v_cache = cache.unbind(0)
    start = torch.tensor([0, 3], dtype=torch.int32)
    ops.rope_kv_write(
        q, k, v, positions=torch.arange(3), cos_sin=torch.ones(4, 32), k_cache=k_cache,
        v_cache=v_cache, slot_mapping=torch.arange(3) + 2,
    )  # fmt: skip
    out = ops.paged_attention(
        q, k_cache, v_cache, torch.tensor([[1, 2]], dtype=torch.int32), start,
        torch.tensor([3], dtype=torch.int32), scale=0.2,
    )  # fmt: skip
    return ops.activation_mul(out.flatten(1), "silu") + residual[:, :32]


def test_compiled_code_gives_the_same_and_mutates_the_same() -> None:
    torch.manual_seed(6)
    inputs = [
        torch.randn(3, 128),
        torch.randn(128),
        torch.randn(3, 128),
        torch.zeros(2, 4, 2, 1, 32),
    ]
    eager, compiled = [t.clone() for t in inputs], [t.clone() for t in inputs]
    expected = _block(*eager)
    got = torch.compile(_block, backend="aot_eager", fullgraph=True)(*compiled)
    torch.testing.assert_close(got, expected)
    for a, b in zip(compiled, eager, strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.equal(eager[2], inputs[2])


def test_fake_tensors_go_through_without_memory() -> None:
    with FakeTensorMode():
        x = torch.empty(1 << 20, 1 << 12)
        y = ops.linear(ops.rms_norm(x, torch.empty(1 << 12)), torch.empty(7, 1 << 12))
        assert y.shape == (1 << 20, 7)


def test_out_is_filled_when_compiled() -> None:
    def into(x: Tensor, out: Tensor) -> Tensor:
        return ops.activation(x, "relu", out=out)

    x, out = torch.randn(4), torch.zeros(4)
    torch.compile(into, backend="aot_eager", fullgraph=True)(x, out)
    assert torch.equal(out, x.relu())
