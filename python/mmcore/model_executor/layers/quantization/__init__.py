"""Quantized weights: none are supported, but model files of the seed era name the type."""

from mmcore.model_executor.layers.quantization.base_config import QuantizationConfig

__all__ = ["QuantizationConfig"]
