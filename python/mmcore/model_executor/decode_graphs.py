"""CUDA graphs of the decoder for steps in which every sequence has one row.

Launching a decoder's kernels one by one takes the host longer than a GPU needs for a small batch.
A graph launches them at once, but for a fixed number of rows: there is one for each of a few batch
sizes, and a smaller batch leaves rows over that belong to no sequence.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmcore.model_executor.graph_capture import GraphCapture, without_collections
from mmcore.model_executor.staging import padded_width

if TYPE_CHECKING:
    from torch import nn

    from mmcore import _C
    from mmcore.model_executor.staging import StagedInputs
    from mmcore.model_executor.step_inputs import StepInputs

__all__ = ["DecodeGraphs", "DecodeStep", "batch_sizes"]

logger = logging.getLogger(__name__)

_CAPTURE_SECONDS = 5.0


def batch_sizes(max_num_seqs: int) -> list[int]:
    """List the batch sizes to capture: dense where a padded row costs most, the last one whole."""
    sizes = [1, 2, 4, *range(8, 128, 8), *range(128, 256, 16), *range(256, 513, 32)]
    return [size for size in sizes if size < max_num_seqs] + [min(max_num_seqs, 512)]


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """A step that a graph computes.

    Parameters
    ----------
    hidden
        [rows, hidden size], of which the first rows are the step's; overwritten by later steps.
    sample_rows
        int64 [S]: rows of `hidden` whose logits are sampled.
    """

    hidden: torch.Tensor
    sample_rows: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: StepInputs
    hidden: torch.Tensor


class DecodeGraphs:
    """Runs a decoder's forward from graphs.

    Parameters
    ----------
    model, kv_caches
        What every captured call gets.
    staged
        Brings a step's arrays to where the graphs read them.
    arguments
        More arguments of the model's forward, the same in every step.
    sizes
        Batch sizes, ascending.
    max_blocks
        Most blocks of a sequence.
    """

    def __init__(
        self,
        model: nn.Module,
        kv_caches: list[torch.Tensor],
        staged: StagedInputs,
        arguments: Mapping[str, Any],
        sizes: list[int],
        max_blocks: int,
    ) -> None:
        self._model = model
        self._kv_caches = kv_caches
        self._staged = staged
        self._arguments = dict(arguments)
        self._sizes = sizes
        self._captured: dict[int, _Captured] = {}
        device = staged.device
        shape = (sizes[-1], padded_width(max_blocks))
        self._tables = torch.zeros(shape, dtype=torch.int32, device=device)
        self._capturing = GraphCapture(device)
        self._usable = True

    def __len__(self) -> int:
        return len(self._captured)

    @torch.inference_mode()
    def capture_all(self) -> None:
        """Capture all batch sizes, or as many as five seconds allow."""
        self._capturing.capture_all("decoder", self._sizes, self._capture, _CAPTURE_SECONDS)

    def run(self, plan: _C.StepPlan, before: torch.Tensor | None = None) -> DecodeStep | None:
        """Run a step, or give None if it is none for a graph: then nothing has happened.

        Parameters
        ----------
        before
            What the step before it samples, if the plan has unknown tokens.
        """
        rows = plan.num_tokens
        if not self._usable or rows != plan.num_sequences or len(plan.embeddings):
            return None
        index = bisect_left(self._sizes, rows)
        if index == len(self._sizes):
            return None
        size = self._sizes[index]
        captured = self._captured.get(size)
        if captured is None:
            with without_collections():
                captured = self._capture(size)
            if captured is None:
                return None
        tables = self._staged.read_decode(plan, size, before)
        width = min(tables.shape[1], self._tables.shape[1])
        self._tables[:rows, :width].copy_(tables[:, :width])
        captured.graph.replay()
        return DecodeStep(captured.hidden, captured.inputs.sample_rows[: plan.num_samples])

    def device_ms(self, rows: int, repeats: int = 20) -> float:
        """Time the graph that ran last for a batch of `rows`, on the device alone: its floor.

        Only while nothing runs. It computes again what its last step did.
        """
        graph = self._captured[self._sizes[bisect_left(self._sizes, rows)]].graph
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(repeats):
            graph.replay()
        end.record()
        end.synchronize()
        milliseconds: float = begin.elapsed_time(end) / repeats
        return milliseconds

    def _capture(self, size: int) -> _Captured | None:
        """Capture one batch size; a model that cannot be captured runs without graphs from now."""
        inputs = self._staged.decode_inputs(size, self._tables)
        try:
            graph, hidden = self._capturing.capture(
                lambda: self._forward(inputs), lambda: self._staged.clear_decode(size)
            )
        except Exception:
            self._usable = False
            self._captured.clear()
            logger.warning(
                "%s cannot be captured in a CUDA graph and runs without: slower for small batches. "
                "Pass enforce_eager=True to avoid the attempt.",
                type(self._model).__name__,
                exc_info=True,
            )
            return None
        self._captured[size] = captured = _Captured(graph, inputs, hidden)
        return captured

    def _forward(self, inputs: StepInputs) -> torch.Tensor:
        hidden: torch.Tensor = self._model(
            inputs.token_ids,
            inputs.positions,
            self._kv_caches,
            inputs.attention,
            **self._arguments,
        )
        return hidden
