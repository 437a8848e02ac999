"""Matrix products and embedding look-ups."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcore import _C
from mmcore.ops._activation import activation_number
from mmcore.ops._dispatch import is_traced, returned

__all__ = ["embedding_merge", "linear", "vision_projector"]


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    act: str = "none",
    out: Tensor | None = None,
    out_rows: Tensor | None = None,
    steady_weight: bool = False,
) -> Tensor:
    """Multiply with a weight matrix, add a bias, apply an activation.

    Parameters
    ----------
    x
        [..., K].
    weight
        [N, K].
    bias
        [N].
    act
        A name of :data:`~mmcore.ops.ACTIVATIONS`.
    out
        [..., N], or [R, N] with `out_rows`; allocated when left out.
    out_rows
        int64 [T]: row m of the flattened result goes to row ``out_rows[m]`` of `out`; a negative
        entry drops the row. Needs `out`.
    steady_weight
        Promises that nothing right in front of the call on the stream writes `weight`, so that a
        GPU may read it before that has ended.

    Returns
    -------
    Tensor
        ``act(x @ weight.T + bias)``, or `out`.
    """
    if out_rows is not None and out is None:
        raise ValueError("linear: out_rows says where rows of `out` go, so `out` must be given.")
    if is_traced(x):
        if out_rows is None or out is None:
            return returned(_linear_op(x, weight, bias, act), out)
        _linear_rows_op(x, weight, bias, out, out_rows, act)
        return out
    return _run_linear(x, weight, bias, act, out, out_rows, steady_weight)


def _run_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    act: str,
    out: Tensor | None,
    out_rows: Tensor | None,
    steady_weight: bool = False,
) -> Tensor:
    number = activation_number(act)
    if x.dim() == 2:  # the usual case, kept short: it runs many times a token
        if out is None:
            out = x.new_empty((x.shape[0], weight.shape[0]))
        _C.ops.linear(x, weight, bias, out, out_rows, number, steady_weight)
        return out
    features = weight.shape[0]
    if out is None:
        out = x.new_empty((*x.shape[:-1], features))
    flat_out = out if out_rows is not None else out.view(-1, features)
    flat_x = x.reshape(-1, x.shape[-1])
    _C.ops.linear(flat_x, weight, bias, flat_out, out_rows, number, steady_weight)
    return out


def vision_projector(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    act: str = "gelu",
    rows: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Project encoder features into the decoder's embedding space, straight into its rows.

    Parameters
    ----------
    x
        [..., K] encoder features.
    w1, b1
        [M, K] and [M].
    w2, b2
        [H, M] and [H].
    act
        Between the two layers; a name of :data:`~mmcore.ops.ACTIVATIONS`.
    rows
        int64 [T]: where each flattened row goes in `out`; rows with a negative entry are not
        computed at all. Needs `out`. Without it rows keep their order.
    out
        [..., H], or [R, H] with `rows`; allocated when left out.

    Returns
    -------
    Tensor
        ``act(x @ w1.T + b1) @ w2.T + b2``, or `out`.
    """
    if rows is not None and out is None:
        raise ValueError("vision_projector: rows says where rows of `out` go; `out` must be given.")
    if is_traced(x):
        if rows is None or out is None:
            return returned(_vision_projector_op(x, w1, b1, w2, b2, act), out)
        _vision_projector_rows_op(x, w1, b1, w2, b2, rows, out, act)
        return out
    return _run_vision_projector(x, w1, b1, w2, b2, act, rows, out)


def _run_vision_projector(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    act: str,
    rows: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    if out is None:
        out = x.new_empty((*x.shape[:-1], w2.shape[0]))
    size = _C.ops.vision_projector_workspace_bytes(flat.shape[0], w1.shape[0], x)
    workspace = torch.empty(size, dtype=torch.uint8, device=x.device)
    flat_out = out if rows is not None else out.view(-1, w2.shape[0])
    _C.ops.vision_projector(flat, w1, b1, w2, b2, rows, flat_out, workspace, activation_number(act))
    return out


def embedding_merge(
    token_ids: Tensor,
    table: Tensor,
    source: Tensor | None = None,
    media: Tensor | None = None,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Look tokens up and put media rows in their places, in one pass.

    Parameters
    ----------
    token_ids
        int32 or int64 [T]. Ids of media tokens are not looked up, so they need not be in the table.
    table
        [V, H].
    source
        int64 [T]: the row of `media` for each token, negative for text. All text when left out.
    media
        [M, H].
    out
        [T, H]; allocated when left out.

    Raises
    ------
    ValidationError
        If an id is outside the table or a row outside `media` (on the CPU; elsewhere the caller
        checks).
    """
    if is_traced(table):
        return returned(_embedding_merge_op(token_ids, table, source, media), out)
    return _run_embedding_merge(token_ids, table, source, media, out)


def _run_embedding_merge(
    token_ids: Tensor,
    table: Tensor,
    source: Tensor | None,
    media: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    if out is None:
        out = table.new_empty((token_ids.shape[0], table.shape[1]))
    _C.ops.embedding_merge(token_ids, table, source, media, out)
    return out


@torch.library.custom_op(
    "mmcore::linear",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, str act) -> Tensor",
)
def _linear_op(x: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
    return _run_linear(x, weight, bias, act, None, None)


@_linear_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@torch.library.custom_op(
    "mmcore::linear_rows",
    mutates_args=("out",),
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor(a!) out, Tensor out_rows, str act)"
    " -> ()",
)
def _linear_rows_op(
    x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, out_rows: Tensor, act: str
) -> None:
    _run_linear(x, weight, bias, act, out, out_rows)


@_linear_rows_op.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, out_rows: Tensor, act: str
) -> None:
    return None


@torch.library.custom_op(
    "mmcore::vision_projector",
    mutates_args=(),
    schema="(Tensor x, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, str act) -> Tensor",
)
def _vision_projector_op(
    x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str
) -> Tensor:
    return _run_vision_projector(x, w1, b1, w2, b2, act, None, None)


@_vision_projector_op.register_fake
def _(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], w2.shape[0]))


@torch.library.custom_op(
    "mmcore::vision_projector_rows",
    mutates_args=("out",),
    schema="(Tensor x, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, Tensor rows, Tensor(a!) out,"
    " str act) -> ()",
)
def _vision_projector_rows_op(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    rows: Tensor,
    out: Tensor,
    act: str,
) -> None:
    _run_vision_projector(x, w1, b1, w2, b2, act, rows, out)


@_vision_projector_rows_op.register_fake
def _(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    rows: Tensor,
    out: Tensor,
    act: str,
) -> None:
    return None


@torch.library.custom_op(
    "mmcore::embedding_merge",
    mutates_args=(),
    schema="(Tensor token_ids, Tensor table, Tensor? source, Tensor? media) -> Tensor",
)
def _embedding_merge_op(
    token_ids: Tensor, table: Tensor, source: Tensor | None, media: Tensor | None
) -> Tensor:
    return _run_embedding_merge(token_ids, table, source, media, None)


@_embedding_merge_op.register_fake
def _(token_ids: Tensor, table: Tensor, source: Tensor | None, media: Tensor | None) -> Tensor:
    return table.new_empty((token_ids.shape[0], table.shape[1]))
