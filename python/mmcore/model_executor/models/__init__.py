"""Model classes, the interfaces they implement, and the registry that finds them by name."""

from mmcore.model_executor.models.interfaces import (
    HasInnerState,
    SupportsEncoderSplit,
    SupportsLoRA,
    SupportsMultiModal,
    SupportsPP,
    SupportsVision,
    has_inner_state,
    supports_encoder_split,
    supports_lora,
    supports_multimodal,
    supports_pp,
    supports_vision,
)
from mmcore.model_executor.models.registry import ModelRegistry

__all__ = [
    "HasInnerState",
    "ModelRegistry",
    "SupportsEncoderSplit",
    "SupportsLoRA",
    "SupportsMultiModal",
    "SupportsPP",
    "SupportsVision",
    "has_inner_state",
    "supports_encoder_split",
    "supports_lora",
    "supports_multimodal",
    "supports_pp",
    "supports_vision",
]
