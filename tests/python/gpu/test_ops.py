"""Each op on a GPU against the same op on the CPU in float32. Layer: kernel, from Python."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu.needs_gpu import GPU
from torch import Tensor

from mmcore import ops

pytestmark = GPU

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Root mean square of the error, relative to the result's. In float32 only the order of sums
# differs. In 16 bits the result is rounded once, which is at most 2^-9 (bfloat16) or 2^-12 of
# each number, and what lies between two products of an op once more.
ERROR = {torch.float32: 2e-6, torch.bfloat16: 2.6e-3, torch.float16: 3.5e-4}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(11)


def randn(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Random numbers on the GPU."""
    return (scale * torch.randn(shape)).to("cuda", dtype)


def cpu(*tensors: Tensor | None) -> list[Any]:
    """The same numbers on the CPU: floats in float32."""
    return [
        None if t is None else t.cpu().float() if t.is_floating_point() else t.cpu()
        for t in tensors
    ]


def assert_near(got: Tensor, expected: Tensor, factor: float = 1.0) -> None:
    assert got.is_cuda
    assert got.shape == expected.shape
    difference = got.cpu().double() - expected.double()
    norm = expected.double().square().mean().sqrt().item()
    error = difference.square().mean().sqrt().item() / max(norm, 1e-30)
    assert error <= factor * ERROR[got.dtype], f"relative error {error:.2e} in {got.dtype}"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1, 4096), (7, 576), (33, 130)])
