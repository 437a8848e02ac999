"""Which ids end a text, as the checkpoint says."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcore.config import ModelConfig

__all__ = ["generation_eos_ids"]

logger = logging.getLogger(__name__)


def generation_eos_ids(model_config: ModelConfig) -> list[int]:
    """Read the end-of-text ids: generation_config.json's, else config.json's; perhaps none."""
    for source in (
        _generation_config(model_config),
        model_config.hf_config,
        model_config.hf_text_config,
    ):
        value = (
            source.get("eos_token_id")
            if isinstance(source, dict)
            else getattr(source, "eos_token_id", None)
        )
        ids = _as_list(value)
        if ids:
            return ids
    return []


def _as_list(value: Any) -> list[int]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool)]


def _generation_config(model_config: ModelConfig) -> dict[str, Any]:
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(
            model_config.model, "generation_config.json", revision=model_config.revision
        )
    except OSError:  # many checkpoints have none
        return {}
    if path is None:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except ValueError:
        logger.warning(
            "generation_config.json of %s is not valid JSON; ignored.", model_config.model
        )
        return {}
    return config if isinstance(config, dict) else {}
