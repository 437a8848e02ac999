"""What an engine is built from: the model, its caches, its scheduler, its device.

A value is checked where it is given; a check that needs the checkpoint loads its config.json.
Nothing here imports torch or transformers until a model's configuration is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mmcore._checks import as_finite, int_at_least, one_of, require
from mmcore.errors import CheckpointError, ValidationError
from mmcore.hf_config import (
    check_model_folder,
    checkpoint_dtype_name,
    derive_max_model_len,
    load_hf_config,
    load_image_processor_config,
    text_config_of,
)

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig

__all__ = [
    "CacheConfig",
    "DeviceConfig",
    "LoadConfig",
    "ModelConfig",
    "MultiModalConfig",
    "SchedulerConfig",
]

_DTYPES: Mapping[str, str] = {
    "half": "float16",
    "float16": "float16",
    "float": "float32",
    "float32": "float32",
    "bfloat16": "bfloat16",
}


@dataclass(frozen=True, slots=True)
class MultiModalConfig:
    """Limits of a multi-modal model.

    Parameters
    ----------
    limit_per_prompt
        Most items of each modality in one prompt; 1 for a modality that is not named.
    """

    limit_per_prompt: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.limit_per_prompt, Mapping):
            raise ValidationError(
                "limit_mm_per_prompt must map modalities to numbers, for example "
                f'{{"image": 2}}; got {self.limit_per_prompt!r}.'
            )
        for modality, limit in self.limit_per_prompt.items():
            if not isinstance(modality, str):
                raise ValidationError(
                    f"limit_mm_per_prompt's keys must be strings, got {modality!r}."
                )
            int_at_least(f"limit_mm_per_prompt[{modality!r}]", limit, 0)


class ModelConfig:
    """A checkpoint and how to run it.

    The checkpoint's configuration is loaded when it is first asked for, or at once where an
    argument cannot be checked without it.

    Parameters
    ----------
    model
        A folder with config.json and safetensors files, or a hub name.
    tokenizer
        Where the tokenizer is, if not with the model.
    dtype
        ``"auto"`` for the checkpoint's own, or one of float32, float16 (half), bfloat16.
    seed
        Seed of dummy weights and of anything else that is random.
    max_model_len
        Most tokens in a sequence; None for the model's own limit.
    limit_mm_per_prompt
        Most items of each modality in one prompt. Refused for a text-only model.
    mm_processor_kwargs
        Options for the model's processors, input mapper, token counts and dummy data.
    """

    def __init__(
        self,
        model: str,
        tokenizer: str | None = None,
        tokenizer_mode: str = "auto",
        trust_remote_code: bool = False,
        dtype: str | torch.dtype = "auto",
        seed: int = 0,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        max_model_len: int | None = None,
        skip_tokenizer_init: bool = False,
        limit_mm_per_prompt: Mapping[str, int] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not model or not isinstance(model, str):
            raise ValidationError(f"model must be a folder or a hub name, got {model!r}.")
        check_model_folder(model)
        self.model = model
        self.tokenizer = model if tokenizer is None else tokenizer
        self.tokenizer_mode = tokenizer_mode
        self.trust_remote_code = trust_remote_code
        self.seed = int_at_least("seed", seed, 0)
        self.revision = revision
        self.tokenizer_revision = tokenizer_revision
        self.skip_tokenizer_init = skip_tokenizer_init
        if mm_processor_kwargs is not None and not isinstance(mm_processor_kwargs, Mapping):
            raise ValidationError(
                f"mm_processor_kwargs must map names to values, got {mm_processor_kwargs!r}."
            )
        self.mm_processor_kwargs = dict(mm_processor_kwargs) if mm_processor_kwargs else None
        self._requested_dtype = _dtype_name(dtype)
        self._requested_max_model_len = (
            None if max_model_len is None else int_at_least("max_model_len", max_model_len, 1)
        )
        self._limits = MultiModalConfig(limit_mm_per_prompt or {})
        if limit_mm_per_prompt and not self.is_multimodal_model:
            raise ValidationError(
                "`limit_mm_per_prompt` is only supported for multimodal models.",
                code="images_not_supported",
            )
        if max_model_len is not None:
            _ = self.max_model_len

    @cached_property
    def hf_config(self) -> PretrainedConfig:
        """The checkpoint's configuration."""
        return load_hf_config(
            self.model, revision=self.revision, trust_remote_code=self.trust_remote_code
        )

    @cached_property
    def hf_text_config(self) -> PretrainedConfig:
        """The language model's part of the configuration."""
        return text_config_of(self.hf_config)

    @cached_property
    def hf_image_processor_config(self) -> dict[str, Any]:
        """The content of preprocessor_config.json, empty where there is none."""
        return load_image_processor_config(
            self.model, revision=self.revision, trust_remote_code=self.trust_remote_code
        )

    @cached_property
    def max_model_len(self) -> int:
        """Most tokens, prompt and output, in a sequence."""
        return derive_max_model_len(self.hf_config, self._requested_max_model_len)

    @property
    def architectures(self) -> list[str]:
        """The class names in config.json, first choice first."""
        return list(getattr(self.hf_config, "architectures", None) or ())

    @cached_property
    def is_multimodal_model(self) -> bool:
        """Whether the model's class takes media."""
        from mmcore.model_executor.models.registry import ModelRegistry

        return ModelRegistry.is_multimodal_model(self.architectures)

    @cached_property
    def multimodal_config(self) -> MultiModalConfig | None:
        """The media limits; None for a text-only model."""
        return self._limits if self.is_multimodal_model else None

    def get_model_cls(self) -> type[nn.Module]:
        """Give the registered class that runs this checkpoint, importing it if needed."""
        from mmcore.model_executor.models.registry import ModelRegistry

        return ModelRegistry.resolve_model_cls(self.architectures)[0]

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and activations: what was asked for, else the checkpoint's."""
        return _torch_dtype(self._resolved_dtype_name())

    def dtype_for(self, device_type: str) -> torch.dtype:
        """Give the dtype to run with on a device.

        On a CPU float16 is not computed with: ``"auto"`` becomes float32 there. A checkpoint that
        does not say its dtype runs in float32 on a CPU and in bfloat16 on a GPU.

        Raises
        ------
        ValidationError
            If float16 was asked for by name and the device is a CPU.
        """
        silent = self._requested_dtype == "auto" and checkpoint_dtype_name(self.hf_config) is None
        if silent and device_type != "cpu":
            return _torch_dtype("bfloat16")
        name = self._resolved_dtype_name()
        if device_type == "cpu" and name == "float16":
            if self._requested_dtype != "auto":
                raise ValidationError(
                    "dtype float16 is not supported on a CPU; use float32, bfloat16 or auto."
                )
            name = "float32"
        return _torch_dtype(name)

    def _resolved_dtype_name(self) -> str:
        if self._requested_dtype != "auto":
            return self._requested_dtype
        name = checkpoint_dtype_name(self.hf_config) or "float32"
        if name not in _DTYPES.values():
            raise CheckpointError(
                f"The checkpoint's dtype is {name!r}, which mmcore does not run; "
                "pass dtype='float32', 'float16' or 'bfloat16'."
            )
        return name

    def get_vocab_size(self) -> int:
        """Count the rows of the embedding table."""
        return int(self.hf_text_config.vocab_size)

    def get_hidden_size(self) -> int:
        """Give the width of the language model."""
        return int(self.hf_text_config.hidden_size)

    def get_num_layers(self) -> int:
        """Count the decoder layers."""
        return int(self.hf_text_config.num_hidden_layers)

    def get_num_attention_heads(self, tensor_parallel_size: int = 1) -> int:
        """Count the query heads on one device."""
        return _split(
            "query heads", int(self.hf_text_config.num_attention_heads), tensor_parallel_size
        )

    def get_num_kv_heads(self, tensor_parallel_size: int = 1) -> int:
        """Count the key/value heads on one device; replicated when there are fewer than devices."""
        heads = getattr(self.hf_text_config, "num_key_value_heads", None)
        total = int(self.hf_text_config.num_attention_heads if heads is None else heads)
        if total < tensor_parallel_size and tensor_parallel_size % total == 0:
            return 1
        return _split("key/value heads", total, tensor_parallel_size)

    def get_head_size(self) -> int:
        """Give the width of one head."""
        head_dim = getattr(self.hf_text_config, "head_dim", None)
        if head_dim is not None:
            return int(head_dim)
        return self.get_hidden_size() // int(self.hf_text_config.num_attention_heads)

    def __repr__(self) -> str:
        return (
            f"ModelConfig(model={self.model!r}, dtype={self._requested_dtype!r}, "
            f"max_model_len={self._requested_max_model_len!r}, "
            f"limit_mm_per_prompt={dict(self._limits.limit_per_prompt)!r}, "
            f"mm_processor_kwargs={self.mm_processor_kwargs!r})"
        )


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The paged KV cache.

    Parameters
    ----------
    block_size
        Tokens a block, a power of two up to 128.
    gpu_memory_utilization
        Share of the device's memory that the engine may use, in (0, 1].
    num_gpu_blocks_override
        Number of blocks, instead of what the memory plan finds room for.
    enable_prefix_caching
        Keep blocks of finished requests for prompts that begin the same way.
    cache_dtype
        ``"auto"`` for the model's dtype; ``"fp8"`` or ``"fp8_e4m3"`` for 8-bit floats.
    kv_offload_gib
        Host memory, in GiB, for blocks that are evicted from the cache; 0 keeps none.
    """

    block_size: int = 16
    gpu_memory_utilization: float = 0.9
    num_gpu_blocks_override: int | None = None
    enable_prefix_caching: bool = True
    cache_dtype: Literal["auto", "float32", "float16", "bfloat16", "fp8", "fp8_e4m3"] = "auto"
    kv_offload_gib: float = 0.0

    def __post_init__(self) -> None:
        size = int_at_least("block_size", self.block_size, 1)
        if size > 128 or size & (size - 1):
            raise ValidationError(
                f"block_size must be one of 1, 2, 4, 8, 16, 32, 64, 128, got {size}."
            )
        share = as_finite("gpu_memory_utilization", self.gpu_memory_utilization)
        require(0.0 < share <= 1.0, f"gpu_memory_utilization must be in (0, 1], got {share}.")
        if self.num_gpu_blocks_override is not None:
            # Block 0 is the null block, so one block holds nothing.
            int_at_least("num_gpu_blocks_override", self.num_gpu_blocks_override, 2)
        offload = as_finite("kv_offload_gib", self.kv_offload_gib)
        require(offload >= 0, f"kv_offload_gib must be at least 0, got {offload}.")
        require(
            offload == 0 or self.enable_prefix_caching,
            f"kv_offload_gib is {offload}, but without enable_prefix_caching no block is kept. "
            "Enable it, or set kv_offload_gib to 0.",
        )
        one_of(
            "cache_dtype",
            self.cache_dtype,
            ("auto", "float32", "float16", "bfloat16", "fp8", "fp8_e4m3"),
        )


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """How much runs in one step, and in which order.

    Parameters
    ----------
    max_num_batched_tokens
        Tokens in one step, over all sequences.
    max_num_seqs
        Sequences in one step.
    enable_chunked_prefill
        Let a long prompt run over several steps; without it the token budget must hold the
        longest prompt.
    policy
        ``"fcfs"``, ``"priority"`` to let requests name a priority, or ``"longest_prefix"`` to let
        a waiting request whose prompt is cached pass others, each at most 16 times.
    max_preemptions
        How often one sequence may lose its cache to an earlier one; after that it gets room for
        its whole life before it runs again. 0 never takes anything away.
    headroom
        Percentage of the cache that running sequences are expected to grow by, as answers have
        shown, which must be free before another one enters; with 0 a block for each.
    max_queued_requests, max_queued_tokens
        Waiting requests, and their tokens, before new ones are refused; 0 for no limit.
    async_scheduling
        Launch the next step while one runs.
    step_watchdog
        Seconds after which a step counts as slow in the metrics; 0 watches none.
    max_prefill_chunk
        Longest part of one prompt in one step; 0 for the whole budget.
    """

    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    enable_chunked_prefill: bool = True
    policy: Literal["fcfs", "priority", "longest_prefix"] = "fcfs"
    max_preemptions: int = 4
    headroom: int = 100
    max_queued_requests: int = 0
    max_queued_tokens: int = 0
    async_scheduling: bool = False
    step_watchdog: float = 0.0
    max_prefill_chunk: int = 0

    def __post_init__(self) -> None:
        int_at_least("max_num_batched_tokens", self.max_num_batched_tokens, 1)
        int_at_least("max_num_seqs", self.max_num_seqs, 1)
        int_at_least("max_queued_requests", self.max_queued_requests, 0)
        int_at_least("max_prefill_chunk", self.max_prefill_chunk, 0)
        one_of("policy", self.policy, ("fcfs", "priority", "longest_prefix"))
        int_at_least("max_preemptions", self.max_preemptions, 0)
        int_at_least("headroom", self.headroom, 0)
        require(
            self.headroom <= 100, f"headroom is a percentage, at most 100, got {self.headroom}."
        )
        int_at_least("max_queued_tokens", self.max_queued_tokens, 0)
        require(
            isinstance(self.async_scheduling, bool),
            f"async_scheduling must be a bool, got {self.async_scheduling!r}.",
        )
        seconds = as_finite("step_watchdog", self.step_watchdog)
        require(seconds >= 0, f"step_watchdog must be at least 0 seconds, got {seconds}.")

    @staticmethod
    def default_max_num_batched_tokens(
        max_model_len: int, *, chunked: bool, multimodal: bool
    ) -> int:
        """Choose a token budget for a model.

        A seed-level model's media items run whole in one step, so a multi-modal model gets
        room for the tokens of a large image.
        """
        floor = 5120 if multimodal else 2048
        return floor if chunked else max(max_model_len, floor)

    def check_against(self, max_model_len: int) -> None:
        """Refuse a budget that could never run the longest prompt.

        Raises
        ------
        ValidationError
            If prompts are not chunked and the budget is below `max_model_len`.
        """
        if not self.enable_chunked_prefill and self.max_num_batched_tokens < max_model_len:
            raise ValidationError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) is smaller than "
                f"max_model_len ({max_model_len}), so a prompt of full length could never run. "
                "Increase max_num_batched_tokens, decrease max_model_len, or set "
                "enable_chunked_prefill=True."
            )


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """Where weights come from.

    Parameters
    ----------
    load_format
        ``"safetensors"``, ``"dummy"`` for random weights, or ``"auto"``, which is safetensors.
    """

    load_format: Literal["auto", "safetensors", "dummy"] = "auto"

    def __post_init__(self) -> None:
        one_of("load_format", self.load_format, ("auto", "safetensors", "dummy"))


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """Where the model runs: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``.

    ``"auto"`` is the GPU where this build has CUDA kernels and torch finds a device, else the CPU.
    """

    device: str = "auto"

    def __post_init__(self) -> None:
        base, _, index = str(self.device).partition(":")
        one_of("device", base, ("auto", "cpu", "cuda"))
        if index and not (base == "cuda" and index.isdigit()):
            raise ValidationError(f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}.")

    @property
    def device_type(self) -> str:
        """``"cpu"`` or ``"cuda"``.

        Raises
        ------
        ValidationError
            If CUDA was asked for and this build of mmcore has no kernels for it.
        """
        from mmcore import _C

        kind = self.device.partition(":")[0]
        if kind == "cuda" and not _C.with_cuda:
            raise ValidationError(
                f"device={self.device!r} needs CUDA kernels, which this build of mmcore does not "
                "have (mmcore info). Use device='cpu', or build with MMCORE_CUDA=on.",
                code="unsupported",
            )
        if kind != "auto":
            return kind
        if not _C.with_cuda:
            return "cpu"
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


def _split(what: str, total: int, parts: int) -> int:
    if total % parts:
        raise ValidationError(f"{total} {what} cannot be split over {parts} devices.")
    return total // parts


def _dtype_name(dtype: object) -> str:
    name = str(dtype).removeprefix("torch.").lower()
    if name == "auto":
        return name
    if name not in _DTYPES:
        raise ValidationError(
            f"Unknown dtype: {dtype!r}. Known are auto, {', '.join(sorted(_DTYPES))}."
        )
    return _DTYPES[name]


def _torch_dtype(name: str) -> torch.dtype:
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype
