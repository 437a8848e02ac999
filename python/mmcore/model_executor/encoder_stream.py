"""A stream of the encoder's own, so that pictures are encoded beside the step before.

A step that encodes is launched while another one runs. On this stream its tower need not wait for
that one; only where the step itself begins does its stream wait for the tower, on the device.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from mmcore.model_executor.graph_capture import capture_stream

__all__ = ["EncoderStream"]


class EncoderStream:
    """What runs on the encoder's stream of a device, and how others come to its outputs.

    Parameters
    ----------
    device
        A GPU.

    Attributes
    ----------
    stream
        Never the one that decoder graphs are captured on: cuBLAS has one workspace for a stream,
        which kernels that run side by side must not share.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = _encoder_stream(device)

    def __call__(self) -> AbstractContextManager[object]:
        """Launch what is inside on the encoder's stream; its memory is that stream's, too."""
        return torch.cuda.stream(self.stream)

    def hand_over(self, outputs: Sequence[torch.Tensor]) -> None:
        """Let the current stream wait for the encoder, and use `outputs` until they are freed.

        Their memory is given out again when both streams are done with them.
        """
        stream = torch.cuda.current_stream(self.stream.device)
        stream.wait_stream(self.stream)
        for output in outputs:
            output.record_stream(stream)


@functools.cache
def _encoder_stream(device: torch.device) -> torch.cuda.Stream:
    """Give a device's stream. torch has few and gives them out again, also to others."""
    used = {capture_stream(device), torch.cuda.default_stream(device)}
    while True:
        stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        if stream not in used:
            return stream
