"""Runs a step: media through the encoder, tokens through the decoder, logits to the sampler.

The plan's arrays are the core's memory and are gone when :meth:`ModelRunner.execute` returns;
:mod:`~mmcore.model_executor.step_inputs` makes tensors of them.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmcore import _C
from mmcore.errors import InternalError, MmcoreError
from mmcore.model_executor.decode_graphs import DecodeStep
from mmcore.model_executor.encoder_runner import EncodeJob, EncoderRunner, Failure
from mmcore.model_executor.forward_signature import required_media_arguments
from mmcore.model_executor.kv_cache import copy_kv_blocks
from mmcore.model_executor.media_ahead import MediaAhead
from mmcore.model_executor.media_mapper import MediaItemLike, MediaMapper
from mmcore.model_executor.models.interfaces import supports_encoder_split
from mmcore.model_executor.sampling_metadata import SamplingMetadata
from mmcore.model_executor.step_in_flight import DeviceSampler, StepInFlight
from mmcore.model_executor.step_inputs import HostInputs, PlanReader, StepInputs
from mmcore.multimodal import MultiModalInputs
from mmcore.transfer import to_device

if TYPE_CHECKING:
    from torch import nn

    from mmcore.model_executor.decode_graphs import DecodeGraphs
    from mmcore.model_executor.host_blocks import HostBlocks

__all__ = ["ModelRunner", "RunnerRequest"]

# Rows of prompt logits computed at a time: a long prompt's would not fit.
PROMPT_LOGITS_ROWS = 256


@dataclass(frozen=True, slots=True)
class RunnerRequest:
    """What the runner keeps of a request while it lives.

    Parameters
    ----------
    items
        Its media, in the prompt's order.
    logits_processors
        Functions that change its logits before sampling.
    """

    items: Sequence[MediaItemLike] = ()
    logits_processors: Sequence[Callable[..., torch.Tensor]] = ()


class ModelRunner:
    """Runs steps of one model on one device.

    Parameters
    ----------
    model
        The model, loaded.
    kv_caches
        One tensor a layer.
    mapper
        Prepares media; None for a text-only model.

    Attributes
    ----------
    inputs
        Turns plans into tensors.
    graphs
        Run steps of one row a sequence; None to launch all kernels one by one.
    host_blocks
        Keeps evicted blocks of the KV cache; None to keep none.
    ahead
        Prepares media while the device works; None where the device is the host.
    max_token_id
        Largest token that the model can embed; None if it can embed what it samples.
    """

    def __init__(
        self,
        model: nn.Module,
        kv_caches: list[torch.Tensor],
        mapper: MediaMapper | None,
        device: torch.device,
    ) -> None:
        self.model: Any = model
        self.kv_caches = kv_caches
        self.mapper = mapper
        self.device = device
        self.inputs: PlanReader = HostInputs()
        self.graphs: DecodeGraphs | None = None
        self.host_blocks: HostBlocks | None = None
        self.ahead: MediaAhead | None = None
        self.encoder: EncoderRunner | None = None
        split: bool = supports_encoder_split(model)
        if mapper is not None and split:
            self.encoder = EncoderRunner(model, mapper, device)
        self._media_defaults = required_media_arguments(model)
        self._requests: dict[int, RunnerRequest] = {}
        self._unscheduled: set[int] = set()
        self._first_scheduled: dict[int, float] = {}
        self._with_processors: set[int] = set()
        self._in_flight: deque[StepInFlight] = deque()
        self.max_token_id: int | None = None

    def add_request(self, request_id: int, request: RunnerRequest) -> None:
        """Keep what a submitted request needs."""
        if request.items or request.logits_processors:
            self._requests[request_id] = request
            if self.ahead is not None:
                self.ahead.add(request_id, request.items)
        if request.logits_processors:
            self._with_processors.add(request_id)
        self._unscheduled.add(request_id)

    def release(self, request_id: int) -> None:
        """Forget a request; called by the core when it is gone."""
        if self._requests.pop(request_id, None) is not None and self.ahead is not None:
            self.ahead.forget(request_id)
        self._with_processors.discard(request_id)
        self._unscheduled.discard(request_id)

    @property
    def num_host_blocks(self) -> int:
        """Blocks of host memory for evicted KV blocks; the core asks when it is made."""
        return 0 if self.host_blocks is None else self.host_blocks.num_blocks

    @property
    def num_requests(self) -> int:
        """Requests that the runner keeps anything of."""
        return len(self._requests)

    def take_first_scheduled(self) -> dict[int, float]:
        """Give the requests that ran for the first time since the last call, and when."""
        taken = self._first_scheduled
        if taken:
            self._first_scheduled = {}
        return taken

    @torch.inference_mode()
    def execute(self, plan: _C.StepPlan) -> list[Failure] | None:
        """Run one step; the core calls this.

        Returns
        -------
        list or None
            Requests that cannot go on, each with its error. The step then did not happen.
        """
        if self._unscheduled:
            self._note_scheduled(plan)
        with self._on_device():
            run = self._forward(plan)
            if isinstance(run, list):
                return run
            self._prompt_logprobs(plan, run.hidden)
            return self._sample(plan, run)

    # Steps that overlap.

    @property
    def overlaps(self) -> bool:
        """Whether a step may be launched while another one runs; the core asks."""
        return True

    @torch.inference_mode()
    def begin(self, plan: _C.StepPlan) -> list[Failure] | None:
        """Launch one step, perhaps behind one that runs; the core calls this.

        Returns
        -------
        list or None
            Requests that cannot go on. The step was then not launched.
        """
        if self._unscheduled:
            self._note_scheduled(plan)
        with self._on_device():
            before: torch.Tensor | None = None
            if len(plan.token_sources):
                before = self._in_flight[-1].tokens(self.max_token_id)
            run = self._forward(plan, before)
            if isinstance(run, list):
                return run
            self._prompt_logprobs(plan, run.hidden)
            self._in_flight.append(self._launch_sampling(plan, run))
        return None

    @torch.inference_mode()
    def end(self, plan: _C.StepPlan) -> list[Failure] | None:
        """Wait for the oldest step that was begun; the core calls this."""
        with self._on_device():
            return self._in_flight.popleft().end(self.ahead)

    def _launch_sampling(self, plan: _C.StepPlan, run: DecodeStep) -> StepInFlight:
        parameters = plan.plain_sampling() if len(run.sample_rows) else None
        if parameters is None or self._processes(plan):
            if not len(run.sample_rows):
                return StepInFlight(plan, self.device)
            metadata = SamplingMetadata(plan, run.sample_rows)
            logits = self.model.compute_logits(run.hidden, metadata)
            later = partial(self._sample_logits, plan, metadata, logits)
            return StepInFlight(plan, self.device, sample=later)
        metadata = SamplingMetadata(plan, run.sample_rows)
        metadata.device_sampler = DeviceSampler(parameters)
        logits = self.model.compute_logits(run.hidden, metadata)
        output = self.model.sample(logits, metadata)
        if not metadata.sampled:
            plan.set_tokens([int(token.token_id) for token in output])
        return StepInFlight(plan, self.device, tokens=metadata.device_sampler.tokens)

    def _processes(self, plan: _C.StepPlan) -> bool:
        return bool(self._with_processors) and not self._with_processors.isdisjoint(
            plan.sequences["request"].tolist()
        )

    # One step.

    def _on_device(self) -> AbstractContextManager[object]:
        return nullcontext() if self.device.type == "cpu" else torch.cuda.device(self.device)

    def _forward(
        self, plan: _C.StepPlan, before: torch.Tensor | None = None
    ) -> DecodeStep | list[Failure]:
        """Compute the hidden states of a step's rows.

        Parameters
        ----------
        before
            What the step before it samples, if the plan has unknown tokens.
        """
        if self.host_blocks is not None:
            saves, loads = plan.host_saves, plan.host_loads
            if len(saves):
                self.host_blocks.save(saves.tolist())
            if len(loads):
                self.host_blocks.load(loads.tolist())
        copies = plan.block_copies
        if len(copies):
            self._copy_blocks(copies)
        if self.encoder is not None:
            failures = self._encode(plan)
            if failures:
                return failures
        if self.graphs is not None:
            step = self.graphs.run(plan, before)
            if step is not None:
                return step
        arguments: dict[str, Any] = dict(self._media_defaults)
        step_inputs = self.inputs.read(plan, before)
        if self.encoder is not None:
            if step_inputs.media_rows is not None:
                arguments["inputs_embeds"] = self._merge(plan, step_inputs)
        elif self.mapper is not None:
            failures = self._map_whole_items(plan, arguments)
            if failures:
                return failures
        hidden = self.model(
            step_inputs.token_ids,
            step_inputs.positions,
            self.kv_caches,
            step_inputs.attention,
            **arguments,
        )
        return DecodeStep(hidden, step_inputs.sample_rows)

    def _to_device(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        return to_device(torch.from_numpy(array), self.device)

    def _note_scheduled(self, plan: _C.StepPlan) -> None:
        now = time.time()
        for request_id in plan.sequences["request"].tolist():
            if request_id in self._unscheduled:
                self._unscheduled.discard(request_id)
                self._first_scheduled[request_id] = now

    def _copy_blocks(self, copies: np.ndarray[Any, Any]) -> None:
        pairs = np.stack([copies["src"], copies["dst"]], axis=1).astype(np.int64)
        copy_kv_blocks(self.kv_caches, self._to_device(pairs))

    # Media of models with an encoder of its own.

    def _encode(self, plan: _C.StepPlan) -> list[Failure]:
        assert self.encoder is not None
        evicted = plan.evict
        if len(evicted):
            self.encoder.drop(evicted.tolist())
        planned = plan.encode
        if not len(planned):
            return []
        jobs = [
            EncodeJob(request, slot, rows, self._requests[request].items[index])
            for request, index, slot, rows in planned.tolist()
        ]
        if self.ahead is not None:
            for job in jobs:
                self.ahead.forget(job.request_id)
        failures = self.encoder.encode(jobs)
        if failures:
            # The step will not happen; the items are planned again with whatever slots are free.
            self.encoder.drop([job.slot for job in jobs])
        return failures

    def _merge(self, plan: _C.StepPlan, inputs: StepInputs) -> torch.Tensor:
        """Embed the step's tokens, with the rows of media taken from the encoder's outputs."""
        assert self.encoder is not None
        pieces = [  # in the order of the rows
            self.encoder.rows(slot, source, source + rows)
            for _, _, slot, source, _, rows in plan.embeddings.tolist()
        ]
        embeds: torch.Tensor = self.model.embed_input_ids(
            inputs.token_ids, pieces, is_multimodal=inputs.media_rows
        )
        return embeds

    # Media of seed-level models: each item runs whole, with the tokens that stand for it.

    def _map_whole_items(self, plan: _C.StepPlan, arguments: dict[str, Any]) -> list[Failure]:
        assert self.mapper is not None
        media = plan.embeddings
        if not len(media):
            return []
        by_request: dict[int, list[int]] = {}
        for request, index in media[["request", "item_index"]].tolist():
            indices = by_request.setdefault(request, [])
            if index not in indices:
                indices.append(index)
        failures: list[Failure] = []
        mapped = []
        for request, indices in by_request.items():
            items = self._requests[request].items
            try:
                mapped.append(self.mapper.map([items[index] for index in indices]))
            except MmcoreError as error:
                failures.append((request, error))
        if not failures:
            batch = MultiModalInputs.batch(mapped)
            arguments.update(MultiModalInputs.as_kwargs(batch, device=self.device))
        return failures

    # Logits and sampling.

    def _prompt_logprobs(self, plan: _C.StepPlan, hidden: torch.Tensor) -> None:
        rows = plan.prompt_logprob_rows
        for first in range(0, len(rows), PROMPT_LOGITS_ROWS):
            chunk = self._to_device(rows[first : first + PROMPT_LOGITS_ROWS]).long()
            logits = self.model.compute_logits(hidden, SamplingMetadata(None, chunk))
            _C.prompt_logprobs(plan, logits, first)

    def _sample(self, plan: _C.StepPlan, run: DecodeStep) -> list[Failure] | None:
        if not len(run.sample_rows):
            return None
        metadata = SamplingMetadata(plan, run.sample_rows)
        logits = self.model.compute_logits(run.hidden, metadata)
        if self.ahead is not None and len(self.ahead):
            self._prepare_media()
        return self._sample_logits(plan, metadata, logits)

    def _sample_logits(
        self, plan: _C.StepPlan, metadata: SamplingMetadata, logits: torch.Tensor
    ) -> list[Failure] | None:
        if self._with_processors:
            failures = self._process_logits(plan, logits)
            if failures:
                return failures
        output = self.model.sample(logits, metadata)
        if not metadata.sampled:
            # The model sampled by itself.
            plan.set_tokens([int(token.token_id) for token in output])
        return None

    def _prepare_media(self) -> None:
        assert self.ahead is not None
        launched = torch.cuda.Event()  # type: ignore[no-untyped-call]
        launched.record()
        self.ahead.work_until(launched)

    def _process_logits(self, plan: _C.StepPlan, logits: torch.Tensor) -> list[Failure]:
        """Let the callables of requests change their rows, in place."""
        failures: list[Failure] = []
        for request, row in plan.sequences[["request", "sample_row"]].tolist():
            if row < 0 or request not in self._with_processors:
                continue
            prompt, generated = (ids.tolist() for ids in plan.history(row))
            try:
                for process in self._requests[request].logits_processors:
                    arguments = (prompt, generated) if _takes_three(process) else (generated,)
                    logits[row] = process(*arguments, logits[row])
            except Exception as error:
                ours = InternalError(
                    f"A logits processor raised {_C.public_text(error)}",
                    code="logits_processor_error",
                )
                ours.__cause__ = error
                failures.append((request, ours))
        return failures


def _takes_three(process: Callable[..., Any]) -> bool:
    """Tell (prompt ids, generated ids, logits) from (generated ids, logits)."""
    try:
        return len(inspect.signature(process).parameters) == 3
    except (TypeError, ValueError):
        return False
