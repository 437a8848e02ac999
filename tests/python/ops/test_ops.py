"""Each op against torch, in the dtypes that it takes. Layer: kernel."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmcore import ops
from mmcore.errors import ValidationError

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Relative to the largest value: accumulation is in float32, the result is rounded once.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "relu": F.relu,
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(20)


def assert_near(got: Tensor, expected: Tensor, factor: float = 1.0) -> None:
    """Compares with a float64 or float32 result, relative to its largest value."""
    assert got.shape == expected.shape
    worst = (got.double() - expected.double()).abs().max().item()
    scale = max(1.0, expected.abs().max().item())
    assert worst <= factor * TOLERANCE[got.dtype] * scale


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1, 8), (5, 130), (2, 3, 64), (0, 16)])
def test_rms_norm(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, weight = torch.randn(shape).to(dtype), torch.randn(shape[-1]).to(dtype)
    expected = F.rms_norm(x.double(), (shape[-1],), weight.double(), eps=1e-5)
    if x.numel():
        assert_near(ops.rms_norm(x, weight, 1e-5), expected)
    assert ops.rms_norm(x, weight, 1e-5).dtype == dtype


def test_rms_norm_adds_to_the_residual_in_place() -> None:
    x, residual, weight = torch.randn(4, 32), torch.randn(4, 32), torch.randn(32)
    total = x + residual
    out = ops.rms_norm(x, weight, 1e-6, residual=residual, out=x)
    assert out is x
    torch.testing.assert_close(residual, total, rtol=0, atol=0)
    assert_near(x, F.rms_norm(total, (32,), weight, eps=1e-6))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm(dtype: torch.dtype, bias: bool) -> None:
    x, weight = (3 + torch.randn(2, 5, 96)).to(dtype), torch.randn(96).to(dtype)
    b = torch.randn(96).to(dtype) if bias else None
    expected = F.layer_norm(
        x.double(), (96,), weight.double(), None if b is None else b.double(), eps=1e-5
    )
    assert_near(ops.layer_norm(x, weight, b, 1e-5), expected, factor=2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activation(dtype: torch.dtype, act: str) -> None:
    x = (4 * torch.randn(3, 7, 33)).to(dtype)
    expected = ACTIVATIONS[act](x.double())
    assert_near(ops.activation(x, act), expected)
    assert ops.activation(x, act, out=x) is x
    assert_near(x, expected)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activation_mul(act: str) -> None:
    x = 2 * torch.randn(3, 5, 48)
    gate, up = x.double().chunk(2, dim=-1)
    assert_near(ops.activation_mul(x, act), ACTIVATIONS[act](gate) * up)


def test_every_kernel_activation_is_compared() -> None:
    assert set(ops.ACTIVATIONS) == set(ACTIVATIONS)


def test_unknown_activation_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'mish'.*quick_gelu"):
        ops.activation(torch.ones(2), "mish")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("tokens", [1, 3, 40])
@pytest.mark.parametrize("act", ["none", "gelu", "silu"])
def test_linear(dtype: torch.dtype, tokens: int, act: str) -> None:
    x, w = torch.randn(tokens, 72).to(dtype), (torch.randn(50, 72) / 8).to(dtype)
    b = torch.randn(50).to(dtype)
    expected = ACTIVATIONS[act](F.linear(x.double(), w.double(), b.double()))
    assert_near(ops.linear(x, w, b, act=act), expected)
    assert_near(ops.linear(x[None], w)[0], F.linear(x.double(), w.double()))


def test_linear_scatters_rows_and_drops_negative_ones() -> None:
    x, w = torch.randn(4, 16), torch.randn(8, 16)
    out = torch.full((6, 8), 9.0)
    ops.linear(x, w, out=out, out_rows=torch.tensor([5, -1, 0, 2]))
    full = F.linear(x, w)
    assert_near(out[[5, 0, 2]], full[[0, 2, 3]])
    assert (out[[1, 3, 4]] == 9.0).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("tokens", [1, 17, 300])
def test_vision_projector(dtype: torch.dtype, tokens: int) -> None:
    x = torch.randn(tokens, 40).to(dtype)
    w1, b1 = (torch.randn(56, 40) / 6).to(dtype), torch.randn(56).to(dtype)
    w2, b2 = (torch.randn(24, 56) / 7).to(dtype), torch.randn(24).to(dtype)
    inner = F.gelu(F.linear(x.double(), w1.double(), b1.double()))
    expected = F.linear(inner, w2.double(), b2.double())
    assert_near(ops.vision_projector(x, w1, b1, w2, b2), expected, factor=2)

    rows = torch.randperm(tokens + 5)[:tokens]
    rows[2::7] = -1
    out = torch.zeros(tokens + 5, 24, dtype=dtype)
    ops.vision_projector(x, w1, b1, w2, b2, rows=rows, out=out)
    kept = rows >= 0
    assert_near(out[rows[kept]], expected[kept], factor=2)
    untouched = torch.ones(tokens + 5, dtype=torch.bool)
    untouched[rows[kept]] = False
    assert (out[untouched] == 0).all()


@pytest.mark.parametrize("id_dtype", [torch.int32, torch.int64])
def test_embedding_merge(id_dtype: torch.dtype) -> None:
    table, media = torch.randn(10, 6), torch.randn(3, 6)
    ids = torch.tensor([3, 999, 0, 999, 9], dtype=id_dtype)  # media ids need not be in the table
    source = torch.tensor([-1, 2, -1, 0, -1])
    expected = torch.stack([table[3], media[2], table[0], media[0], table[9]])
    assert torch.equal(ops.embedding_merge(ids, table, source, media), expected)
    assert torch.equal(ops.embedding_merge(ids[::2].contiguous(), table), expected[::2])


@pytest.mark.parametrize(
    ("ids", "source", "message"),
    [([3, 10], None, r"token_ids\[1\] is 10"), ([0, 0], [-1, 2], r"source\[1\] is 2")],
)
def test_embedding_merge_refuses_what_is_out_of_range(
    ids: list[int], source: list[int] | None, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        ops.embedding_merge(
            torch.tensor(ids),
            torch.zeros(10, 4),
            None if source is None else torch.tensor(source),
            torch.zeros(2, 4),
        )


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    half = cos.shape[-1]
    rotated, rest = x[..., : 2 * half], x[..., 2 * half :]
    if interleaved:
        a, b = rotated[..., 0::2], rotated[..., 1::2]
    else:
        a, b = rotated.split(half, dim=-1)
    c, s = cos[:, None], sin[:, None]
    first, second = a * c - b * s, b * c + a * s
    if interleaved:
        return torch.cat([torch.stack([first, second], dim=-1).flatten(-2), rest], dim=-1)
    return torch.cat([first, second, rest], dim=-1)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary_dim", [32, 16])
@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.bfloat16])
def test_rope_kv_write(interleaved: bool, rotary_dim: int, cache_dtype: torch.dtype) -> None:
    tokens, heads, kv_heads, dim = 5, 4, 2, 32
    packed = torch.randn(tokens, (heads + 2 * kv_heads) * dim)
    q, k, v = packed.split([heads * dim, kv_heads * dim, kv_heads * dim], dim=-1)
    q, k, v = q.view(tokens, heads, dim), k.view(tokens, kv_heads, dim), v.view(tokens, -1, dim)
    table = torch.randn(20, rotary_dim)
    positions = torch.tensor([0, 7, 19, 3, 3])
    cos, sin = table[positions].chunk(2, dim=-1)
    expected_q, expected_k = (rotate(t, cos, sin, interleaved) for t in (q, k))
    expected_v = v.clone()

    k_cache, v_cache = torch.zeros(2, 3, 4, kv_heads, dim, dtype=cache_dtype).unbind(0)
    slots = torch.tensor([4, 11, -1, 0, 7])
    ops.rope_kv_write(
        q, k, v, positions=positions, cos_sin=table, k_cache=k_cache, v_cache=v_cache,
        slot_mapping=slots, interleaved=interleaved,
    )  # fmt: skip
    assert_near(q, expected_q)
    assert_near(k, expected_k)
    written = slots >= 0
    for cache, rows in ((k_cache, expected_k), (v_cache, expected_v)):
        flat = cache.view(12, kv_heads, dim)
        assert_near(flat[slots[written]], rows[written])
        rest = torch.ones(12, dtype=torch.bool)
        rest[slots[written]] = False
        assert (flat[rest] == 0).all()


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("sections", [(8, 4, 4), (5, 5, 6), (0, 8, 8), (16, 0, 0)])
def test_rope_of_three_axes(
    in_turn: bool, interleaved: bool, sections: tuple[int, int, int]
) -> None:
    tokens, dim, half = 5, 40, 16
    if in_turn and max(sections[1:]) > half // 3:
        sections = (6, 5, 5)
    table = torch.randn(20, 2 * half)
    positions = torch.randint(0, 20, (3, tokens))
    if in_turn:
        axes = [i % 3 if i // 3 < sections[i % 3] or i % 3 == 0 else 0 for i in range(half)]
    else:
        axes = [axis for axis in range(3) for _ in range(sections[axis])]
    rows = table[positions]  # [3, tokens, 2 half]
    cos, sin = (
        torch.stack([part[axis, :, i] for i, axis in enumerate(axes)], dim=-1).double()
        for part in rows.chunk(2, dim=-1)
    )
    q, k = torch.randn(tokens, 3, dim), torch.randn(tokens, 1, dim)
    expected = [rotate(t.double(), cos, sin, interleaved) for t in (q, k)]
    ops.rope_kv_write(
        q, k, positions=positions, cos_sin=table, interleaved=interleaved, sections=sections,
        sections_interleaved=in_turn,
    )  # fmt: skip
    assert_near(q, expected[0])
    assert_near(k, expected[1])


def test_three_axes_at_one_position_are_one_axis() -> None:
    k, table = torch.randn(6, 2, 32), torch.randn(20, 32)
    positions = torch.randint(0, 20, (6,))
    alone, together = k.clone(), k.clone()
    ops.rope_kv_write(None, alone, positions=positions, cos_sin=table)
    ops.rope_kv_write(
        None, together, positions=positions.expand(3, -1), cos_sin=table, sections=(8, 4, 4)
    )
    assert torch.equal(alone, together)


@pytest.mark.parametrize("dtype", FLOATS)
def test_float8_cache_holds_what_torch_rounds(dtype: torch.dtype) -> None:
    k = torch.randn(9, 2, 72) * torch.tensor([1e-3, 0.1, 1, 30, 300, 1e4, 0, 1, 2])[:, None, None]
    k, v = k.to(dtype), torch.randn(9, 2, 72).to(dtype)
    k_cache, v_cache = torch.zeros(2, 3, 4, 2, 72).to(torch.float8_e4m3fn).unbind(0)
    slots = torch.tensor([4, 11, -1, 0, 7, 1, 2, 3, 5])
    ops.rope_kv_write(
        None, k, v, k_cache=k_cache, v_cache=v_cache, slot_mapping=slots, k_scale=0.3, v_scale=1.7
    )
    written = slots >= 0
    for cache, rows, scale in ((k_cache, k, 0.3), (v_cache, v, 1.7)):
        inverse = torch.ones(1) / torch.tensor([scale])
        # torch gives NaN above 448 where the cache saturates.
        expected = (rows.float() * inverse).clamp(-448, 448).to(torch.float8_e4m3fn)
        flat = cache.view(12, 2, 72)
        assert torch.equal(
            flat.view(torch.uint8)[slots[written]], expected.view(torch.uint8)[written]
        )


def test_copy_blocks_copies_float8() -> None:
    cache = torch.randn(4, 2, 3).to(torch.float8_e4m3fn)
    first = cache[0].clone()
    ops.copy_blocks(cache, torch.tensor([[0, 3]]))
    assert torch.equal(cache[3].view(torch.uint8), first.view(torch.uint8))


def test_copy_blocks_goes_in_order() -> None:
    cache = torch.randn(4, 2, 3)
    first = cache[0].clone()
    ops.copy_blocks(cache, torch.tensor([[0, 1], [1, 3]]))
    assert torch.equal(cache[1], first)
    assert torch.equal(cache[3], first)


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, cap: float, window: int, causal: bool
) -> Tensor:
    """One sequence in float64, the last query at the last key."""
    group = q.shape[1] // k.shape[1]
    k, v = (t.double().repeat_interleave(group, dim=1) for t in (k, v))
    scores = scale * torch.einsum("qhd,khd->hqk", q.double(), k)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    position = torch.arange(len(k) - len(q), len(k))[:, None]
    key = torch.arange(len(k))
    hidden = torch.zeros(len(q), len(k), dtype=torch.bool)
    if causal:
        hidden |= key > position
    if window:
        hidden |= key <= position - window
    scores = scores.masked_fill(hidden, -math.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", ops.HEAD_DIMS)
def test_varlen_attention(dtype: torch.dtype, dim: int) -> None:
    lengths = [(3, 3), (1, 9), (6, 6)]
    scale = dim**-0.5
    q = torch.randn(10, 4, dim).to(dtype)
    k, v = torch.randn(18, 2, dim).to(dtype), torch.randn(18, 2, dim).to(dtype)
    cu_q, cu_k = torch.tensor([0, 3, 4, 10]).int(), torch.tensor([0, 3, 12, 18]).int()
    for causal in (False, True):
        out = ops.varlen_attention(q, k, v, cu_q, cu_k, scale=scale, causal=causal)
        for i, (queries, keys) in enumerate(lengths):
            rows = slice(int(cu_q[i]), int(cu_q[i]) + queries)
            seen = slice(int(cu_k[i]), int(cu_k[i]) + keys)
            expected = attention(q[rows], k[seen], v[seen], scale, 0.0, 0, causal)
            assert_near(out[rows], expected, factor=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cap", [0.0, 5.0])
@pytest.mark.parametrize("window", [0, 4])
def test_paged_attention(dtype: torch.dtype, cap: float, window: int) -> None:
    dim, block = 64, 4
    lengths = [(1, 7), (5, 5), (3, 11)]  # a decode, a prefill, a chunk
    cache = torch.full((2, 9, block, 2, dim), float("nan")).to(dtype)
    order = iter(torch.randperm(8).add(1).tolist())
    tables = torch.zeros(3, 3, dtype=torch.int32)
    keys, values = [], []
    for i, (_, total) in enumerate(lengths):
        k, v = torch.randn(total, 2, dim).to(dtype), torch.randn(total, 2, dim).to(dtype)
        keys.append(k)
        values.append(v)
        for b in range(-(-total // block)):
            tables[i, b] = next(order)
            part = slice(b * block, min(total, (b + 1) * block))
            cache[0, tables[i, b], : part.stop - part.start] = k[part]
            cache[1, tables[i, b], : part.stop - part.start] = v[part]
    q = torch.randn(9, 4, dim).to(dtype)
    start = torch.tensor([0, 1, 6, 9], dtype=torch.int32)
    seq_lens = torch.tensor([7, 5, 11], dtype=torch.int32)
    out = ops.paged_attention(
        q, cache[0], cache[1], tables, start, seq_lens, scale=0.2, soft_cap=cap, window=window
    )
    for i in range(3):
        rows = slice(int(start[i]), int(start[i + 1]))
        expected = attention(q[rows], keys[i], values[i], 0.2, cap, window, True)
        assert_near(out[rows], expected, factor=2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", ops.HEAD_DIMS)
def test_paged_attention_over_a_float8_cache(dtype: torch.dtype, dim: int) -> None:
    scales = {"k_scale": 0.25, "v_scale": 3.0}
    cache = torch.randn(2, 6, 4, 2, dim).mul(8).to(torch.float8_e4m3fn)
    tables = torch.tensor([[3, 1, 0], [5, 2, 4]], dtype=torch.int32)
    start, seq_lens = torch.tensor([0, 1, 5]).int(), torch.tensor([9, 12]).int()
    q = torch.randn(5, 6, dim).to(dtype)
    out = ops.paged_attention(q, cache[0], cache[1], tables, start, seq_lens, scale=0.05, **scales)
    for i in range(2):
        rows = slice(int(start[i]), int(start[i + 1]))
        k, v = (
            cache[part].double()[tables[i].long()].flatten(0, 1)[: int(seq_lens[i])] * scale
            for part, scale in enumerate(scales.values())
        )
        expected = attention(q[rows], k, v, 0.05, 0.0, 0, True)
        assert_near(out[rows], expected, factor=2)


@pytest.mark.parametrize("scales", [{"k_scale": 0.0}, {"v_scale": -1.0}, {"k_scale": math.nan}])
def test_float8_scales_are_checked(scales: dict[str, float]) -> None:
    cache = torch.zeros(2, 1, 4, 1, 32).to(torch.float8_e4m3fn)
    k = torch.zeros(1, 1, 32)
    name = next(iter(scales))
    with pytest.raises(ValidationError, match=f"{name} is .*, expected a finite number above 0"):
        ops.rope_kv_write(
            None, k, k, k_cache=cache[0], v_cache=cache[1], slot_mapping=torch.tensor([0]), **scales
        )
    with pytest.raises(ValidationError, match="only a float8_e4m3fn cache is scaled"):
        ops.rope_kv_write(
            None, k, k, k_cache=cache[0].float(), v_cache=cache[1].float(),
            slot_mapping=torch.tensor([0]), k_scale=0.5,
        )  # fmt: skip


def test_head_dims_are_those_that_the_kernels_list() -> None:
    q, starts = torch.zeros(2, 1, 48), torch.tensor([0, 2], dtype=torch.int32)
    known = ", ".join(map(str, ops.HEAD_DIMS))
    with pytest.raises(ValidationError, match=rf"head dim 48; expected one of {known}$"):
        ops.varlen_attention(q, q, q, starts, starts, scale=1.0)


def test_errors_name_the_tensor_and_both_shapes() -> None:
    with pytest.raises(ValidationError, match=r"rms_norm: weight has shape \[3\].*H = 4"):
        ops.rms_norm(torch.ones(2, 4), torch.ones(3))
    with pytest.raises(ValidationError, match="weight"):
        ops.rms_norm(torch.ones(2, 4), torch.ones(4, dtype=torch.bfloat16))


def test_out_rows_without_out_is_refused() -> None:
    x, w = torch.ones(1, 4), torch.ones(2, 4)
    with pytest.raises(ValueError, match="`out` must be given"):
        ops.linear(x, w, out_rows=torch.tensor([0]))
    with pytest.raises(ValueError, match="`out` must be given"):
        ops.vision_projector(x, w, None, torch.ones(3, 2), None, rows=torch.tensor([0]))
