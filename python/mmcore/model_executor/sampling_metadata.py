"""Which rows of a step's hidden states become tokens, and how they are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from mmcore import _C
from mmcore.errors import InternalError
from mmcore.sequence import SampledToken, SamplerOutput

if TYPE_CHECKING:
    import torch

    from mmcore.model_executor.step_in_flight import DeviceSampler

__all__ = ["SamplingMetadata"]


class SamplingMetadata:
    """What ``compute_logits`` and ``sample`` of a model get.

    Parameters
    ----------
    plan
        The step; valid while the step runs. None when there is nothing to sample, as in profiling.
    selected_token_indices
        int64 [S]: rows of the hidden states to compute logits of. None for all rows.

    Attributes
    ----------
    rows
        The plan, whose sampling rows the core reads directly.
    device_sampler
        Samples instead of the core, and does not wait; for steps that overlap.
    """

    __slots__ = ("device_sampler", "rows", "sampled", "selected_token_indices")

    def __init__(
        self, plan: _C.StepPlan | None, selected_token_indices: torch.Tensor | None
    ) -> None:
        self.rows = plan
        self.selected_token_indices = selected_token_indices
        self.sampled = False
        self.device_sampler: DeviceSampler | None = None

    def sample(self, logits: torch.Tensor) -> SamplerOutput:
        """Sample one token a row by the parameters of the row's request.

        The core keeps the tokens; the output reads them from there, while the step runs.
        """
        if self.rows is None:
            raise InternalError("There is nothing to sample in this step.")
        if self.device_sampler is not None:
            self.device_sampler.sample(logits)
        elif logits.shape[0]:
            _C.sample(self.rows, logits)
        self.sampled = True
        return SamplerOutput(_StepTokens(self.rows, self.device_sampler))


class _StepTokens(Sequence[SampledToken]):
    """The tokens of a step, read from the plan only if somebody looks."""

    __slots__ = ("_plan", "_sampler")

    def __init__(self, plan: _C.StepPlan, sampler: DeviceSampler | None) -> None:
        self._plan = plan
        self._sampler = sampler

    def _ids(self) -> list[int]:
        sampler = self._sampler
        if sampler is None or sampler.tokens is None:
            return self._plan.sampled_tokens
        return sampler.tokens.tolist()  # waits

    def __len__(self) -> int:
        return self._plan.num_samples

    @overload
    def __getitem__(self, index: int) -> SampledToken: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SampledToken]: ...
    def __getitem__(self, index: Any) -> SampledToken | Sequence[SampledToken]:
        tokens = self._ids()[index]
        if isinstance(tokens, list):
            return [SampledToken(token) for token in tokens]
        return SampledToken(tokens)
