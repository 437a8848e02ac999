"""Paged decode attention: one query token a sequence, keys and values in pages of 16.

Floor: 2.2 us and 3.1 TB/s of keys and values, a read of the pages without any arithmetic. Peers are
torch's attention over contiguous keys of one length, without a page table; for the rest, and where
lengths differ, the label says what the best of FlashInfer, FlashAttention-3, XQA and vLLM's Triton
kernel took on an H100 (`pub`).

Calls stand behind each other, where one begins to read before the one in front has ended. The last
rows have what stands in front of decode in a model: `rope + decode` times the two kernels together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.cuda.graph_timing import buffer_sets
from benchmarks.cuda.table import Case
from mmcore import ops

__all__ = ["cases"]

PAGE = 16
HEADS = {
    "llava7b": (32, 32, 128),
    "llama3": (32, 8, 128),
    "qwen2vl7b": (28, 4, 128),
    "smolvlm": (9, 3, 64),
}
"""Query heads, key/value heads, width of a head."""

ALIKE = (
    ("llava7b", 1, 1024, 11.2),
    ("llava7b", 8, 512, 28.6),
    ("llava7b", 8, 1024, 51.7),
    ("llava7b", 32, 1024, 181.6),
    ("llava7b", 1, 4096, 30.5),
    ("llama3", 1, 1024, 8.2),
    ("llama3", 8, 1024, 17.2),
    ("llama3", 32, 512, 30.2),
    ("llama3", 32, 1024, 51.9),
    ("llama3", 128, 1024, 186.9),
    ("llama3", 1, 16384, 32.1),
    ("qwen2vl7b", 1, 1024, 8.1),
    ("qwen2vl7b", 8, 1024, 11.6),
    ("qwen2vl7b", 128, 1024, 97.0),
    ("qwen2vl7b", 1, 16384, 22.6),
    ("smolvlm", 1, 512, 6.7),
    ("smolvlm", 8, 1024, 7.8),
    ("smolvlm", 32, 512, 9.5),
    ("smolvlm", 128, 1024, 44.5),
    ("smolvlm", 1, 16384, 13.7),
    ("smolvlm", 8, 16384, 47.3),
)
"""Heads, sequences, keys of each, published microseconds of the best peer."""

SKEWED = (
    ("llava7b", "16k+31x512", [16384] + [512] * 31, 183.0),
    ("llava7b", "8k+7x256", [8192] + [256] * 7, 64.8),
    ("llama3", "16k+31x512", [16384] + [512] * 31, 55.9),
    ("llama3", "8k+7x256", [8192] + [256] * 7, 23.0),
    ("smolvlm", "16k+31x512", [16384] + [512] * 31, 17.2),
    ("smolvlm", "8k+7x256", [8192] + [256] * 7, 10.0),
)


def _error(got: Tensor, q: Tensor, k: Tensor, v: Tensor, tables: Tensor, lens: list[int]) -> float:
    """Compare with float64, a sequence at a time."""
    group = q.shape[1] // k.shape[2]
    errors, sizes = 0.0, 0.0
    for n, length in enumerate(lens):
        pages = tables[n, : -(-length // PAGE)].long()
        keys, values = (
            t[pages].flatten(0, 1)[:length].double().repeat_interleave(group, dim=1) for t in (k, v)
        )
        scores = torch.einsum("hd,jhd->hj", q[n].double(), keys) * q.shape[2] ** -0.5
        want = torch.einsum("hj,jhd->hd", scores.softmax(-1), values)
        errors += float((got[n].double() - want).square().sum())
        sizes += float(want.square().sum())
    return float((errors / sizes) ** 0.5)


def _check(
    call: Callable[[], Tensor], tensors: tuple[Tensor, Tensor, Tensor, Tensor], lens: list[int]
) -> float:
    return _error(call(), *tensors, lens)


def _torch_calls(
    heads: tuple[int, int, int], sequences: int, length: int, sets: int, backend: SDPBackend
) -> list[Callable[[], object]]:
    q_heads, kv_heads, dim = heads

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, enable_gqa=q_heads != kv_heads
            )

    kwargs = {"device": "cuda", "dtype": torch.bfloat16}
    calls: list[Callable[[], object]] = []
    for _ in range(sets):
        q = torch.randn(sequences, q_heads, 1, dim, **kwargs)  # type: ignore[call-overload]
        k, v = (
            torch.randn(sequences, kv_heads, length, dim, **kwargs)  # type: ignore[call-overload]
            for _ in range(2)
        )
        calls.append(partial(call, q, k, v))
    return calls


def _rivals(
    heads: tuple[int, int, int], lens: list[int], sets: int
) -> dict[str, Sequence[Callable[[], object]]]:
    rivals: dict[str, Sequence[Callable[[], object]]] = {}
    if len(set(lens)) > 1:
        return rivals
    for name, backend in (
        ("SDPA flash", SDPBackend.FLASH_ATTENTION),
        ("SDPA cuDNN", SDPBackend.CUDNN_ATTENTION),
    ):
        try:
            calls = _torch_calls(heads, len(lens), lens[0], sets, backend)
            calls[0]()
        except RuntimeError:  # a backend that does not take the shape
            continue
        rivals[name] = calls
    return rivals


def _rope_call(
    q: Tensor, k: Tensor, v: Tensor, tables: Tensor, lens: list[int], cos_sin: Tensor
) -> Callable[[], None]:
    """Rotate the newest tokens and write them to the cache."""
    last = torch.tensor(lens, device="cuda") - 1
    pages = tables.gather(1, (last // PAGE)[:, None]).flatten().long()
    new = torch.randn(2, len(lens), *k.shape[2:], dtype=k.dtype, device="cuda")
    return partial(
        ops.rope_kv_write, q, new[0], new[1], positions=last, cos_sin=cos_sin,
        k_cache=k, v_cache=v, slot_mapping=pages * PAGE + last % PAGE,
    )  # fmt: skip


def _both(first: Callable[[], None], second: Callable[[], Tensor]) -> Tensor:
    first()
    return second()


def _make(
    heads: tuple[int, int, int], lens: list[int], behind_rope: bool
) -> tuple[
    Sequence[Callable[[], object]],
    dict[str, Sequence[Callable[[], object]]],
    Callable[[], float],
]:
    torch.manual_seed(0)
    q_heads, kv_heads, dim = heads
    widths = [-(-length // PAGE) for length in lens]
    pages = sum(widths)
    sets = buffer_sets(4 * pages * PAGE * kv_heads * dim)
    starts = torch.arange(len(lens) + 1, dtype=torch.int32)
    seq_lens = torch.tensor(lens, dtype=torch.int32)
    kwargs = {"device": "cuda", "dtype": torch.bfloat16}
    cos_sin = torch.randn(max(lens), dim, device="cuda") if behind_rope else None
    calls: list[Callable[[], Tensor]] = []
    first: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
    workspace: Tensor | None = None
    for _ in range(sets):
        q = torch.randn(len(lens), q_heads, dim, **kwargs)  # type: ignore[call-overload]
        k, v = (
            torch.randn(pages, PAGE, kv_heads, dim, **kwargs)  # type: ignore[call-overload]
            for _ in range(2)
        )
        order = torch.randperm(pages, dtype=torch.int32, device="cuda")
        tables = torch.zeros(len(lens), max(widths), dtype=torch.int32, device="cuda")
        for n, end in enumerate(accumulate(widths)):
            tables[n, : widths[n]] = order[end - widths[n] : end]
        shape = ops.AttentionPlanShape.of(q, k, seq_lens, max_query_len=1)
        if workspace is None:
            workspace = torch.empty(shape.workspace_bytes, dtype=torch.uint8, device="cuda")
        call = partial(
            ops.paged_attention, q, k, v, tables, starts.cuda(), seq_lens.cuda(),
            scale=dim**-0.5, out=torch.empty_like(q),
            plan=shape.plan(starts, seq_lens, settled=True).cuda(),
            workspace=workspace, max_query_len=1,
        )  # fmt: skip
        if cos_sin is not None:
            call = partial(_both, _rope_call(q, k, v, tables, lens, cos_sin), call)
        calls.append(call)
        first = first or (q, k, v, tables)
    assert first is not None
    rivals = {} if behind_rope else _rivals(heads, lens, sets)
    return calls, rivals, partial(_check, calls[0], first, lens)


def _case(
    name: str, label: str, lens: list[int], published: float, behind_rope: bool = False
) -> Case:
    q_heads, kv_heads, dim = HEADS[name]
    floor = 2.2 + 4 * sum(lens) * kv_heads * dim / 3.1e6
    return Case(
        "rope + decode" if behind_rope else "paged decode",
        f"{name} {label}" + ("" if behind_rope else f" (pub {published:g})"),
        partial(_make, (q_heads, kv_heads, dim), lens, behind_rope),
        floor,
    )


def cases() -> list[Case]:
    """List the shapes."""
    alike = [_case(name, f"{n}x{keys}", [keys] * n, us) for name, n, keys, us in ALIKE]
    skewed = [_case(name, label, lens, us) for name, label, lens, us in SKEWED]
    small = [
        _case(name, f"{n}x{keys}", [keys] * n, us, behind_rope=True)
        for name, n, keys, us in ALIKE
        if n <= 8 and keys <= 1024
    ]
    return alike + skewed + small
