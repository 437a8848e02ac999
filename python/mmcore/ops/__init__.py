"""The kernels as functions of torch tensors, on any device that mmcore has kernels for.

Every op is also a ``torch.library`` custom op (``torch.ops.mmcore.*``) with a fake implementation,
so that ``torch.compile``, ``torch.export`` and FakeTensor work; outside of tracing the functions
here call the kernels directly, which saves the dispatcher's tens of microseconds a call.

Floating-point tensors are float32, bfloat16 or float16, one type a call unless said otherwise. Ops
compute no gradients. A tensor that an op cannot take raises
:class:`~mmcore.errors.ValidationError` with the tensor's name, what it is and what was expected.
"""

from mmcore.ops._activation import ACTIVATIONS, activation, activation_mul, silu_mul
from mmcore.ops._attention import (
    HEAD_DIMS,
    copy_blocks,
    paged_attention,
    rope_kv_write,
    varlen_attention,
)
from mmcore.ops._attention_plan import AttentionPlanShape
from mmcore.ops._dispatch import cpu_isa, num_threads, set_cpu_isa, set_num_threads
from mmcore.ops._matrix import embedding_merge, linear, vision_projector
from mmcore.ops._norm import layer_norm, rms_norm
from mmcore.ops._sampling import (
    SampleOutput,
    TokenLogprob,
    logprobs,
    sample,
    sample_tensors,
    sample_tokens,
    uniform,
)

__all__ = [
    "ACTIVATIONS",
    "HEAD_DIMS",
    "AttentionPlanShape",
    "SampleOutput",
    "TokenLogprob",
    "activation",
    "activation_mul",
    "copy_blocks",
    "cpu_isa",
    "embedding_merge",
    "layer_norm",
    "linear",
    "logprobs",
    "num_threads",
    "paged_attention",
    "rms_norm",
    "rope_kv_write",
    "sample",
    "sample_tensors",
    "sample_tokens",
    "set_cpu_isa",
    "set_num_threads",
    "silu_mul",
    "uniform",
    "varlen_attention",
    "vision_projector",
]
