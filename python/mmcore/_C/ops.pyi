# Written by scripts/generate_stubs.py; do not edit.
"""
The kernels, over anything that speaks DLPack.
"""

from __future__ import annotations
import collections.abc
import typing

__all__: list[str] = [
    "ACTIVATIONS",
    "CPU_ISAS",
    "activation",
    "activation_mul",
    "attention_plan_words",
    "copy_blocks",
    "cpu_isa",
    "embedding_merge",
    "layer_norm",
    "linear",
    "logprobs",
    "num_threads",
    "paged_attention",
    "paged_attention_workspace_bytes",
    "plan_paged_attention",
    "rms_norm",
    "rope_kv_write",
    "sample",
    "sample_tensors",
    "sample_tensors_workspace_bytes",
    "set_cpu_isa",
    "set_num_threads",
    "uniform",
    "varlen_attention",
    "vision_projector",
    "vision_projector_workspace_bytes",
]

def activation(
    x: typing.Any, act: typing.SupportsInt | typing.SupportsIndex, out: typing.Any
) -> None: ...
def activation_mul(
    x: typing.Any, act: typing.SupportsInt | typing.SupportsIndex, out: typing.Any
) -> None: ...
def attention_plan_words(
    sequences: typing.SupportsInt | typing.SupportsIndex,
    tokens: typing.SupportsInt | typing.SupportsIndex,
    max_query_len: typing.SupportsInt | typing.SupportsIndex,
    heads: typing.SupportsInt | typing.SupportsIndex,
    kv_heads: typing.SupportsInt | typing.SupportsIndex,
    head_dim: typing.SupportsInt | typing.SupportsIndex,
    window: typing.SupportsInt | typing.SupportsIndex,
    causal: bool,
    multiprocessors: typing.SupportsInt | typing.SupportsIndex,
) -> int: ...
def copy_blocks(cache: typing.Any, pairs: typing.Any) -> None: ...
def cpu_isa() -> int: ...
def embedding_merge(
    token_ids: typing.Any, table: typing.Any, source: typing.Any, media: typing.Any, out: typing.Any
) -> None: ...
def layer_norm(
    x: typing.Any,
    weight: typing.Any,
    bias: typing.Any,
    out: typing.Any,
    eps: typing.SupportsFloat | typing.SupportsIndex = 9.999999747378752e-06,
) -> None: ...
def linear(
    x: typing.Any,
    weight: typing.Any,
    bias: typing.Any,
    out: typing.Any,
    out_rows: typing.Any = None,
    act: typing.SupportsInt | typing.SupportsIndex = 0,
    steady_weight: bool = False,
) -> None: ...
def logprobs(
    logits: typing.Any,
    targets: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    num: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
) -> list: ...
def num_threads() -> int: ...
def paged_attention(
    q: typing.Any,
    k_cache: typing.Any,
    v_cache: typing.Any,
    block_tables: typing.Any,
    query_start: typing.Any,
    seq_lens: typing.Any,
    out: typing.Any,
    scale: typing.SupportsFloat | typing.SupportsIndex,
    soft_cap: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    window: typing.SupportsInt | typing.SupportsIndex = 0,
    causal: bool = True,
    plan: typing.Any = None,
    workspace: typing.Any = None,
    max_query_len: typing.SupportsInt | typing.SupportsIndex = 0,
    k_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    v_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0,
) -> None: ...
def paged_attention_workspace_bytes(
    sequences: typing.SupportsInt | typing.SupportsIndex,
    tokens: typing.SupportsInt | typing.SupportsIndex,
    max_query_len: typing.SupportsInt | typing.SupportsIndex,
    heads: typing.SupportsInt | typing.SupportsIndex,
    kv_heads: typing.SupportsInt | typing.SupportsIndex,
    head_dim: typing.SupportsInt | typing.SupportsIndex,
    window: typing.SupportsInt | typing.SupportsIndex,
    causal: bool,
    multiprocessors: typing.SupportsInt | typing.SupportsIndex,
) -> int: ...
def plan_paged_attention(
    query_start: typing.Any,
    seq_lens: typing.Any,
    plan: typing.Any,
    sequences: typing.SupportsInt | typing.SupportsIndex,
    tokens: typing.SupportsInt | typing.SupportsIndex,
    max_query_len: typing.SupportsInt | typing.SupportsIndex,
    heads: typing.SupportsInt | typing.SupportsIndex,
    kv_heads: typing.SupportsInt | typing.SupportsIndex,
    head_dim: typing.SupportsInt | typing.SupportsIndex,
    window: typing.SupportsInt | typing.SupportsIndex,
    causal: bool,
    multiprocessors: typing.SupportsInt | typing.SupportsIndex,
    settled: bool = False,
) -> None: ...
def rms_norm(
    x: typing.Any,
    weight: typing.Any,
    out: typing.Any,
    residual: typing.Any = None,
    eps: typing.SupportsFloat | typing.SupportsIndex = 9.999999974752427e-07,
) -> None: ...
def rope_kv_write(
    q: typing.Any,
    k: typing.Any,
    v: typing.Any,
    positions: typing.Any = None,
    cos_sin: typing.Any = None,
    k_cache: typing.Any = None,
    v_cache: typing.Any = None,
    slot_mapping: typing.Any = None,
    interleaved: bool = False,
    sections: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(3)"
    ] = [0, 0, 0],
    sections_interleaved: bool = False,
    k_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    v_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    keep_k: bool = True,
) -> None: ...
def sample(
    logits: typing.Any,
    *,
    temperature: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [],
    top_p: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [],
    top_k: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [],
    min_p: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [],
    presence_penalty: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [],
    frequency_penalty: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [],
    repetition_penalty: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [],
    seed: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [],
    counter: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [],
    num_logprobs: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [],
    prompt_tokens: collections.abc.Sequence[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ] = [],
    output_tokens: collections.abc.Sequence[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ] = [],
    logit_bias: collections.abc.Sequence[
        collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsFloat | typing.SupportsIndex,
            ]
        ]
    ] = [],
    allowed_tokens: collections.abc.Sequence[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ] = [],
    banned_tokens: collections.abc.Sequence[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ] = [],
) -> tuple:
    """
    Picks a token a row. Gives tokens, lists of (token, logprob, rank), and an exception or None a row.
    """

