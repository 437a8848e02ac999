"""Where an engine's memory goes: computed from the configuration, before any of it is used.

    budget = weights + encoder cache + workspace + KV cache

Everything but the last term follows from the checkpoint and the step's budgets; the KV cache gets
the rest. Host memory for evicted blocks comes on top of that on a GPU, and out of it on a CPU.
:mod:`~mmcore.model_executor.profile_run` checks the plan with one run of dummy data.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmcore.errors import ValidationError

if TYPE_CHECKING:
    import torch

__all__ = [
    "MemoryPlan",
    "MemoryRequest",
    "available_cpu_bytes",
    "cuda_budget_bytes",
    "plan_memory",
]

logger = logging.getLogger(__name__)

_GIB = 1 << 30
# More than this is not taken from a CPU's memory unless one sequence needs it.
MAX_CPU_KV_BYTES = 4 * _GIB


@dataclass(frozen=True, slots=True)
class MemoryRequest:
    """What a plan is computed from, in bytes and tokens.

    Parameters
    ----------
    budget_bytes
        What the engine may use in all.
    workspace_bytes
        Activations and logits of the largest step.
    bytes_per_block, block_size
        One block of the KV cache.
    num_blocks_override
        Blocks to allocate whatever the budget is; None computes them.
    kv_bytes_cap
        Most bytes for the KV cache; None for no limit. One sequence of full length may exceed it.
    host_kv_bytes
        Host memory for blocks that were evicted from the KV cache.
    """

    device: str
    budget_bytes: int
    weights_bytes: int
    encoder_cache_bytes: int
    workspace_bytes: int
    bytes_per_block: int
    block_size: int
    max_model_len: int
    max_num_seqs: int
    num_blocks_override: int | None = None
    kv_bytes_cap: int | None = None
    host_kv_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The outcome: the request and the number of blocks, the null block included."""

    request: MemoryRequest
    num_blocks: int

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache."""
        return self.num_blocks * self.request.bytes_per_block

    @property
    def kv_tokens(self) -> int:
        """Tokens that the pool holds."""
        return (self.num_blocks - 1) * self.request.block_size

    @property
    def num_host_blocks(self) -> int:
        """Blocks that the host memory holds."""
        return self.request.host_kv_bytes // self.request.bytes_per_block

    def lines(self) -> list[str]:
        """Describe the plan for the log."""
        r = self.request
        lines = [
            f"memory plan on {r.device}: budget {_size(r.budget_bytes)} = "
            f"weights {_size(r.weights_bytes)} + encoder cache {_size(r.encoder_cache_bytes)} + "
            f"workspace {_size(r.workspace_bytes)} + KV cache {_size(self.kv_bytes)} + free",
            f"KV cache: {self.num_blocks - 1} blocks of {r.block_size} tokens, "
            f"{_size(r.bytes_per_block)} each; {self.kv_tokens} tokens in all, "
            f"{self.kv_tokens / r.max_model_len:.1f} sequences of {r.max_model_len}",
        ]
        if self.num_host_blocks:
            lines.append(
                f"host memory for evicted blocks: {_size(r.host_kv_bytes)}, "
                f"{self.num_host_blocks} blocks, {self.num_host_blocks * r.block_size} tokens"
            )
        return lines


def plan_memory(request: MemoryRequest) -> MemoryPlan:
    """Give the KV cache what the rest leaves, but no more than it could ever use.

    Raises
    ------
    ValidationError
        If nothing is left, or a sequence of full length does not fit.
    """
    if 0 < request.host_kv_bytes < request.bytes_per_block:
        raise ValidationError(
            f"kv_offload_gib gives {_size(request.host_kv_bytes)}, less than one KV block of "
            f"{_size(request.bytes_per_block)}. Give more, or 0 to keep no evicted blocks."
        )
    if request.num_blocks_override is not None:
        plan = MemoryPlan(request, request.num_blocks_override)
        if plan.kv_tokens < request.max_model_len:
            logger.warning(
                "num_gpu_blocks_override=%d holds %d tokens, fewer than max_model_len=%d: longer "
                "requests will be refused or cut off.",
                plan.num_blocks,
                plan.kv_tokens,
                request.max_model_len,
            )
        return plan
    left = request.budget_bytes - (
        request.weights_bytes + request.encoder_cache_bytes + request.workspace_bytes
    )
    if request.device == "cpu":
        left -= request.host_kv_bytes
    per_sequence = -(-request.max_model_len // request.block_size)
    if request.kv_bytes_cap is not None:
        needed = (per_sequence + 1) * request.bytes_per_block
        left = min(left, max(request.kv_bytes_cap, needed))
    usable = per_sequence * request.max_num_seqs
    num_blocks = min(left // request.bytes_per_block, usable + 1)
    if num_blocks < 2:
        raise ValidationError(
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` "
            f"when initializing the engine. The budget of {_size(request.budget_bytes)} has to "
            f"hold {_size(request.weights_bytes)} of weights, "
            f"{_size(request.encoder_cache_bytes)} of encoder cache and "
            f"{_size(request.workspace_bytes)} of workspace.",
            code="no_cache_memory",
        )
    plan = MemoryPlan(request, num_blocks)
    if plan.kv_tokens < request.max_model_len:
        raise ValidationError(
            f"The model's max seq len ({request.max_model_len}) is larger than the maximum number "
            f"of tokens that can be stored in KV cache ({plan.kv_tokens}). Try increasing "
            "`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
            code="no_cache_memory",
        )
    return plan


def available_cpu_bytes() -> int:
    """Give the memory that this process could still take: the machine's, or its container's."""
    available = _meminfo_available()
    for folder in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")):
        limit = _read_int(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _read_int(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < 1 << 60:
            available = min(available, max(0, limit - used))
    return available


def cuda_budget_bytes(device: torch.device, share: float, ours: int) -> int:
    """Give what an engine may use of a GPU.

    Parameters
    ----------
    share
        Part of the device's memory that may be in use in all.
    ours
        Bytes of what is in use already that the plan counts itself. The rest belongs to other
        processes, to libraries, and to the driver.
    """
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(total * share) - max(0, total - free - ours)


def _meminfo_available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    return 4 * _GIB


def _read_int(*paths: Path) -> int | None:
    for path in paths:
        try:
            return int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):  # absent, or "max"
            continue
    return None


def _size(num_bytes: int) -> str:
    for unit, scale in (("GiB", _GIB), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(num_bytes) >= scale:
            return f"{num_bytes / scale:.2f} {unit}"
    return f"{num_bytes} B"
