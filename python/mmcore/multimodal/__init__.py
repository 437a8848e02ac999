"""Media: where it comes from, what it is, and the registry that maps it into a model."""

from mmcore.multimodal.base import (
    BatchedTensorInputs,
    MultiModalData,
    MultiModalDataBuiltins,
    MultiModalDataDict,
    MultiModalInputMapper,
    MultiModalInputs,
    MultiModalKwargs,
    MultiModalPlugin,
    NestedTensors,
)
from mmcore.multimodal.placeholders import MultiModalPlaceholderDict, PlaceholderRange
from mmcore.multimodal.registry import MultiModalRegistry

MULTIMODAL_REGISTRY = MultiModalRegistry()
"""The registry that model classes decorate themselves with and engines read."""

__all__ = [
    "MULTIMODAL_REGISTRY",
    "BatchedTensorInputs",
    "MultiModalData",
    "MultiModalDataBuiltins",
    "MultiModalDataDict",
    "MultiModalInputMapper",
    "MultiModalInputs",
    "MultiModalKwargs",
    "MultiModalPlaceholderDict",
    "MultiModalPlugin",
    "MultiModalRegistry",
    "NestedTensors",
    "PlaceholderRange",
]
