"""Loads a model, plans its memory, and joins it with the core: from configuration to engine."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mmcore.errors import ValidationError
from mmcore.model_executor.attention_plans import AttentionPlanner
from mmcore.model_executor.decode_graphs import DecodeGraphs, batch_sizes
from mmcore.model_executor.encoder_graphs import EncoderGraphs, item_counts
from mmcore.model_executor.encoder_stream import EncoderStream
from mmcore.model_executor.forward_signature import required_media_arguments
from mmcore.model_executor.graph_capture import GRAPH_BYTES
from mmcore.model_executor.host_blocks import HostBlocks
from mmcore.model_executor.kv_cache import KvCacheSpec, allocate_kv_caches, empty_kv_caches
from mmcore.model_executor.media_ahead import MediaAhead
from mmcore.model_executor.media_mapper import MediaMapper
from mmcore.model_executor.memory_plan import (
    MAX_CPU_KV_BYTES,
    MemoryPlan,
    MemoryRequest,
    available_cpu_bytes,
    cuda_budget_bytes,
    plan_memory,
)
from mmcore.model_executor.model_loader import get_model
from mmcore.model_executor.model_runner import PROMPT_LOGITS_ROWS, ModelRunner
from mmcore.model_executor.models.interfaces import (
    FixedMediaInput,
    fixed_media_input,
    supports_encoder_split,
)
from mmcore.model_executor.profile_run import profile_run
from mmcore.model_executor.staging import StagedInputs
from mmcore.model_executor.workspace import (
    encoder_bytes_per_row,
    encoder_graph_bytes,
    step_workspace_bytes,
)
from mmcore.multimodal import MULTIMODAL_REGISTRY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from mmcore.config import CacheConfig, DeviceConfig, LoadConfig, ModelConfig, SchedulerConfig

__all__ = [
    "EncoderLimits",
    "Executor",
    "build_executor",
    "encoder_limits",
    "memory_request",
    "resolve_device",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncoderLimits:
    """Embedding rows that one step may encode, and that the encoder cache holds."""

    budget: int = 0
    cache_rows: int = 0


@dataclass(frozen=True, slots=True)
class Executor:
    """A model on its device, ready to run steps.

    Parameters
    ----------
    split_media_items
        Whether the encoder runs apart from the decoder (the extended level).
    """

    runner: ModelRunner
    memory: MemoryPlan
    encoder: EncoderLimits
    logits_size: int
    split_media_items: bool


@dataclass(frozen=True, slots=True)
class _EncoderPlan:
    """Numbers of items that the encoder has graphs for, and what an item is."""

    media: FixedMediaInput
    counts: list[int]
    rows_per_item: int
    beside: bool


def _plan_encoder_graphs(
    model: nn.Module, model_config: ModelConfig, limits: EncoderLimits, beside: bool
) -> _EncoderPlan | None:
    media = fixed_media_input(model) if supports_encoder_split(model) else None
    rows = max(MULTIMODAL_REGISTRY.get_max_tokens_per_item(model_config).values(), default=0)
    if media is None or not rows:
        return None
    return _EncoderPlan(media, item_counts(limits.budget // rows), rows, beside)


def build_executor(
    model_config: ModelConfig,
    cache_config: CacheConfig,
    scheduler_config: SchedulerConfig,
    load_config: LoadConfig,
    device_config: DeviceConfig,
    *,
    placeholder_ids: Mapping[str, int],
    encoder_budget: int = 0,
    encoder_cache_rows: int = 0,
    mm_input_cache_bytes: int = 0,
    enforce_eager: bool = False,
    encoder_stream: bool = True,
) -> Executor:
    """Load the model, check it on dummy data, plan the memory and allocate the KV cache.

    Parameters
    ----------
    enforce_eager
        Whether to do without CUDA graphs.
    encoder_stream
        Whether graphs of the encoder run on a stream of their own.

    Raises
    ------
    ValidationError
        If the memory does not suffice, or the model's registrations contradict each other.
    CheckpointError
        If the weights cannot be loaded.
    """
    started = time.monotonic()
    device = resolve_device(device_config)
    dtype = model_config.dtype_for(device.type)
    model = get_model(
        model_config,
        load_config,
        device=device,
        cache_config=cache_config,
        scheduler_config=scheduler_config,
    )
    loaded = time.monotonic()
    mapper: MediaMapper | None = None
    split = True
    limits = EncoderLimits()
    if model_config.is_multimodal_model:
        mapper = MediaMapper(model_config, MULTIMODAL_REGISTRY, mm_input_cache_bytes)
        split = supports_encoder_split(model)
        limits = encoder_limits(model_config, scheduler_config, encoder_budget, encoder_cache_rows)
    spec = KvCacheSpec.of(model_config, cache_config, dtype)
    profile = profile_run(
        model,
        model_config,
        mapper,
        empty_kv_caches(spec, device),
        device,
        max_num_batched_tokens=scheduler_config.max_num_batched_tokens,
        placeholder_ids=placeholder_ids,
    )
    graph_sizes: list[int] = []
    encoder_plan: _EncoderPlan | None = None
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what the run on dummy data left behind is free
        if not enforce_eager:
            graph_sizes = batch_sizes(scheduler_config.max_num_seqs)
            encoder_plan = _plan_encoder_graphs(model, model_config, limits, encoder_stream)
    memory = plan_memory(
        memory_request(
            model_config,
            cache_config,
            scheduler_config,
            limits if split else EncoderLimits(limits.budget),
            device,
            weights_bytes=sum(t.nbytes for t in _distinct_tensors(model)),
            weights_loaded=True,
            measured_bytes=profile.peak_bytes or 0,
            graph_sizes=graph_sizes,
            encoder_plan=encoder_plan,
        )
    )
    kv_caches = allocate_kv_caches(spec, memory.num_blocks, device)
    for line in memory.lines():
        logger.info("%s", line)
    logger.info(
        "%s ready on %s in %s: loaded in %.2f s, checked with %d dummy tokens in %.2f s",
        type(model).__name__,
        device,
        str(dtype).removeprefix("torch."),
        loaded - started,
        profile.num_tokens,
        time.monotonic() - loaded,
    )
    runner = ModelRunner(model, kv_caches, mapper, device)
    if memory.num_host_blocks:
        runner.host_blocks = _host_blocks(spec, kv_caches, memory)
    runner.max_token_id = model_config.get_vocab_size() - 1
    if device.type == "cuda":
        _prepare_cuda(
            runner, model_config, cache_config, scheduler_config, graph_sizes, encoder_plan
        )
    return Executor(runner, memory, limits, profile.logits_size, split)


def _host_blocks(
    spec: KvCacheSpec, kv_caches: list[torch.Tensor], memory: MemoryPlan
) -> HostBlocks:
    """Allocate the host memory for evicted blocks."""
    needed, available = memory.request.host_kv_bytes, available_cpu_bytes()
    if needed > available:
        raise ValidationError(
            f"kv_offload_gib needs {needed / 2**30:.2f} GiB of host memory, but only "
            f"{available / 2**30:.2f} GiB are available. Lower it.",
            code="no_cache_memory",
        )
    return HostBlocks(spec, kv_caches, memory.num_host_blocks)


def _prepare_cuda(
    runner: ModelRunner,
    model_config: ModelConfig,
    cache_config: CacheConfig,
    scheduler_config: SchedulerConfig,
    graph_sizes: list[int],
    encoder_plan: _EncoderPlan | None,
) -> None:
    """Give the runner its place for a step's arrays, and graphs of these batch sizes."""
    max_blocks = -(-model_config.max_model_len // cache_config.block_size)
    with torch.cuda.device(runner.device):
        staged = runner.inputs = StagedInputs(
            runner.device,
            AttentionPlanner(runner.model, runner.device),
            scheduler_config.max_num_batched_tokens,
            scheduler_config.max_num_seqs,
            max_blocks,
        )
        if runner.encoder is not None and runner.mapper is not None:
            runner.ahead = MediaAhead(runner.mapper)
        if graph_sizes:
            runner.graphs = DecodeGraphs(
                runner.model,
                runner.kv_caches,
                staged,
                required_media_arguments(runner.model),
                graph_sizes,
                max_blocks,
            )
            runner.graphs.capture_all()
        if encoder_plan is not None and runner.encoder is not None:
            runner.encoder.graphs = EncoderGraphs(
                runner.model,
                encoder_plan.media,
                encoder_plan.counts,
                runner.device,
                EncoderStream(runner.device) if encoder_plan.beside else None,
            )
            runner.encoder.graphs.capture_all()


def resolve_device(device_config: DeviceConfig) -> torch.device:
    """Name the device with its number.

    Raises
    ------
    ValidationError
        If it is a GPU that there is not.
    """
    kind = device_config.device_type
    if kind == "cpu":
        return torch.device("cpu")
    name = device_config.device
    if not torch.cuda.is_available():
        raise ValidationError(
            f"device={name!r} needs a GPU and a torch built for CUDA; torch {torch.__version__} "
            "finds none. Use device='cpu'.",
            code="unsupported",
        )
    count, index = torch.cuda.device_count(), name.partition(":")[2]
    number = int(index) if index else torch.cuda.current_device()
    if number >= count:
        raise ValidationError(
            f"device={name!r} does not exist: this machine has {count} GPUs, numbered from 0.",
            code="unsupported",
        )
    return torch.device("cuda", number)


def encoder_limits(
    model_config: ModelConfig,
    scheduler_config: SchedulerConfig,
    budget: int = 0,
    cache_rows: int = 0,
) -> EncoderLimits:
    """Choose the encoder's budgets, 0: a step must be able to encode the largest item."""
    largest = max(MULTIMODAL_REGISTRY.get_max_tokens_per_item(model_config).values(), default=0)
    if not budget:
        budget = max(scheduler_config.max_num_batched_tokens, largest, 1)
    if not cache_rows:
        cache_rows = 4 * budget
    return EncoderLimits(budget, max(cache_rows, budget))


def memory_request(
    model_config: ModelConfig,
    cache_config: CacheConfig,
    scheduler_config: SchedulerConfig,
    limits: EncoderLimits,
    device: torch.device,
    *,
    weights_bytes: int,
    weights_loaded: bool,
    measured_bytes: int = 0,
    graph_sizes: Sequence[int] = (),
    encoder_plan: _EncoderPlan | None = None,
) -> MemoryRequest:
    """Gather what the memory plan is computed from; needs no weights.

    Parameters
    ----------
    limits
        With no cache rows where encoder outputs are not kept (a seed-level model).
    weights_loaded
        Whether the weights are in memory already, so that what is available lacks them.
    measured_bytes
        Peak of a run besides weights, where it was measured.
    graph_sizes
        Batch sizes of CUDA graphs, whose memory nothing else may use.
    encoder_plan
        Likewise, of the encoder.
    """
    dtype = model_config.dtype_for(device.type)
    spec = KvCacheSpec.of(model_config, cache_config, dtype)
    share = cache_config.gpu_memory_utilization

    def step_bytes(num_tokens: int, num_logits: int, encoder_rows: int) -> int:
        return step_workspace_bytes(
            model_config,
            dtype_bytes=dtype.itemsize,
            num_tokens=num_tokens,
            num_logits=num_logits,
            encoder_rows=encoder_rows,
        )

    num_logits = max(scheduler_config.max_num_seqs, PROMPT_LOGITS_ROWS)
    workspace = step_bytes(scheduler_config.max_num_batched_tokens, num_logits, limits.budget)
    if measured_bytes:  # with one row of logits
        workspace = max(workspace, measured_bytes + step_bytes(0, num_logits, 0))
    if graph_sizes:
        workspace += len(graph_sizes) * GRAPH_BYTES + step_bytes(max(graph_sizes), 0, 0)
    if encoder_plan is not None:
        most = encoder_plan.counts[-1]
        # A tower may have a row more than it gives.
        rows, pixels = encoder_plan.rows_per_item + 1, math.prod(encoder_plan.media.shape)
        workspace += len(encoder_plan.counts) * GRAPH_BYTES
        workspace += encoder_graph_bytes(model_config, dtype.itemsize, most * rows, most * pixels)
        if encoder_plan.beside:  # outputs that were dropped while a step still reads them
            workspace += limits.budget * encoder_bytes_per_row(model_config, dtype.itemsize)
    loaded_bytes = weights_bytes if weights_loaded else 0
    if device.type == "cuda":
        budget = cuda_budget_bytes(device, share, loaded_bytes)
    else:
        budget = int((available_cpu_bytes() + loaded_bytes) * share)
    return MemoryRequest(
        device=str(device),
        budget_bytes=budget,
        weights_bytes=weights_bytes,
        encoder_cache_bytes=limits.cache_rows * encoder_bytes_per_row(model_config, dtype.itemsize),
        workspace_bytes=workspace,
        bytes_per_block=spec.bytes_per_block,
        block_size=spec.block_size,
        max_model_len=model_config.max_model_len,
        max_num_seqs=scheduler_config.max_num_seqs,
        num_blocks_override=cache_config.num_gpu_blocks_override,
        kv_bytes_cap=MAX_CPU_KV_BYTES if device.type == "cpu" else None,
        host_kv_bytes=int(cache_config.kv_offload_gib * 2**30),
    )


def _distinct_tensors(model: nn.Module) -> list[torch.Tensor]:
    """List parameters and buffers, a shared one (a tied head) once."""
    tensors = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    return list(tensors.values())
