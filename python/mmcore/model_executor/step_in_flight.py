"""A step that was launched and whose tokens are still to come.

Where nothing but the logits decides, the tokens are sampled on the device behind the model: the
next step reads them there, and a copy travels to the host. What needs more (penalties, biases,
logprobs, a sampler of the model's own) is sampled when the tokens are first asked for, which waits
for the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from mmcore.errors import ValidationError
from mmcore.ops import sample_tensors
from mmcore.transfer import to_device

if TYPE_CHECKING:
    from mmcore import _C
    from mmcore.model_executor.encoder_runner import Failure
    from mmcore.model_executor.media_ahead import MediaAhead

__all__ = ["DeviceSampler", "StepInFlight"]


class DeviceSampler:
    """Samples a step's rows without waiting.

    Parameters
    ----------
    parameters
        From :meth:`StepPlan.plain_sampling`.

    Attributes
    ----------
    tokens
        int32 [S] on the device; None until :meth:`sample` was called.
    """

    def __init__(self, parameters: Any) -> None:
        self._parameters = torch.from_numpy(parameters)
        self.tokens: torch.Tensor | None = None

    def sample(self, logits: torch.Tensor) -> None:
        """Launch the sampler behind what computes the logits."""
        columns = to_device(self._parameters, logits.device)
        rows = logits.shape[0]

        def column(first: int, words: int, dtype: torch.dtype) -> torch.Tensor:
            return columns[first * rows : (first + words) * rows].view(dtype)

        self.tokens = sample_tensors(
            logits,
            temperature=column(4, 1, torch.float32),
            top_p=column(5, 1, torch.float32),
            min_p=column(6, 1, torch.float32),
            top_k=column(7, 1, torch.int32),
            seed=column(0, 2, torch.int64),
            counter=column(2, 2, torch.int64),
        )


class StepInFlight:
    """One step from its launch to its end.

    Parameters
    ----------
    tokens
        int32 [S] on the device, if they were sampled there.
    sample
        Otherwise: samples now, and gives the requests that cannot go on.
    """

    def __init__(
        self,
        plan: _C.StepPlan,
        device: torch.device,
        tokens: torch.Tensor | None = None,
        sample: Callable[[], list[Failure] | None] | None = None,
    ) -> None:
        self._plan = plan
        self._device = device
        self._sample = sample
        self._failures: list[Failure] | None = None
        self._error: BaseException | None = None
        self._on_device = tokens
        self._on_host = tokens
        self._arrived: Any = None
        if tokens is not None and device.type != "cpu":
            self._on_host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            self._on_host.copy_(tokens, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def tokens(self, largest: int | None) -> torch.Tensor:
        """Give the sampled tokens, int64 [S] on the device, for the step behind this one.

        A row that could not be sampled gives a token that can be embedded; this step then fails,
        and the other one with it.
        """
        ids = self._on_device
        if ids is None:
            self._sample_now()
            ids = torch.tensor(self._plan.sampled_tokens, dtype=torch.int32)
            if len(ids) != self._plan.num_samples:
                ids = torch.zeros(self._plan.num_samples, dtype=torch.int32)
            ids = self._on_device = to_device(ids, self._device)
        return ids.clamp(min=0, max=largest).long()

    def end(self, ahead: MediaAhead | None) -> list[Failure] | None:
        """Wait for the tokens and leave them in the plan."""
        if self._on_host is None:
            self._sample_now()
            if self._error is not None:
                raise self._error
            return self._failures
        if self._arrived is not None:
            if ahead is not None and len(ahead):
                ahead.work_until(self._arrived)
            self._arrived.synchronize()
        tokens: list[int] = self._on_host.tolist()
        self._plan.set_tokens(tokens)
        if min(tokens, default=0) >= 0:
            return None
        return [
            (request, ValidationError("The logits hold a NaN, or leave nothing to choose."))
            for request, row in self._plan.sequences[["request", "sample_row"]].tolist()
            if row >= 0 and tokens[row] < 0
        ]

    def _sample_now(self) -> None:
        sample, self._sample = self._sample, None
        if sample is None:
            return
        try:
            self._failures = sample()
        except BaseException as error:  # told at the step's end
            self._error = error