def test_rms_norm(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    x, residual = randn(*shape, dtype=dtype), randn(*shape, dtype=dtype)
    weight = randn(shape[1], dtype=dtype)
    x32, weight32 = cpu(x, weight)
    assert_near(ops.rms_norm(x, weight, 1e-5), ops.rms_norm(x32, weight32, 1e-5))
    total = x + residual  # rounded as the residual is stored
    out = ops.rms_norm(x, weight, 1e-5, residual=residual, out=x)
    assert out is x
    assert torch.equal(residual, total)
    assert_near(out, ops.rms_norm(cpu(total)[0], weight32, 1e-5), factor=1.5)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm(dtype: torch.dtype, bias: bool) -> None:
    x, weight = randn(2, 17, 1024, dtype=dtype), randn(1024, dtype=dtype)
    b = randn(1024, dtype=dtype) if bias else None
    assert_near(ops.layer_norm(x, weight, b), ops.layer_norm(*cpu(x, weight, b)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("act", ops.ACTIVATIONS)
def test_activations(dtype: torch.dtype, act: str) -> None:
    x = randn(5, 2 * 344, dtype=dtype, scale=3.0)
    [x32] = cpu(x)
    assert_near(ops.activation_mul(x, act), ops.activation_mul(x32, act))
    expected = ops.activation(x32, act)
    assert_near(ops.activation(x, act), expected)
    assert ops.activation(x, act, out=x) is x
    assert_near(x, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("tokens", [1, 3, 8, 40])
@pytest.mark.parametrize("act", ["none", "gelu", "silu"])
def test_linear(dtype: torch.dtype, tokens: int, act: str) -> None:
    x, w = randn(tokens, 512, dtype=dtype), randn(384, 512, dtype=dtype, scale=0.05)
    b = randn(384, dtype=dtype)
    x32, w32, b32 = cpu(x, w, b)
    assert_near(ops.linear(x, w, b, act=act), ops.linear(x32, w32, b32, act=act))
    rows = torch.randperm(tokens + 2)[:tokens]
    rows[0] = -1
    out = torch.zeros(tokens + 2, 384, dtype=dtype, device="cuda")
    ops.linear(x, w, b, out=out, out_rows=rows.cuda())
    expected = torch.zeros(tokens + 2, 384)
    expected[rows[1:]] = ops.linear(x32, w32, b32)[1:]
    assert_near(out, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("tokens", [1, 77, 577])
def test_vision_projector(dtype: torch.dtype, tokens: int) -> None:
    x = randn(tokens, 128, dtype=dtype)
    w1, b1 = randn(256, 128, dtype=dtype, scale=0.1), randn(256, dtype=dtype)
    w2, b2 = randn(192, 256, dtype=dtype, scale=0.1), randn(192, dtype=dtype)
    expected = ops.vision_projector(*cpu(x, w1, b1, w2, b2))
    assert_near(ops.vision_projector(x, w1, b1, w2, b2), expected, factor=1.5)
    rows = torch.arange(tokens)
    rows[::3] = -1
    out = torch.full((tokens, 192), 9.0, dtype=dtype, device="cuda")
    ops.vision_projector(x, w1, b1, w2, b2, rows=rows.cuda(), out=out)
    expected[::3] = 9.0
    assert_near(out, expected, factor=1.5)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("id_dtype", [torch.int32, torch.int64])
def test_embedding_merge(dtype: torch.dtype, id_dtype: torch.dtype) -> None:
    table, media = randn(50, 264, dtype=dtype), randn(9, 264, dtype=dtype)
    ids = torch.randint(0, 50, (30,), dtype=id_dtype)
    source = torch.full((30,), -1)
    source[4:13] = torch.arange(9)
    ids[4:13] = 32000  # a media token's id need not be in the table
    got = ops.embedding_merge(ids.cuda(), table, source.cuda(), media)
    assert torch.equal(got.cpu(), ops.embedding_merge(ids, table.cpu(), source, media.cpu()))
    assert torch.equal(ops.embedding_merge(ids[:4].cuda(), table).cpu(), table.cpu()[ids[:4]])


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("dim", "rotary_dim"), [(128, 128), (64, 32), (80, 80)])
def test_rope_kv_write(interleaved: bool, dtype: torch.dtype, dim: int, rotary_dim: int) -> None:
    tokens, heads, kv_heads = 9, 4, 2
    packed = randn(tokens, (heads + 2 * kv_heads) * dim, dtype=dtype)
    table = torch.randn(64, rotary_dim)
    positions = torch.randint(0, 64, (tokens,))
    slots = torch.randperm(5 * 16)[:tokens]
    slots[3] = -1

    def run(rows: Tensor, device: str) -> list[Tensor]:
        sizes = [heads, kv_heads, kv_heads]
        q, k, v = torch.split(rows.clone().view(tokens, -1, dim), sizes, dim=1)
        cache = torch.zeros(2, 5, 16, kv_heads, dim, dtype=rows.dtype, device=device)
        ops.rope_kv_write(
            q, k, v, positions=positions.to(device), cos_sin=table.to(device), k_cache=cache[0],
            v_cache=cache[1], slot_mapping=slots.to(device), interleaved=interleaved,
        )  # fmt: skip
        return [q, k, cache]

    for got, expected in zip(run(packed, "cuda"), run(cpu(packed)[0], "cpu"), strict=True):
        assert_near(got, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize(("dim", "sections"), [(128, (24, 20, 20)), (72, (12, 12, 12))])
def test_rope_of_three_axes_into_a_float8_cache(
    dtype: torch.dtype, in_turn: bool, dim: int, sections: tuple[int, int, int]
) -> None:
    tokens, heads, kv_heads = 33, 6, 2
    q, k, v = (randn(tokens, n, dim, dtype=dtype) for n in (heads, kv_heads, kv_heads))
    table, positions = torch.randn(64, dim), torch.randint(0, 64, (3, tokens))
    slots = torch.randperm(5 * 16)[:tokens]
    slots[3] = -1
    found = []
    for device in ("cuda", "cpu"):
        # The CPU rounds to the same dtype: the cache must hold the same bytes.
        mine = [t.clone().to(device) for t in (q, k, v)]
        cache = torch.zeros(2, 5, 16, kv_heads, dim, device=device).to(torch.float8_e4m3fn)
        ops.rope_kv_write(
            *mine, positions=positions.to(device), cos_sin=table.to(device), k_cache=cache[0],
            v_cache=cache[1], slot_mapping=slots.to(device), sections=sections,
            sections_interleaved=in_turn, k_scale=0.02, v_scale=0.003,
        )  # fmt: skip
        found.append([mine[0], mine[1], cache])
    for got, expected in zip(found[0][:2], found[1][:2], strict=True):
        assert_near(got, expected.float())
    got, expected = (run[2].cpu().view(torch.uint8).int() for run in found)
    assert torch.equal(got[1], expected[1])  # values are not rotated
    # A rotated key may be rounded the other way where products are summed in another order.
    assert (got[0] - expected[0]).abs().max() <= 1
    assert (got[0] != expected[0]).float().mean() < 0.01


def test_copy_blocks() -> None:
    cache = torch.randn(6, 16, 2, 64)
    pairs = torch.tensor([[0, 3], [1, 5], [0, 4]])
    on_gpu = cache.cuda()
    ops.copy_blocks(on_gpu, pairs.cuda())
    ops.copy_blocks(cache, pairs)
    assert torch.equal(on_gpu.cpu(), cache)


class Batch:
    """Sequences over a paged cache whose free blocks hold NaN."""

    def __init__(
        self, lengths: list[tuple[int, int]], heads: int, kv_heads: int, dim: int,
        dtype: torch.dtype, block: int = 16,
    ) -> None:  # fmt: skip
        queries = [q for q, _ in lengths]
        self.tokens = sum(queries)
        self.starts = torch.tensor([0, *queries], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        self.seq_lens = torch.tensor([n for _, n in lengths], dtype=torch.int32)
        counts = [-(-n // block) for _, n in lengths]
        total = sum(counts) + 3
        order = torch.randperm(total, dtype=torch.int32).tolist()
        self.tables = torch.zeros(len(lengths), max(counts) + 1, dtype=torch.int32)
        self.cache = torch.full((2, total, block, kv_heads, dim), float("nan"), dtype=dtype)
        for row, ((_, n), count) in enumerate(zip(lengths, counts, strict=True)):
            blocks = [order.pop() for _ in range(count)]
            self.tables[row, :count] = torch.tensor(blocks, dtype=torch.int32)
            for i in range(n):
                self.cache[:, blocks[i // block], i % block] = torch.randn(2, kv_heads, dim)
        self.q = torch.randn(self.tokens, heads, dim).to(dtype)

    def run(
        self, device: str, dtype: torch.dtype, cache_dtype: torch.dtype | None = None,
        **options: Any,
    ) -> Tensor:  # fmt: skip
        q, cache = self.q.to(device, dtype), self.cache.to(device, cache_dtype or dtype)
        return ops.paged_attention(
            q, cache[0], cache[1], self.tables.to(device), self.starts.to(device),
            self.seq_lens.to(device), scale=self.q.shape[-1] ** -0.5, **options,
        )  # fmt: skip


DECODES = [(1, 1), (1, 16), (1, 17), (1, 700), (1, 64), (1, 2000)]
MIXED = [(1, 5), (1, 333), (40, 40), (200, 777), (1, 1)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(8, 8, 128), (8, 2, 64), (12, 4, 80)])
@pytest.mark.parametrize("lengths", [DECODES, MIXED])
@pytest.mark.parametrize("options", [{}, {"window": 50}, {"soft_cap": 5.0}])
def test_paged_attention(
    dtype: torch.dtype, heads: int, kv_heads: int, dim: int,
    lengths: list[tuple[int, int]], options: dict[str, Any],
) -> None:  # fmt: skip
    batch = Batch(lengths, heads, kv_heads, dim, dtype)
    assert_near(batch.run("cuda", dtype, **options), batch.run("cpu", torch.float32, **options))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", ops.HEAD_DIMS)
@pytest.mark.parametrize("lengths", [DECODES, MIXED])
def test_paged_attention_over_a_float8_cache(
    dtype: torch.dtype, dim: int, lengths: list[tuple[int, int]]
) -> None:
    batch = Batch(lengths, 8, 2, dim, torch.float32)
    batch.q = batch.q.to(dtype).float()  # the same queries in both
    options: dict[str, Any] = {
        "cache_dtype": torch.float8_e4m3fn, "k_scale": 0.7, "v_scale": 1.9, "soft_cap": 20.0,
    }  # fmt: skip
    assert_near(batch.run("cuda", dtype, **options), batch.run("cpu", torch.float32, **options))


@pytest.mark.parametrize("bucket", [16, 64])  # few enough for clusters of blocks, and too many
@pytest.mark.parametrize("dtype", FLOATS)
def test_one_plan_serves_layers_and_padded_batches(dtype: torch.dtype, bucket: int) -> None:
    """The bits are those of a batch without padding, with a plan made for any lengths."""
    batch = Batch(DECODES, 8, 2, 128, dtype)
    expected = batch.run("cuda", dtype)
    n = len(DECODES)
    multiprocessors = torch.cuda.get_device_properties("cuda").multi_processor_count
    shape = ops.AttentionPlanShape(
        sequences=bucket, tokens=bucket, max_query_len=1, heads=8, kv_heads=2, head_dim=128,
        window=0, causal=True, multiprocessors=multiprocessors,
    )  # fmt: skip
    plan = shape.plan(batch.starts, batch.seq_lens).cuda()
    workspace = torch.empty(shape.workspace_bytes, dtype=torch.uint8, device="cuda")
    batch.starts = torch.cat([batch.starts, torch.full((bucket - n,), n, dtype=torch.int32)])
    batch.seq_lens = torch.cat([batch.seq_lens, torch.zeros(bucket - n, dtype=torch.int32)])
    batch.tables = torch.cat(
        [batch.tables, torch.zeros(bucket - n, batch.tables.shape[1], dtype=torch.int32)]
    )
    batch.q = torch.cat([batch.q, torch.zeros(bucket - n, 8, 128, dtype=dtype)])
    for _ in range(3):
        got = batch.run("cuda", dtype, plan=plan, workspace=workspace, max_query_len=1)
        assert torch.equal(got[:n], expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("heads", "dim"), [(16, 64), (4, 72), (3, 128)])
@pytest.mark.parametrize("causal", [False, True])
def test_varlen_attention(dtype: torch.dtype, heads: int, dim: int, causal: bool) -> None:
    lengths = [577, 1, 64, 130]
    starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    q, k, v = (randn(sum(lengths), heads, dim, dtype=dtype) for _ in range(3))
    options: dict[str, Any] = {"scale": dim**-0.5, "causal": causal}
    got = ops.varlen_attention(q, k, v, starts.cuda(), starts.cuda(), **options)
    q, k, v = cpu(q, k, v)
    assert_near(got, ops.varlen_attention(q, k, v, starts, starts, **options))


SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "plain": {"temperature": 0.8},
    "top-k": {"top_k": 7},
    "top-p": {"top_p": 0.6},
    "min-p": {"min_p": 0.1},
    "all": {"temperature": 1.3, "top_k": 50, "top_p": 0.9, "min_p": 0.01},
    "penalties": {
        "presence_penalty": 0.5, "frequency_penalty": 0.3, "repetition_penalty": 1.2,
        "prompt_tokens": [[1, 2, 3]] * 24, "output_tokens": [[3, 3, 9]] * 24,
    },
    "bias": {"logit_bias": [[(5, 4.0)]] * 24, "banned_tokens": [[0, 1]] * 24},
    "allowed": {"allowed_tokens": [[2, 500, 31999]] * 24},
}  # fmt: skip


@pytest.mark.parametrize("vocab", [261, 32000])
@pytest.mark.parametrize("name", SAMPLING)
def test_sample(name: str, vocab: int) -> None:
    """Draws agree except where a draw falls on the border of two tokens."""
    logits = 4 * torch.randn(24, vocab)
    options = {"seed": 5, "counter": range(24), "num_logprobs": 3, **SAMPLING[name]}
    got, expected = ops.sample(logits.cuda(), **options), ops.sample(logits, **options)
    same = (got.tokens.cpu() == expected.tokens).sum().item()
    assert same == 24 if name == "greedy" else same >= 23
    for row in range(24):
        if got.tokens[row] != expected.tokens[row]:
            continue
        ours, theirs = got.logprobs[row], expected.logprobs[row]
        assert [(e.token, e.rank) for e in ours] == [(e.token, e.rank) for e in theirs]
        assert [e.logprob for e in ours] == pytest.approx([e.logprob for e in theirs], abs=1e-4)


def test_sample_refuses_a_row_with_nan() -> None:
    logits = torch.randn(3, 100)
    logits[1, 7] = float("nan")
    with pytest.raises(ValueError, match="row 1"):
        ops.sample(logits.cuda())


def test_logprobs() -> None:
    logits = 4 * torch.randn(9, 1000)
    targets = torch.randint(0, 1000, (9,)).tolist()
    got, expected = ops.logprobs(logits.cuda(), targets, 5), ops.logprobs(logits, targets, 5)
    for ours, theirs in zip(got, expected, strict=True):
        assert [(e.token, e.rank) for e in ours] == [(e.token, e.rank) for e in theirs]
        assert [e.logprob for e in ours] == pytest.approx([e.logprob for e in theirs], abs=1e-4)