def sample_tensors(
    logits: typing.Any,
    temperature: typing.Any,
    top_p: typing.Any,
    min_p: typing.Any,
    top_k: typing.Any,
    seed: typing.Any,
    counter: typing.Any,
    tokens: typing.Any,
    workspace: typing.Any = None,
) -> None: ...
def sample_tensors_workspace_bytes(
    rows: typing.SupportsInt | typing.SupportsIndex,
    vocab: typing.SupportsInt | typing.SupportsIndex,
) -> int: ...
def set_cpu_isa(isa: typing.SupportsInt | typing.SupportsIndex) -> None: ...
def set_num_threads(n: typing.SupportsInt | typing.SupportsIndex) -> None: ...
def uniform(
    seed: typing.SupportsInt | typing.SupportsIndex,
    counter: typing.SupportsInt | typing.SupportsIndex,
) -> float: ...
def varlen_attention(
    q: typing.Any,
    k: typing.Any,
    v: typing.Any,
    cu_q: typing.Any,
    cu_k: typing.Any,
    out: typing.Any,
    scale: typing.SupportsFloat | typing.SupportsIndex,
    soft_cap: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    window: typing.SupportsInt | typing.SupportsIndex = 0,
    causal: bool = False,
) -> None: ...
def vision_projector(
    x: typing.Any,
    w1: typing.Any,
    b1: typing.Any,
    w2: typing.Any,
    b2: typing.Any,
    rows: typing.Any,
    out: typing.Any,
    workspace: typing.Any,
    act: typing.SupportsInt | typing.SupportsIndex = 1,
) -> None: ...
def vision_projector_workspace_bytes(
    tokens: typing.SupportsInt | typing.SupportsIndex,
    intermediate: typing.SupportsInt | typing.SupportsIndex,
    like: typing.Any,
) -> int: ...

ACTIVATIONS: dict[str, int]
CPU_ISAS: dict[str, int]
