"""The core's limits and policies, field for field, and how an engine's configuration fills them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcore import _C

__all__ = ["CoreConfig"]


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """What ``mmcore::EngineConfig`` is built from; the names and the defaults are the core's.

    Parameters
    ----------
    num_blocks
        Blocks of the pool, the null block included.
    num_host_blocks
        Blocks of host memory that keep what is evicted from the pool; 0 for none.
    hash_key
        Key of the prefix hash; 0 draws one at random.
    split_media_items
        False for a seed-level model: an item's span then runs whole, in one step.
    encoder_budget, encoder_cache_rows
        Embedding rows that one step may encode, and that the encoder cache holds; 0 lets the core
        choose.
    logits_size
        Columns of the logits; 0 for `vocab_size`.
    """

    block_size: int = 16
    num_blocks: int = 0
    enable_prefix_caching: bool = True
    num_host_blocks: int = 0
    hash_key: int = 0
    hash_bits: int = 64
    max_model_len: int = 0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    enable_chunked_prefill: bool = True
    max_prefill_chunk: int = 0
    policy: int = 0
    max_preemptions: int = 4
    headroom: int = 100
    max_queued_requests: int = 0
    max_queued_tokens: int = 0
    async_schedule: bool = False
    step_watchdog_us: int = 0
    share_within_step: bool = True
    multimodal: bool = False
    split_media_items: bool = True
    encoder_budget: int = 0
    encoder_cache_rows: int = 0
    vocab_size: int = 0
    logits_size: int = 0
    eos_token_ids: tuple[int, ...] = ()
    max_logprobs: int = 20
    max_logit_bias: int = 300
    max_stop_token_ids: int = 256
    max_sequences: int = 128

    def to_core(self) -> _C.EngineConfig:
        """Copy into the core's own type. The core checks the values when an engine is made."""
        from mmcore import _C

        core = _C.EngineConfig()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "policy":
                value = _C.SchedulingPolicy(value)
            elif field.name == "eos_token_ids":
                value = list(value)
            setattr(core, field.name, value)
        return core
