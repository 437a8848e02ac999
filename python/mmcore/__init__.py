"""mmcore: a multimodal LLM inference engine with a C++/CUDA core.

Importing the package is cheap: no torch, transformers or Pillow. Every public name below, and the
modules ``mmcore.ops`` and the like, are loaded when they are first used.

Examples
--------
>>> from mmcore import LLM, SamplingParams
>>> llm = LLM("path/to/checkpoint")
>>> llm.generate("Hello", SamplingParams(max_tokens=8))[0].outputs[0].text
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcore import _C as _C
    from mmcore.beam_search import BeamSearchOutput, BeamSearchParams, BeamSearchSequence
    from mmcore.engine.arg_utils import EngineArgs
    from mmcore.engine.llm_engine import LLMEngine
    from mmcore.entrypoints.llm import LLM
    from mmcore.errors import (
        CheckpointError,
        EngineDeadError,
        EngineOverloadedError,
        EngineShutdownError,
        InternalError,
        MediaError,
        MediaFetchError,
        MmcoreError,
        PlaceholderMismatchError,
        RequestAbortedError,
        RequestTimeoutError,
        UnservableRequestError,
        ValidationError,
    )
    from mmcore.inputs import INPUT_REGISTRY, TextPrompt, TokensPrompt
    from mmcore.model_executor.models import ModelRegistry
    from mmcore.multimodal import MULTIMODAL_REGISTRY
    from mmcore.outputs import CompletionOutput, RequestOutput
    from mmcore.sampling_params import SamplingParams

    __version__: str

__all__ = [
    "INPUT_REGISTRY",
    "LLM",
    "MULTIMODAL_REGISTRY",
    "BeamSearchOutput",
    "BeamSearchParams",
    "BeamSearchSequence",
    "CheckpointError",
    "CompletionOutput",
    "EngineArgs",
    "EngineDeadError",
    "EngineOverloadedError",
    "EngineShutdownError",
    "InternalError",
    "LLMEngine",
    "MediaError",
    "MediaFetchError",
    "MmcoreError",
    "ModelRegistry",
    "PlaceholderMismatchError",
    "RequestAbortedError",
    "RequestOutput",
    "RequestTimeoutError",
    "SamplingParams",
    "TextPrompt",
    "TokensPrompt",
    "UnservableRequestError",
    "ValidationError",
    "__version__",
]

# Where each public name lives; names that are missing here live in mmcore.errors.
_HOME = {
    "INPUT_REGISTRY": "mmcore.inputs",
    "LLM": "mmcore.entrypoints.llm",
    "MULTIMODAL_REGISTRY": "mmcore.multimodal",
    "BeamSearchOutput": "mmcore.beam_search",
    "BeamSearchParams": "mmcore.beam_search",
    "BeamSearchSequence": "mmcore.beam_search",
    "CompletionOutput": "mmcore.outputs",
    "EngineArgs": "mmcore.engine.arg_utils",
    "LLMEngine": "mmcore.engine.llm_engine",
    "ModelRegistry": "mmcore.model_executor.models",
    "RequestOutput": "mmcore.outputs",
    "SamplingParams": "mmcore.sampling_params",
    "TextPrompt": "mmcore.inputs",
    "TokensPrompt": "mmcore.inputs",
}
_MODULES = ("attention", "config", "errors", "inputs", "multimodal", "ops")


def __getattr__(name: str) -> object:
    from importlib import import_module

    value: object
    if name == "__version__":
        value = import_module("mmcore._version").read_version()
    elif name in _MODULES:
        value = import_module(f"mmcore.{name}")
    elif name in __all__:
        value = getattr(import_module(_HOME.get(name, "mmcore.errors")), name)
    else:
        raise AttributeError(f"module 'mmcore' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
