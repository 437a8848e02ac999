"""Making models and loading their weights."""

from mmcore.model_executor.model_loader.loader import (
    CheckpointReader,
    checkpoint_folder,
    get_model,
    initialize_model,
    load_weights,
)

__all__ = [
    "CheckpointReader",
    "checkpoint_folder",
    "get_model",
    "initialize_model",
    "load_weights",
]
