"""The ops that move rows: norms, activations, rotary embedding with the KV write, the merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cuda.graph_timing import buffer_sets
from benchmarks.cuda.table import Case
from mmcore._C import ops

__all__ = ["cases"]

Call = Callable[[], object]
Calls = Sequence[Call]
Made = tuple[Calls, dict[str, Calls], Callable[[], float]]

ACT = ops.ACTIVATIONS
TOKENS = (1, 64, 2048)
LAUNCH_US = 1.1
COPY_BYTES_PER_US = 2.8e6
"""An H100's memory, as much read as written, at 256 MiB."""


def cases() -> list[Case]:
    """List norms and activations of a 7B decoder and its tower, rotary embedding, and the merge."""
    torch.manual_seed(0)
    listed = []
    for tokens in TOKENS:
        listed += [rms_norm(tokens, 4096), add_rms_norm(tokens, 4096), silu_mul(tokens, 11008)]
        listed.append(rope_kv_write(tokens, 32, 32, 128))
    listed += [rms_norm(2048, 576), layer_norm(577, 1024), layer_norm(8 * 577, 1024)]
    listed += [quick_gelu(577, 4096), quick_gelu(8 * 577, 4096), gelu(8 * 576, 4096)]
    listed += [rope_kv_write(64, 32, 8, 128), rope_kv_write(2048, 9, 3, 64)]
    listed += [embedding_merge(images) for images in (1, 8, 32)]
    return listed


def floor_us(bytes_moved: int) -> float:
    """Give the time of a kernel that does nothing but move these bytes."""
    return bytes_moved / COPY_BYTES_PER_US + LAUNCH_US


def relative_error(got: Tensor, want: Tensor) -> float:
    """Give the root-mean-square error relative to the root mean square of `want`."""
    difference = (got.double() - want).square().mean().sqrt()
    return float(difference / want.square().mean().sqrt())


def random(*shape: int) -> Tensor:
    """Draw bfloat16 values on the device."""
    return torch.randn(*shape, device="cuda").bfloat16()


def compiled(function: Callable[..., object], *arguments: object) -> Callable[..., object] | None:
    """Compile `function`, or give None where torch cannot do so on this machine."""
    try:
        # Sizes are fixed in the kernels of a model's graph, so they are here.
        torch._dynamo.reset()
        fast: Callable[..., object] = torch.compile(function, dynamic=False)
        fast(*arguments)
    except Exception:  # whatever is missing there, the other rivals remain
        return None
    return fast


def with_compiled(
    function: Callable[..., object], arguments: Sequence[tuple[object, ...]]
) -> dict[str, Calls]:
    """Give torch's eager function and its compiled form as rivals.

    Compiling takes seconds a shape: only long ones, where it gains most, and where it works.
    """
    rivals: dict[str, Calls] = {"torch": [retained(function, a) for a in arguments]}
    first = arguments[0][0]
    is_long = isinstance(first, Tensor) and first.shape[0] == max(TOKENS)
    fast = compiled(function, *arguments[0]) if is_long else None
    if fast is not None:
        rivals["torch.compile"] = [retained(fast, a) for a in arguments]
    return rivals


def bound(function: Callable[..., object], arguments: tuple[object, ...]) -> Call:
    """Bind arguments."""
    return lambda: function(*arguments)


def retained(function: Callable[..., object], arguments: tuple[object, ...]) -> Call:
    """Bind arguments and keep the last result.

    Without that, the allocator hands every call the same memory for its result, which then never
    leaves the L2 cache, while ours go to device memory.
    """
    last: list[object] = [None]

    def call() -> None:
        last[0] = function(*arguments)

    return call


def rms_norm(tokens: int, hidden: int) -> Case:
    """out = x / rms(x) * weight."""
    moved = 2 * tokens * hidden * 2 + hidden * 2

    def make() -> Made:
        weight = random(hidden)
        sets = [
            (random(tokens, hidden), torch.empty(tokens, hidden, device="cuda").bfloat16())
            for _ in range(buffer_sets(moved))
        ]

        def torch_norm(x: Tensor) -> Tensor:
            return F.rms_norm(x, (hidden,), weight, 1e-6)

        def check() -> float:
            x, out = sets[0]
            ops.rms_norm(x, weight, out, None, 1e-6)
            return relative_error(out, F.rms_norm(x.double(), (hidden,), weight.double(), 1e-6))

        ours = [bound(ops.rms_norm, (x, weight, out, None, 1e-6)) for x, out in sets]
        return ours, with_compiled(torch_norm, [(x,) for x, _ in sets]), check

    return Case("rms_norm", f"[{tokens}, {hidden}]", make, floor_us(moved))


