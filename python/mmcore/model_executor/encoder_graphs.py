"""CUDA graphs of an encoder whose items all have one shape.

A tower launches some 360 kernels, most of them shorter than the time that the host needs to launch
them one by one. There is a graph for each of a few numbers of items; a batch is divided over them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmcore.model_executor.graph_capture import GraphCapture, without_collections
from mmcore.multimodal.byte_pixels import BytePixels, look_up
from mmcore.transfer import to_device

if TYPE_CHECKING:
    from torch import nn

    from mmcore.model_executor.encoder_stream import EncoderStream
    from mmcore.model_executor.models.interfaces import FixedMediaInput

__all__ = ["EncoderGraphs", "divide", "item_counts"]

logger = logging.getLogger(__name__)

_CAPTURE_SECONDS = 2.0


def item_counts(most: int) -> list[int]:
    """List the numbers of items to capture, where a step encodes at most `most`."""
    return [count for count in (1, 2, 4, 8, 16) if count <= max(most, 1)]


def divide(items: int, counts: Sequence[int]) -> list[tuple[int, int]]:
    """Divide items over graphs.

    A graph is filled by three quarters at least: places that stay empty are computed, too.

    Parameters
    ----------
    counts
        Items of each graph, ascending, the first 1.

    Returns
    -------
    list
        The graph's number of items, and how many of them are taken.
    """
    pieces = []
    while items > 0:
        fitting = [count for count in counts if count <= items or 4 * items >= 3 * count]
        pieces.append((fitting[-1], min(fitting[-1], items)))
        items -= fitting[-1]
    return pieces


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    outputs: list[torch.Tensor]


class EncoderGraphs:
    """Runs a model's ``embed_multimodal`` from graphs.

    Parameters
    ----------
    model
        The model.
    media
        The only argument of ``embed_multimodal``, and its shape.
    counts
        Numbers of items, ascending.
    beside
        Runs them beside other work; None to run them in the order of the current stream.
    """

    def __init__(
        self,
        model: nn.Module,
        media: FixedMediaInput,
        counts: list[int],
        device: torch.device,
        beside: EncoderStream | None = None,
    ) -> None:
        self._model: Any = model
        self._media = media
        self._counts = counts
        self._device = device
        self._beside = beside
        with self._stream():
            shape = (counts[-1], *media.shape)
            self._input = torch.zeros(shape, dtype=torch.float32, device=device)
        self._host_table = torch.empty(0)
        self._table = torch.empty(0)
        self._capturing = GraphCapture(device, None if beside is None else beside.stream)
        self._captured: dict[int, _Captured] = {}
        self._usable = True

    def __len__(self) -> int:
        return len(self._captured)

    @torch.inference_mode()
    def capture_all(self) -> None:
        """Capture all numbers of items, or as many as two seconds allow."""
        self._capturing.capture_all("encoder", self._counts, self._capture, _CAPTURE_SECONDS)

    def run(self, batch: Mapping[str, Any]) -> list[torch.Tensor] | None:
        """Encode items.

        Parameters
        ----------
        batch
            What :meth:`MultiModalInputs.batch <mmcore.multimodal.MultiModalInputs.batch>` gave.

        Returns
        -------
        list or None
            [rows, hidden] for each item, in memory of its own, for the current stream; None if the
            items are none for a graph, or the encoder cannot be captured.
        """
        pixels: Any = batch.get(self._media.name)
        if not self._usable or len(batch) != 1 or not self._takes(pixels):
            return None
        with self._stream():
            outputs = self._run(pixels)
        if outputs is not None and self._beside is not None:
            self._beside.hand_over(outputs)
        return outputs

    def _stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._beside is None else self._beside()

    def _run(self, pixels: Any) -> list[torch.Tensor] | None:
        outputs: list[torch.Tensor] = []
        for count, taken in divide(len(pixels), self._counts):
            captured = self._captured.get(count)
            if captured is None:
                with without_collections():
                    captured = self._capture(count)
                if captured is None:
                    return None
            first = len(outputs)
            self._read(pixels, first, taken)
            captured.graph.replay()
            outputs += [output.clone() for output in captured.outputs[:taken]]
        return outputs

    def _takes(self, pixels: Any) -> bool:
        if isinstance(pixels, torch.Tensor):
            floats = pixels.dtype == torch.float32
        else:
            floats = isinstance(pixels, BytePixels)
        return floats and tuple(pixels.shape[1:]) == self._media.shape

    def _read(self, pixels: Any, first: int, taken: int) -> None:
        """Bring some of a batch's items to where the graphs read them, without waiting."""
        target = self._input[:taken]
        if isinstance(pixels, BytePixels):
            if pixels.table is not self._host_table:
                self._host_table = pixels.table
                self._table = to_device(pixels.table, self._device)
            data = to_device(pixels.data[first : first + taken], self._device)
            target.copy_(look_up(data, self._table))
        else:
            target.copy_(to_device(pixels[first : first + taken], self._device))

    def _capture(self, count: int) -> _Captured | None:
        """Capture one number of items; an encoder that cannot be captured runs without from now."""
        pixels = self._input[:count]

        def encode() -> list[torch.Tensor]:
            outputs = self._model.embed_multimodal(**{self._media.name: pixels})
            if len(outputs) != count:
                raise RuntimeError(f"embed_multimodal gave {len(outputs)} outputs for {count}")
            return [output.flatten(0, -2) for output in outputs]

        try:
            captured = _Captured(*self._capturing.capture(encode))
        except Exception:
            self._usable = False
            self._captured.clear()
            logger.warning(
                "The encoder of %s cannot be captured in a CUDA graph and runs without: slower for "
                "few items. Pass enforce_eager=True to avoid the attempt.",
                type(self._model).__name__,
                exc_info=True,
            )
            return None
        self._captured[count] = captured
        return captured
