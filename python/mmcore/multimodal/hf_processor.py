"""The checkpoint's own tokenizer and processors, loaded through transformers and cached.

Caches are bounded: options may come from requests, and a processor is kept for each set of them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmcore.errors import CheckpointError, ValidationError
from mmcore.hf_config import load_hf_config, prepare_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

__all__ = [
    "cached_get_image_processor",
    "cached_get_processor",
    "cached_get_tokenizer",
    "cached_get_video_processor",
    "get_image_processor",
    "get_processor",
    "get_tokenizer",
    "get_video_processor",
    "is_batch_feature",
]

_CACHED_TOKENIZERS = 16
_CACHED_PROCESSORS = 32


def get_tokenizer(
    tokenizer_name: str,
    *args: Any,
    tokenizer_mode: str = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
    **kwargs: Any,
) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Parameters
    ----------
    tokenizer_name
        A folder or a hub name.
    tokenizer_mode
        ``"auto"`` for the fast tokenizer where there is one, ``"slow"`` for the Python one.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    if tokenizer_mode not in ("auto", "slow"):
        raise ValidationError(f"tokenizer_mode must be auto or slow, got {tokenizer_mode!r}.")
    if tokenizer_mode == "slow":
        kwargs["use_fast"] = False
    prepare_transformers()
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = _load(
        "tokenizer",
        AutoTokenizer,
        tokenizer_name,
        *args,
        trust_remote_code=trust_remote_code,
        revision=revision,
        **kwargs,
    )
    return tokenizer


def get_image_processor(
    processor_name: str,
    *args: Any,
    trust_remote_code: bool = False,
    revision: str | None = None,
    **kwargs: Any,
) -> Any:
    """Load an image processor: the torchvision one where torchvision works, else the Pillow one.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    prepare_transformers()
    # Not from the package itself: older ones offer it there only where torchvision is installed.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    return _load(
        "image processor",
        AutoImageProcessor,
        processor_name,
        *args,
        trust_remote_code=trust_remote_code,
        revision=revision,
        **kwargs,
    )


def get_video_processor(
    processor_name: str,
    *args: Any,
    trust_remote_code: bool = False,
    revision: str | None = None,
    **kwargs: Any,
) -> Any:
    """Load a video processor. Those of transformers need torchvision.

    Raises
    ------
    CheckpointError
        If there is none, or torchvision does not work.
    """
    prepare_transformers()
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor

    return _load(
        "video processor",
        AutoVideoProcessor,
        processor_name,
        *args,
        trust_remote_code=trust_remote_code,
        revision=revision,
        **kwargs,
    )


def get_processor(
    processor_name: str,
    *args: Any,
    trust_remote_code: bool = False,
    revision: str | None = None,
    **kwargs: Any,
) -> ProcessorMixin:
    """Load the processor that joins tokenizer and image processor.

    What an old checkpoint's processor_config.json leaves out is filled in from its config.json.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    prepare_transformers()
    from transformers import AutoProcessor

    processor: ProcessorMixin = _load(
        "processor",
        AutoProcessor,
        processor_name,
        *args,
        trust_remote_code=trust_remote_code,
        revision=revision,
        **kwargs,
    )
    _fill_from_config(processor, processor_name, revision, trust_remote_code)
    return processor


def is_batch_feature(value: object) -> bool:
    """Tell whether a value is the output of a Hugging Face processor."""
    prepare_transformers()
    from transformers import BatchFeature

    return isinstance(value, BatchFeature)


def _load(what: str, loader: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    try:
        return loader.from_pretrained(name, *args, **kwargs)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        options = sorted(kwargs.keys() - {"revision", "trust_remote_code"})
        given = f" with the options {', '.join(options)}" if options else ""
        raise CheckpointError(f"No {what} can be loaded from {name!r}{given}: {error}") from error


def _fill_from_config(
    processor: Any, name: str, revision: str | None, trust_remote_code: bool
) -> None:
    """Give a LLaVA-like processor the numbers that it counts image tokens with.

    Checkpoints from before the processor counted them do not have these; without them it counts
    wrongly, or fails with a TypeError.
    """
    fields = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")
    if not all(hasattr(processor, field) for field in fields):
        return
    stated = _processor_config_of(name, revision)
    if all(field in stated and stated[field] is not None for field in fields):
        return
    config = load_hf_config(name, revision=revision, trust_remote_code=trust_remote_code)
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return
    # CLIP's tower puts a class token in front of the patches; SigLIP's and Pixtral's do not.
    known = {
        "patch_size": getattr(vision, "patch_size", None),
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
        "num_additional_image_tokens": int("clip_vision" in str(vision.model_type)),
    }
    for field, value in known.items():
        if stated.get(field) is None and value is not None:
            setattr(processor, field, value)


def _processor_config_of(name: str, revision: str | None) -> Mapping[str, Any]:
    """Read what processor_config.json itself states, without a class's defaults."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(name, "processor_config.json", revision=revision)
    except OSError:  # older checkpoints have no such file
        path = None
    if path is None:
        return {}
    with open(path, encoding="utf-8") as file:
        stated = json.load(file)
    return stated if isinstance(stated, dict) else {}


class _ByOptions:
    """A bounded cache in front of a loader whose options may be lists and dictionaries."""

    def __init__(self, load: Any, maxsize: int) -> None:
        functools.update_wrapper(self, load)

        @functools.lru_cache(maxsize=maxsize)
        def cached(options: str) -> Any:
            args, kwargs = json.loads(options)
            return load(*args, **kwargs)

        self._load = load
        self._cached = cached
        self.cache_info = cached.cache_info
        self.cache_clear = cached.cache_clear

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            options = json.dumps([args, kwargs], sort_keys=True)
        except (TypeError, ValueError):
            # Objects as options: they cannot be compared, so nothing is kept for them.
            return self._load(*args, **kwargs)
        return self._cached(options)


cached_get_tokenizer = _ByOptions(get_tokenizer, _CACHED_TOKENIZERS)
cached_get_image_processor = _ByOptions(get_image_processor, _CACHED_PROCESSORS)
cached_get_video_processor = _ByOptions(get_video_processor, _CACHED_PROCESSORS)
cached_get_processor = _ByOptions(get_processor, _CACHED_PROCESSORS)
