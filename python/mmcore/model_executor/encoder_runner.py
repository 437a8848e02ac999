"""Runs a model's encoder apart from its decoder, and keeps the outputs until they are evicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmcore import _C
from mmcore.errors import InternalError, MmcoreError
from mmcore.model_executor.media_mapper import MediaItemLike, MediaMapper
from mmcore.multimodal import MultiModalInputs

__all__ = ["EncodeJob", "EncoderRunner", "Failure"]

if TYPE_CHECKING:
    from torch import nn

    from mmcore.model_executor.encoder_graphs import EncoderGraphs

Failure = tuple[int, Exception]
"""A request that cannot go on, and why."""


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """One item to encode.

    Parameters
    ----------
    request_id
        The request that it belongs to.
    slot
        The name under which its output is kept.
    num_rows
        Embedding rows that its placeholders take.
    """

    request_id: int
    slot: int
    num_rows: int
    item: MediaItemLike


class EncoderRunner:
    """The encoder side of a model with the extended interface.

    Parameters
    ----------
    model
        Has ``embed_multimodal``.
    mapper
        Prepares items.
    device
        Where the model is.

    Attributes
    ----------
    graphs
        Encode items of one shape; None to launch all kernels one by one.
    """

    def __init__(self, model: nn.Module, mapper: MediaMapper, device: torch.device) -> None:
        self._model = model
        self._mapper = mapper
        self._device = device
        self.graphs: EncoderGraphs | None = None
        self._outputs: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._outputs)

    @property
    def num_rows(self) -> int:
        """Embedding rows that are kept."""
        return sum(output.shape[0] for output in self._outputs.values())

    def rows(self, slot: int, start: int, end: int) -> torch.Tensor:
        """View rows of a kept output."""
        return self._outputs[slot][start:end]

    def drop(self, slots: Sequence[int]) -> None:
        """Forget outputs."""
        for slot in slots:
            self._outputs.pop(slot, None)

    def encode(self, jobs: Sequence[EncodeJob]) -> list[Failure]:
        """Encode items, together where their shapes allow, and keep the outputs.

        Returns
        -------
        list
            The requests whose items could not be encoded. Others are not affected.
        """
        failures: list[Failure] = []
        groups: dict[Any, list[tuple[EncodeJob, MultiModalInputs]]] = {}
        for job in jobs:
            try:
                mapped = self._mapper.map([job.item])
            except MmcoreError as error:
                failures.append((job.request_id, error))
            else:
                groups.setdefault(_signature(job.item, mapped), []).append((job, mapped))
        for group in groups.values():
            failures += self._encode_group(group)
        return failures

    def _encode_group(self, group: list[tuple[EncodeJob, MultiModalInputs]]) -> list[Failure]:
        jobs = [job for job, _ in group]
        try:
            outputs = self._run([mapped for _, mapped in group])
            if len(jobs) == 1 and len(outputs) > 1:
                outputs = [torch.cat(outputs)]  # one item that the input processor made of several
            _check_outputs(jobs, outputs)
        except Exception as error:
            if len(group) == 1:
                return [(jobs[0].request_id, _as_ours(error))]
            # Find the item at fault; the others must not suffer.
            return [failure for one in group for failure in self._encode_group([one])]
        for job, output in zip(jobs, outputs, strict=True):
            # A view would keep the outputs of the whole group alive.
            whole = output.untyped_storage().nbytes() <= output.nbytes
            self._outputs[job.slot] = output if whole else output.clone()
        return []

    def _run(self, mapped: Sequence[MultiModalInputs]) -> list[torch.Tensor]:
        batch = MultiModalInputs.batch(mapped)
        outputs = None if self.graphs is None else self.graphs.run(batch)
        if outputs is not None:
            return outputs
        kwargs = MultiModalInputs.as_kwargs(batch, device=self._device)
        embed: Any = self._model.embed_multimodal
        return [output.flatten(0, -2) if output.ndim > 2 else output for output in embed(**kwargs)]


def _signature(item: MediaItemLike, mapped: MultiModalInputs) -> Any:
    """Items with the same signature can be stacked."""
    return (item.modality, *((name, _shape(value)) for name, value in sorted(mapped.items())))


def _shape(value: Any) -> Any:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return tuple(shape)
    return tuple(map(_shape, value)) if isinstance(value, (list, tuple)) else type(value)


def _check_outputs(jobs: Sequence[EncodeJob], outputs: Sequence[torch.Tensor]) -> None:
    if len(outputs) != len(jobs):
        raise InternalError(
            f"embed_multimodal gave {len(outputs)} tensors for {len(jobs)} items; it must give "
            "one an item.",
            code="mm_mismatch",
        )
    for job, output in zip(jobs, outputs, strict=True):
        if output.ndim != 2 or output.shape[0] != job.num_rows:
            raise InternalError(
                f"embed_multimodal gave {tuple(output.shape)} for an item whose placeholders "
                f"take {job.num_rows} rows; the input processor and the encoder disagree.",
                code="mm_mismatch",
            )


def _as_ours(error: Exception) -> MmcoreError:
    if isinstance(error, MmcoreError):
        return error
    ours = InternalError(
        f"The model's encoder raised {_C.public_text(error)}", code="encoder_error"
    )
    ours.__cause__ = error
    return ours
