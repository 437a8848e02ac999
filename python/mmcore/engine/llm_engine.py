"""LLMEngine: requests in, outputs out, one step at a time."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmcore import _C
from mmcore._checks import as_finite
from mmcore.engine.arg_utils import EngineArgs, EngineConfig
from mmcore.engine.core_config import CoreConfig
from mmcore.engine.device_start import start_device
from mmcore.engine.input_preprocessor import InputPreprocessor, ProcessedPrompt
from mmcore.engine.output_processor import OutputProcessor
from mmcore.engine.placeholder_ids import placeholder_token_ids
from mmcore.engine.request_state import RequestState
from mmcore.engine.sampling import SeedSource, check_supported, to_core_params
from mmcore.engine.tokenizer import TokenizerAdapter, load_tokenizer
from mmcore.errors import EngineDeadError, InternalError, MmcoreError, ValidationError
from mmcore.multimodal import MULTIMODAL_REGISTRY
from mmcore.sampling_params import SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mmcore.config import CacheConfig, ModelConfig, SchedulerConfig
    from mmcore.inputs import PromptType
    from mmcore.model_executor.memory_plan import MemoryPlan
    from mmcore.model_executor.model_runner import ModelRunner
    from mmcore.outputs import RequestOutput

__all__ = ["LLMEngine"]

logger = logging.getLogger(__name__)


class LLMEngine:
    """A model, its scheduler and caches, and the requests that it serves.

    One thread at a time may use an engine. A request that cannot be served is refused by
    :meth:`add_request`, or ends with ``RequestOutput.error``; it never ends the engine.

    Parameters
    ----------
    config
        From :meth:`EngineArgs.create_engine_config`.
    """

    def __init__(self, config: EngineConfig) -> None:
        from mmcore.model_executor.executor import build_executor

        self._config = config
        model_config = config.model_config
        MULTIMODAL_REGISTRY.init_mm_limits_per_prompt(model_config)
        placeholders = placeholder_token_ids(model_config.hf_config)
        self._adapter: TokenizerAdapter | None = None
        if not model_config.skip_tokenizer_init:
            self._adapter = TokenizerAdapter(load_tokenizer(model_config))
        executor = build_executor(
            model_config,
            config.cache_config,
            config.scheduler_config,
            config.load_config,
            config.device_config,
            placeholder_ids=placeholders,
            encoder_budget=config.encoder_budget,
            encoder_cache_rows=config.encoder_cache_rows,
            mm_input_cache_bytes=config.mm_input_cache_bytes,
            enforce_eager=config.enforce_eager,
            encoder_stream=config.encoder_stream,
        )
        self.model_runner: ModelRunner = executor.runner
        self.memory_plan: MemoryPlan = executor.memory
        scheduler = config.scheduler_config
        cache = config.cache_config
        self.core_config = CoreConfig(
            block_size=cache.block_size,
            num_blocks=executor.memory.num_blocks,
            num_host_blocks=executor.memory.num_host_blocks,
            enable_prefix_caching=cache.enable_prefix_caching,
            max_model_len=model_config.max_model_len,
            max_num_seqs=scheduler.max_num_seqs,
            max_num_batched_tokens=scheduler.max_num_batched_tokens,
            enable_chunked_prefill=scheduler.enable_chunked_prefill,
            max_prefill_chunk=scheduler.max_prefill_chunk,
            policy=("fcfs", "priority", "longest_prefix").index(scheduler.policy),
            max_preemptions=scheduler.max_preemptions,
            headroom=scheduler.headroom,
            max_queued_requests=scheduler.max_queued_requests,
            max_queued_tokens=scheduler.max_queued_tokens,
            async_schedule=scheduler.async_scheduling,
            step_watchdog_us=round(scheduler.step_watchdog * 1e6),
            multimodal=model_config.is_multimodal_model,
            split_media_items=executor.split_media_items,
            encoder_budget=executor.encoder.budget,
            encoder_cache_rows=executor.encoder.cache_rows,
            vocab_size=model_config.get_vocab_size(),
            logits_size=executor.logits_size,
            eos_token_ids=_eos_token_ids(model_config, self._adapter, executor.logits_size),
            max_logprobs=config.max_logprobs,
        )
        self._core = _C.Engine(self.core_config.to_core(), self.model_runner)
        self._preprocessor = InputPreprocessor(model_config, self._adapter)
        self._seeds = SeedSource(model_config.seed)
        self._outputs = OutputProcessor()
        self._requests: dict[str, RequestState] = {}
        self._pending: list[RequestOutput] = []
        self._step_in_flight = False
        self._dead: EngineDeadError | None = None
        self._counter = itertools.count()

    @classmethod
    def from_engine_args(
        cls, engine_args: EngineArgs, usage_context: Any = None, stat_loggers: Any = None
    ) -> LLMEngine:
        """Build an engine. `usage_context` and `stat_loggers` are accepted and not used."""
        start_device(engine_args.device)
        return cls(engine_args.create_engine_config())

    # Requests.

    def preprocess(self, prompt: PromptType, params: SamplingParams) -> ProcessedPrompt:
        """Tokenise a prompt, decode its media and expand its placeholders.

        This is the part of :meth:`add_request` that takes time. It uses nothing that a step
        changes, so another thread may run it.
        """
        return self._preprocessor.process(
            prompt, truncate_prompt_tokens=params.truncate_prompt_tokens
        )

    def add_request(
        self,
        request_id: str,
        prompt: PromptType | ProcessedPrompt,
        params: SamplingParams,
        arrival_time: float | None = None,
        lora_request: Any = None,
        trace_headers: Mapping[str, str] | None = None,
        prompt_adapter_request: Any = None,
        priority: int = 0,
        *,
        cache_salt: str = "",
        timeout: float | None = None,
        queue_timeout: float | None = None,
    ) -> None:
        """Check a request and queue it.

        A request for several sequences (``n`` or ``best_of``) runs as that many sequences. The
        first computes the prompt; the others start when it is done, and share its cache.

        Parameters
        ----------
        request_id
            The caller's name for it, unique among the unfinished ones.
        prompt
            A string, a ``TextPrompt``, a ``TokensPrompt``, or what :meth:`preprocess` gave.
        params
            How to sample.
        arrival_time
            Seconds since the epoch; now if left out.
        priority
            Smaller runs first; needs ``scheduling_policy="priority"``.
        cache_salt
            Requests with different salts never share cached blocks or encoder outputs.
        timeout, queue_timeout
            Seconds after which the request ends with a RequestTimeoutError: in all, and before it
            first runs. They are looked at between steps.

        Raises
        ------
        ValidationError
            Or a subclass: the request cannot be served. Nothing was queued.
        EngineOverloadedError
            If the queue is full.
        EngineDeadError
            If the engine broke down before.
        """
        self._check_alive()
        if not isinstance(params, SamplingParams):
            raise ValidationError(
                f"params must be SamplingParams, got {type(params).__name__}; "
                "pooling models are not supported."
            )
        for name, value in (
            ("lora_request", lora_request),
            ("prompt_adapter_request", prompt_adapter_request),
        ):
            if value is not None:
                raise ValidationError(f"{name} is not supported.", code="unsupported")
        if request_id in self._requests:
            raise ValidationError(
                f"A request with the id {request_id!r} is unfinished; ids must be unique.",
                code="duplicate_request_id",
            )
        check_supported(params)
        if not isinstance(prompt, ProcessedPrompt):
            prompt = self.preprocess(prompt, params)
        state = RequestState(
            request_id,
            prompt,
            params,
            seed=self._seeds.draw() if params.seed is None else params.seed,
            adapter=self._adapter,
            priority=priority,
            cache_salt=cache_salt,
            arrival_time=arrival_time,
            timeout=_timeout("timeout", timeout),
            queue_timeout=_timeout("queue_timeout", queue_timeout),
        )
        try:
            self._submit(state)
        except MmcoreError as error:
            error.request_id = request_id
            raise
        self._requests[request_id] = state

    def _submit(self, state: RequestState) -> None:
        from mmcore.model_executor.model_runner import RunnerRequest

        params, prompt = state.params, state.prompt
        core_id = self._core.submit(
            _C.Request(
                prompt.token_ids,
                [item.to_core() for item in prompt.items],
                to_core_params(params, state.seed, needs_logprob=params.real_n < params.n),
                state.priority,
                state.cache_salt,
                num_sequences=params.n,
                timeout_us=_microseconds(state.timeout),
                queue_timeout_us=_microseconds(state.queue_timeout),
            )
        )
        self.model_runner.add_request(
            core_id, RunnerRequest(prompt.items, params.logits_processors or ())
        )
        self._outputs.track(core_id, state)

    def abort_request(self, request_id: str | Iterable[str]) -> None:
        """Give up requests and free what they hold; unknown and finished ids are ignored.

        Each gets a last output with the finish reason ``"abort"`` in the next :meth:`step`.
        """
        for name in [request_id] if isinstance(request_id, str) else list(request_id):
            state = self._requests.get(name)
            if state is None:
                continue
            self._give_up(state, "abort")
            output = state.output()
            if output is not None:
                self._pending.append(output)

    def _give_up(self, state: RequestState, reason: str) -> None:
        """End the sequences that still run, and forget the request."""
        core_id = self._outputs.forget(state)
        if core_id is not None:
            _ignore_missing(self._core.abort, core_id)
        for sequence in state.sequences:
            sequence.end_with(reason)
        self._requests.pop(state.request_id, None)

    # Steps.

    def step(self) -> list[RequestOutput]:
        """Run one step and give what changed.

        Raises
        ------
        EngineDeadError
            If the engine itself is broken. Failures of requests are in their outputs.
        """
        self._check_alive()
        try:
            self._core.step()
        except InternalError as error:
            self._dead = EngineDeadError(f"The engine met an internal error: {error}")
            raise self._dead from error
        outputs, self._pending = self._pending, []
        for core_id, when in self.model_runner.take_first_scheduled().items():
            self._outputs.note_scheduled(core_id, when)
        processed = self._outputs.process(self._core.take_outputs())
        for core_id, sequence in processed.stopped:
            _ignore_missing(self._core.finish, core_id, sequence)
        for state in processed.failed:
            self._give_up(state, "error")
        for output in processed.outputs:
            if output.finished:
                self._requests.pop(output.request_id, None)
        # With async_scheduling a step may be left of requests that have all ended.
        self._step_in_flight = self._core.has_unfinished()
        return outputs + processed.outputs

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise EngineDeadError(str(self._dead))

    # What an engine tells about itself.

    def has_unfinished_requests(self) -> bool:
        """Tell whether there is anything to step for."""
        return bool(self._requests or self._pending) or self._step_in_flight

    def get_num_unfinished_requests(self) -> int:
        """Count the requests that are queued or running."""
        return len(self._requests)

    def get_model_config(self) -> ModelConfig:
        """Give the model's configuration."""
        return self._config.model_config

    def get_cache_config(self) -> CacheConfig:
        """Give the KV cache's configuration."""
        return self._config.cache_config

    def get_scheduler_config(self) -> SchedulerConfig:
        """Give the scheduler's configuration."""
        return self._config.scheduler_config

    def get_tokenizer(self, lora_request: Any = None) -> PreTrainedTokenizerBase:
        """Give the tokenizer.

        Raises
        ------
        ValidationError
            If the engine was made without one.
        """
        if self._adapter is None:
            raise ValidationError(
                "There is no tokenizer because `skip_tokenizer_init` is True.", code="no_tokenizer"
            )
        return self._adapter.tokenizer

    def max_servable_tokens(self) -> int:
        """Give the longest prompt and output together that the KV pool can hold."""
        return int(self._core.max_servable_tokens())

    def metrics(self) -> dict[str, int]:
        """Give the counters and gauges of the core, by name."""
        return dict(self._core.metrics().as_dict())

    def reset_caches(self) -> None:
        """Forget cached prefixes and encoder outputs; only while nothing runs."""
        self._core.reset_caches()

    def check_invariants(self) -> Sequence[str]:
        """Check the core's state, which takes long; one line for each violation."""
        return list(self._core.check_invariants())

    def check_health(self) -> None:
        """Raise EngineDeadError if the engine broke down."""
        self._check_alive()


def _eos_token_ids(
    model_config: ModelConfig, adapter: TokenizerAdapter | None, logits_size: int
) -> tuple[int, ...]:
    """Gather the end-of-text ids: the generation config's, the model's, the tokenizer's."""
    from mmcore.engine.generation_config import generation_eos_ids

    found = generation_eos_ids(model_config)
    if not found and adapter is not None and adapter.eos_token_id is not None:
        found = [adapter.eos_token_id]
    return tuple(dict.fromkeys(i for i in found if 0 <= i < logits_size))


def _timeout(name: str, seconds: float | None) -> float | None:
    """Refuse what is no time."""
    if seconds is None:
        return None
    seconds = as_finite(name, seconds)
    if seconds <= 0:
        raise ValidationError(f"{name} must be more than 0 seconds, got {seconds!r}.")
    return seconds


def _microseconds(seconds: float | None) -> int:
    """Convert a timeout for the core, to which 0 means none."""
    return 0 if seconds is None else max(1, min(int(seconds * 1e6), 2**62))


def _ignore_missing(call: Any, *names: int) -> None:
    """Call with an id that may have finished in the meantime."""
    try:
        call(*names)
    except ValidationError as error:
        if error.code != "not_found":
            raise