def add_rms_norm(tokens: int, hidden: int) -> Case:
    """residual += x, then its norm."""
    moved = 4 * tokens * hidden * 2 + hidden * 2

    def make() -> Made:
        weight = random(hidden)
        sets = [
            (random(tokens, hidden), random(tokens, hidden), random(tokens, hidden))
            for _ in range(buffer_sets(moved))
        ]

        def torch_norm(x: Tensor, residual: Tensor) -> Tensor:
            return F.rms_norm(residual.add_(x), (hidden,), weight, 1e-6)

        def check() -> float:
            x, residual, out = sets[0]
            added = (residual + x).double()
            ops.rms_norm(x, weight, out, residual, 1e-6)
            wrong = 0.0 if torch.equal(residual.double(), added) else 1.0
            return wrong + relative_error(out, F.rms_norm(added, (hidden,), weight.double(), 1e-6))

        ours = [bound(ops.rms_norm, (x, weight, out, r, 1e-6)) for x, r, out in sets]
        return ours, with_compiled(torch_norm, [(x, r) for x, r, _ in sets]), check

    return Case("rms_norm + residual", f"[{tokens}, {hidden}]", make, floor_us(moved))


def layer_norm(tokens: int, hidden: int) -> Case:
    """The vision tower's norm."""
    moved = 2 * tokens * hidden * 2 + hidden * 4

    def make() -> Made:
        weight, bias = random(hidden), random(hidden)
        sets = [(random(tokens, hidden), random(tokens, hidden)) for _ in range(buffer_sets(moved))]

        def torch_norm(x: Tensor) -> Tensor:
            return F.layer_norm(x, (hidden,), weight, bias, 1e-5)

        def check() -> float:
            x, out = sets[0]
            ops.layer_norm(x, weight, bias, out, 1e-5)
            return relative_error(
                out, F.layer_norm(x.double(), (hidden,), weight.double(), bias.double(), 1e-5)
            )

        ours = [bound(ops.layer_norm, (x, weight, bias, out, 1e-5)) for x, out in sets]
        return ours, with_compiled(torch_norm, [(x,) for x, _ in sets]), check

    return Case("layer_norm", f"[{tokens}, {hidden}]", make, floor_us(moved))


def elementwise(
    name: str, act: str, tokens: int, width: int, torch_act: Callable[[Tensor], Tensor]
) -> Case:
    """out = act(x)."""
    moved = 2 * tokens * width * 2

    def make() -> Made:
        sets = [(random(tokens, width), random(tokens, width)) for _ in range(buffer_sets(moved))]

        def check() -> float:
            x, out = sets[0]
            ops.activation(x, ACT[act], out)
            return relative_error(out, torch_act(x.double()))

        ours = [bound(ops.activation, (x, ACT[act], out)) for x, out in sets]
        return ours, with_compiled(torch_act, [(x,) for x, _ in sets]), check

    return Case(name, f"[{tokens}, {width}]", make, floor_us(moved))


def quick_gelu(tokens: int, width: int) -> Case:
    """CLIP's activation."""
    return elementwise(
        "quick_gelu", "quick_gelu", tokens, width, lambda x: x * torch.sigmoid(1.702 * x)
    )


def gelu(tokens: int, width: int) -> Case:
    """The projector's activation, by the error function."""
    return elementwise("gelu", "gelu", tokens, width, F.gelu)


def silu_mul(tokens: int, inner: int) -> Case:
    """The decoders' gated activation."""
    moved = 3 * tokens * inner * 2

    def make() -> Made:
        sets = [
            (random(tokens, 2 * inner), random(tokens, inner)) for _ in range(buffer_sets(moved))
        ]

        def in_torch(x: Tensor) -> Tensor:
            return F.silu(x[:, :inner]) * x[:, inner:]

        def check() -> float:
            x, out = sets[0]
            ops.activation_mul(x, ACT["silu"], out)
            return relative_error(out, in_torch(x.double()))

        ours = [bound(ops.activation_mul, (x, ACT["silu"], out)) for x, out in sets]
        return ours, with_compiled(in_torch, [(x,) for x, _ in sets]), check

    return Case("silu_mul", f"[{tokens}, 2 x {inner}]", make, floor_us(moved))


