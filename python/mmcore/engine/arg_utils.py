"""EngineArgs: the options of an engine under their seed-era names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from mmcore.config import (
    CacheConfig,
    DeviceConfig,
    LoadConfig,
    ModelConfig,
    SchedulerConfig,
)
from mmcore.errors import ValidationError

if TYPE_CHECKING:
    import torch

__all__ = ["EngineArgs", "EngineConfig"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """All that an engine is built from, checked. A budget of 0 is computed."""

    model_config: ModelConfig
    cache_config: CacheConfig
    scheduler_config: SchedulerConfig
    load_config: LoadConfig
    device_config: DeviceConfig
    max_logprobs: int = 20
    mm_input_cache_bytes: int = 1 << 30
    encoder_budget: int = 0
    encoder_cache_rows: int = 0
    enforce_eager: bool = False
    encoder_stream: bool = True


@dataclass(slots=True)
class EngineArgs:
    """Options of an engine.

    Parameters
    ----------
    model
        A folder with config.json and safetensors files, or a hub name.
    tokenizer, tokenizer_mode, skip_tokenizer_init
        Where the tokenizer is, ``"auto"`` or ``"slow"``, and whether to do without one: prompts
        are then token ids and outputs have no text.
    trust_remote_code, revision, tokenizer_revision
        Passed on to transformers.
    dtype
        ``"auto"`` for the checkpoint's own, or one of float32, float16 (half), bfloat16.
    seed
        Seed of the draws of requests that bring none, and of dummy weights.
    max_model_len
        Most tokens of a sequence; None for the model's own limit.
    max_num_seqs, max_num_batched_tokens, enable_chunked_prefill, max_prefill_chunk
        How much runs in one step. Chunked prefill is on unless it is switched off.
    enable_prefix_caching
        Reuse the blocks of prompts that begin the same way. On unless it is switched off, for
        multimodal models too.
    block_size, num_gpu_blocks_override, gpu_memory_utilization
        The KV cache: tokens a block, number of blocks (the null block included) instead of what
        the memory plan finds room for, and the share of the device's memory that may be used.
    kv_offload_gib
        Host memory, in GiB, that keeps blocks evicted from the KV cache until a prompt needs them
        again: loading a prefix is faster than computing it. 0, the default, keeps none.
    limit_mm_per_prompt, mm_processor_kwargs
        Most items of each modality in one prompt (1 where nothing is said), and options for the
        model's processors.
    load_format
        ``"auto"``, ``"safetensors"``, or ``"dummy"`` for random weights.
    scheduling_policy
        ``"fcfs"``, ``"priority"``, or ``"longest_prefix"``: among those that wait, the one with
        the most cached tokens enters first, and nobody is passed more than 16 times.
    max_preemptions
        How often one sequence may lose its cache to an earlier one before it gets room for its
        whole life; 0 never takes anything away.
    headroom
        Percentage of the cache that running sequences are expected to grow by which must be free
        before another one enters; with 0 a block for each.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    max_logprobs
        Most alternatives a position that a request may ask for.
    max_queued_requests, max_queued_tokens
        Waiting requests, and their tokens, before new ones are refused; 0 for no limit.
    async_scheduling
        Launch the next step while one runs, so that a GPU need not wait for the host. The tokens
        are the same. None does so on a GPU, unless `enforce_eager` is set; on a CPU it gains
        nothing.
    step_watchdog
        Seconds after which a step counts as slow in the metrics; 0 watches none.
    encoder_budget, encoder_cache_rows
        Embedding rows that one step may encode, and that the encoder cache keeps; None computes
        them from the token budget and the model's largest item.
    mm_input_cache_bytes
        Memory for preprocessed media, so that an item that comes again is not prepared again.
    tensor_parallel_size, pipeline_parallel_size
        Only 1 is supported.
    enforce_eager
        True launches the kernels of a decode step on a GPU one by one; otherwise they run from CUDA
        graphs.
    encoder_stream
        Encode pictures on a GPU stream of their own, beside the step before, where their encoder
        runs from CUDA graphs.
    swap_space, max_seq_len_to_capture, disable_log_stats and the like
        Accepted for scripts of the seed era. They have no effect: graphs hold for any length, and
        preemption recomputes instead of swapping.
    """

    model: str = ""
    tokenizer: str | None = None
    skip_tokenizer_init: bool = False
    tokenizer_mode: str = "auto"
    trust_remote_code: bool = False
    revision: str | None = None
    tokenizer_revision: str | None = None
    dtype: str | torch.dtype = "auto"
    seed: int = 0
    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None
    enable_chunked_prefill: bool | None = None
    max_prefill_chunk: int = 0
    enable_prefix_caching: bool = True
    block_size: int = 16
    num_gpu_blocks_override: int | None = None
    gpu_memory_utilization: float = 0.9
    kv_cache_dtype: str = "auto"
    kv_offload_gib: float = 0.0
    limit_mm_per_prompt: Mapping[str, int] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    load_format: str = "auto"
    scheduling_policy: str = "fcfs"
    max_preemptions: int = 4
    headroom: int = 100
    device: str = "auto"
    max_logprobs: int = 20
    max_queued_requests: int = 0
    max_queued_tokens: int = 0
    async_scheduling: bool | None = None
    step_watchdog: float = 0.0
    encoder_budget: int | None = None
    encoder_cache_rows: int | None = None
    mm_input_cache_bytes: int = 1 << 30
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    quantization: str | None = None
    enforce_eager: bool | None = None
    encoder_stream: bool = True
    # Accepted, without effect.
    swap_space: float = 4
    cpu_offload_gb: float = 0
    max_context_len_to_capture: int | None = None
    max_seq_len_to_capture: int = 8192
    disable_custom_all_reduce: bool = False
    disable_async_output_proc: bool = False
    disable_log_stats: bool = True
    download_dir: str | None = None
    served_model_name: str | list[str] | None = field(default=None)

    @staticmethod
    def from_kwargs(**kwargs: Any) -> EngineArgs:
        """Build from keywords.

        Raises
        ------
        TypeError
            If a name is unknown; the message lists the nearest ones.
        """
        known = [f.name for f in fields(EngineArgs)]
        for name in kwargs:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, 3)
                hint = f" Did you mean {', '.join(near)}?" if near else ""
                raise TypeError(f"{name!r} is not an engine option.{hint}")
        return EngineArgs(**kwargs)

    def create_engine_config(self) -> EngineConfig:
        """Check the options together and build the configuration.

        Raises
        ------
        ValidationError
            If an option is out of range, or asks for what this version cannot do.
        CheckpointError
            If the model folder cannot be used.
        """
        self._refuse_unsupported()
        model_config = ModelConfig(
            self.model,
            tokenizer=self.tokenizer,
            tokenizer_mode=self.tokenizer_mode,
            trust_remote_code=self.trust_remote_code,
            dtype=self.dtype,
            seed=self.seed,
            revision=self.revision,
            tokenizer_revision=self.tokenizer_revision,
            max_model_len=self.max_model_len,
            skip_tokenizer_init=self.skip_tokenizer_init,
            limit_mm_per_prompt=self.limit_mm_per_prompt,
            mm_processor_kwargs=self.mm_processor_kwargs,
        )
        chunked = self.enable_chunked_prefill is not False
        budget = self.max_num_batched_tokens
        if budget is None:
            budget = SchedulerConfig.default_max_num_batched_tokens(
                model_config.max_model_len,
                chunked=chunked,
                multimodal=model_config.is_multimodal_model,
            )
        device_config = DeviceConfig(self.device)
        overlaps = self.async_scheduling
        if overlaps is None:
            overlaps = device_config.device_type == "cuda" and not self.enforce_eager
        scheduler_config = SchedulerConfig(
            max_num_batched_tokens=budget,
            max_num_seqs=self.max_num_seqs,
            enable_chunked_prefill=chunked,
            policy=self.scheduling_policy,  # type: ignore[arg-type]  # checked there
            max_preemptions=self.max_preemptions,
            headroom=self.headroom,
            max_queued_requests=self.max_queued_requests,
            max_queued_tokens=self.max_queued_tokens,
            async_scheduling=overlaps,
            step_watchdog=self.step_watchdog,
            max_prefill_chunk=self.max_prefill_chunk,
        )
        scheduler_config.check_against(model_config.max_model_len)
        return EngineConfig(
            model_config=model_config,
            cache_config=CacheConfig(
                block_size=self.block_size,
                gpu_memory_utilization=self.gpu_memory_utilization,
                num_gpu_blocks_override=self.num_gpu_blocks_override,
                enable_prefix_caching=self.enable_prefix_caching,
                kv_offload_gib=self.kv_offload_gib,
                cache_dtype=self.kv_cache_dtype,  # type: ignore[arg-type]  # checked there
            ),
            scheduler_config=scheduler_config,
            load_config=LoadConfig(self.load_format),  # type: ignore[arg-type]  # checked there
            device_config=device_config,
            max_logprobs=_at_least("max_logprobs", self.max_logprobs, 0),
            mm_input_cache_bytes=_at_least("mm_input_cache_bytes", self.mm_input_cache_bytes, 0),
            encoder_budget=_optional("encoder_budget", self.encoder_budget),
            encoder_cache_rows=_optional("encoder_cache_rows", self.encoder_cache_rows),
            enforce_eager=bool(self.enforce_eager),
            encoder_stream=bool(self.encoder_stream),
        )

    def _refuse_unsupported(self) -> None:
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            size = getattr(self, name)
            if size != 1:
                raise ValidationError(
                    f"{name} must be 1: this version runs a model on one device; got {size!r}. "
                    "Start one engine a device instead.",
                    code="unsupported",
                )
        if self.quantization is not None:
            raise ValidationError(
                f"quantization={self.quantization!r} is not supported; "
                "use a checkpoint in float32, float16 or bfloat16.",
                code="unsupported",
            )
        if self.cpu_offload_gb:
            raise ValidationError(
                f"cpu_offload_gb must be 0: offloading is not supported; "
                f"got {self.cpu_offload_gb!r}.",
                code="unsupported",
            )


def _at_least(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValidationError(f"{name} must be an integer of at least {least}, got {value!r}.")
    return value


def _optional(name: str, value: int | None) -> int:
    return 0 if value is None else _at_least(name, value, 1)
