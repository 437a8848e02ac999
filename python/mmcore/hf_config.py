"""Loading a checkpoint's config.json, and reading it in both of its dialects.

Checkpoints on the hub hold ``torch_dtype`` and ``rope_theta``/``rope_scaling``; those that
transformers 5 saves hold ``dtype`` and ``rope_parameters``. The functions below read either.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcore.errors import CheckpointError, ValidationError
from mmcore.late_imports import import_late

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = [
    "check_model_folder",
    "checkpoint_dtype_name",
    "derive_max_model_len",
    "load_hf_config",
    "load_image_processor_config",
    "looks_like_path",
    "prepare_transformers",
    "rope_parameters",
    "text_config_of",
]

logger = logging.getLogger(__name__)

_DEFAULT_MAX_MODEL_LEN = 2048
# Where configs of different families keep the length they were trained for.
_MAX_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Scalings that already count in max_position_embeddings.
_UNSCALED_ROPE_TYPES = frozenset({"default", "su", "longrope", "llama3", "mrope"})


@lru_cache(maxsize=1)
def prepare_transformers() -> None:
    """Make transformers usable, and quicker to import; call before importing it."""
    _set_a_broken_torchvision_aside()
    import_late()


def _set_a_broken_torchvision_aside() -> None:
    """Hide a torchvision that does not load.

    transformers asks only whether torchvision is installed. Where it is installed but built for
    another torch (the usual wheel beside a CPU build of torch), importing *any* model class then
    fails. Such a torchvision is hidden from this process, which nothing could have used anyway,
    and image processors run on Pillow.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision.transforms.v2")
        return
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    logger.warning(
        "torchvision is installed but cannot be imported (%s); image processors use Pillow. "
        "Install the torchvision build that belongs to this torch, or uninstall it.",
        reason,
    )
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    checks = sys.modules.get("transformers.utils.import_utils")
    for name in ("is_torchvision_available", "is_torchvision_v2_available"):
        clear = getattr(getattr(checks, name, None), "cache_clear", None)
        if clear is not None:
            clear()


def looks_like_path(model: str) -> bool:
    """Tell a file system path from a hub name such as ``org/model``."""
    return Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") > 1


def check_model_folder(model: str) -> None:
    """Refuse a local path that holds no checkpoint.

    Raises
    ------
    CheckpointError
        If `model` is a path and there is no folder with a config.json.
    """
    if not looks_like_path(model):
        return
    folder = Path(model).expanduser()
    if not folder.exists():
        raise CheckpointError(f"The model folder {model!r} does not exist.")
    if not folder.is_dir():
        raise CheckpointError(f"The model {model!r} is a file; give the folder that holds it.")
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"The model folder {model!r} has no config.json, so it is not a Hugging Face "
            "checkpoint. Give the folder that holds config.json and the *.safetensors files."
        )


def load_hf_config(
    model: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PretrainedConfig:
    """Load a checkpoint's configuration.

    Raises
    ------
    CheckpointError
        If it is missing, unreadable, or of a family that transformers does not know.
    """
    check_model_folder(model)
    prepare_transformers()
    from transformers import AutoConfig, PretrainedConfig

    try:
        config = AutoConfig.from_pretrained(
            str(Path(model).expanduser()) if looks_like_path(model) else model,
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise CheckpointError(
            f"The configuration of {model!r} cannot be loaded: {error}"
        ) from error
    if not isinstance(config, PretrainedConfig):
        raise CheckpointError(f"{model!r} gave a {type(config).__name__}, not a PretrainedConfig.")
    return config


def load_image_processor_config(
    model: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> dict[str, Any]:
    """Load preprocessor_config.json; empty for a checkpoint without one."""
    prepare_transformers()
    from transformers.models.auto.image_processing_auto import get_image_processor_config

    config: dict[str, Any] = get_image_processor_config(
        str(Path(model).expanduser()) if looks_like_path(model) else model,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    return config


def text_config_of(config: PretrainedConfig) -> PretrainedConfig:
    """Give the language model's part of a configuration, which may be the whole of it."""
    text_config: PretrainedConfig = config.get_text_config(decoder=True)
    return text_config


def checkpoint_dtype_name(config: PretrainedConfig) -> str | None:
    """Name the checkpoint's dtype (``"bfloat16"``), None where it does not say."""
    for part in (config, text_config_of(config)):
        # `dtype` first: on new transformers `torch_dtype` is a deprecated alias that warns.
        value = getattr(part, "dtype", None)
        if value is None:
            value = part.__dict__.get("torch_dtype")
        if value is not None:
            return str(value).removeprefix("torch.")
    return None


def rope_parameters(text_config: PretrainedConfig) -> dict[str, Any]:
    """Give ``rope_type``, ``rope_theta`` and the scaling's numbers, whichever way they are written.

    Returns
    -------
    dict
        A new dictionary that always has ``rope_type`` and ``rope_theta``.
    """
    merged: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        value = getattr(text_config, name, None)
        if isinstance(value, dict):
            merged.update(value)
    rope_type = merged.pop("type", None)
    merged.setdefault("rope_type", rope_type or "default")
    theta = getattr(text_config, "rope_theta", None)
    merged.setdefault("rope_theta", 10000.0 if theta is None else theta)
    return merged


def derive_max_model_len(config: PretrainedConfig, requested: int | None) -> int:
    """Decide how many tokens a sequence may have.

    Parameters
    ----------
    config
        The whole configuration.
    requested
        What the user asked for; None takes what the model was made for.

    Raises
    ------
    ValidationError
        If more is requested than the model has positions for.
    """
    text_config = text_config_of(config)
    known = {
        name: value
        for name in _MAX_LENGTH_KEYS
        if isinstance(value := getattr(text_config, name, None), int) and value > 0
    }
    if not known:
        if requested is not None:
            return requested
        logger.warning(
            "The model's configuration has none of %s; assuming a max_model_len of %d.",
            ", ".join(_MAX_LENGTH_KEYS),
            _DEFAULT_MAX_MODEL_LEN,
        )
        return _DEFAULT_MAX_MODEL_LEN
    key = min(known, key=lambda name: known[name])
    limit = known[key]

    rope = rope_parameters(text_config)
    factor = rope.get("factor")
    if rope["rope_type"] not in _UNSCALED_ROPE_TYPES and isinstance(factor, (int, float)):
        if rope["rope_type"] == "yarn":
            limit = int(rope.get("original_max_position_embeddings") or limit)
        limit = int(limit * factor)

    if requested is None:
        return limit
    if requested > limit:
        raise ValidationError(
            f"max_model_len={requested} is more than the model's {limit} positions "
            f"({key}={known[key]} in config.json). Ask for at most {limit}, or leave it out.",
            code="max_model_len_too_large",
        )
    return requested
