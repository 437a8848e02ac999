"""From logits to tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from mmcore.sequence import SamplerOutput

if TYPE_CHECKING:
    from mmcore.model_executor.sampling_metadata import SamplingMetadata

__all__ = ["Sampler", "SamplerOutput"]


class Sampler(nn.Module):
    """Samples one token a row, with the parameters that each row's request asked for."""

    def forward(self, logits: Tensor, sampling_metadata: SamplingMetadata) -> SamplerOutput | None:
        """Sample.

        Parameters
        ----------
        logits
            [S, vocabulary], rows in the order of the metadata.
        sampling_metadata
            Of the step that the logits belong to.
        """
        return sampling_metadata.sample(logits)