def rope_kv_write(tokens: int, heads: int, kv_heads: int, dim: int) -> Case:
    """Rotate q in place, write rotated k and v to pages of 16."""
    moved = 2 * tokens * dim * (2 * heads + 2 * kv_heads + 2 * kv_heads)

    def make() -> Made:
        angles = torch.outer(torch.arange(4096.0), 10000.0 ** (-torch.arange(0, dim, 2) / dim))
        cos_sin = torch.cat([angles.cos(), angles.sin()], -1).cuda()
        positions = torch.randint(4096, (tokens,), device="cuda")
        blocks = -(-tokens // 16) + 1
        slots = torch.randperm(blocks * 16, device="cuda")[:tokens]

        def tensors() -> tuple[Tensor, ...]:
            caches = (random(blocks, 16, kv_heads, dim) for _ in range(2))
            q, k, v = (random(tokens, n, dim) for n in (heads, kv_heads, kv_heads))
            return q, k, v, *caches

        def in_torch(q: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor) -> None:
            cos, sin = cos_sin[positions].to(q.dtype).chunk(2, -1)
            cos, sin = torch.cat([cos, cos], -1)[:, None], torch.cat([sin, sin], -1)[:, None]
            for x in (q, k):
                half = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1)
                x.copy_(x * cos + half * sin)
            k_cache.view(-1, kv_heads, dim).index_copy_(0, slots, k)
            v_cache.view(-1, kv_heads, dim).index_copy_(0, slots, v)

        def call(t: tuple[Tensor, ...]) -> Call:
            q, k, v, k_cache, v_cache = t
            return lambda: ops.rope_kv_write(
                q, k, v, positions, cos_sin, k_cache, v_cache, slots, keep_k=False
            )

        sets = [tensors() for _ in range(buffer_sets(moved))]

        def check() -> float:
            q, k, v, k_cache, v_cache = sets[0]
            want = []
            for x in (q, k):
                cos, sin = (c[:, None] for c in cos_sin[positions].double().chunk(2, -1))
                first, second = x.double().chunk(2, -1)
                want.append(torch.cat([first * cos - second * sin, second * cos + first * sin], -1))
            call(sets[0])()
            keys, values = (cache.view(-1, kv_heads, dim)[slots] for cache in (k_cache, v_cache))
            exact = torch.equal(values, v)
            errors = [relative_error(got, w) for got, w in zip((q, keys), want, strict=True)]
            return max(errors) if exact else 1.0

        return [call(t) for t in sets], with_compiled(in_torch, sets), check

    return Case(
        "rope_kv_write", f"{tokens} tokens, {heads}/{kv_heads} x {dim}", make, floor_us(moved)
    )


def embedding_merge(images: int) -> Case:
    """640 rows of 4096 an image: 64 of text, 576 of its features."""
    rows, hidden, vocab = 640 * images, 4096, 32064
    moved = 2 * rows * hidden * 2

    def make() -> Made:
        table = random(vocab, hidden)
        source = torch.full((rows,), -1, device="cuda")
        is_media = torch.arange(rows, device="cuda") % 640 >= 64
        source[is_media] = torch.arange(576 * images, device="cuda")
        ids = torch.randint(vocab, (rows,), device="cuda")
        sets = [
            (random(576 * images, hidden), random(rows, hidden)) for _ in range(buffer_sets(moved))
        ]
        at = is_media.nonzero().flatten()

        def scatter(media: Tensor) -> Tensor:
            return F.embedding(ids, table).masked_scatter(is_media[:, None], media)

        def index_copy(media: Tensor) -> Tensor:
            return F.embedding(ids, table).index_copy_(0, at, media)

        def check() -> float:
            media, out = sets[0]
            ops.embedding_merge(ids, table, source, media, out)
            return 0.0 if torch.equal(out, index_copy(media)) else 1.0

        ours = [bound(ops.embedding_merge, (ids, table, source, m, out)) for m, out in sets]
        rivals: dict[str, Calls] = {
            "embed + masked_scatter": [retained(scatter, (m,)) for m, _ in sets],
            "embed + index_copy": [retained(index_copy, (m,)) for m, _ in sets],
        }
        return ours, rivals, check

    return Case("embedding_merge", f"{rows} rows of {hidden}", make, floor_us(moved))
