"""Which token stands for media in a model's prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["placeholder_token_ids"]

_MODALITIES = ("image", "video", "audio")


def placeholder_token_ids(hf_config: PretrainedConfig) -> dict[str, int]:
    """Read the placeholder id of each modality from a checkpoint's configuration.

    Older checkpoints write ``image_token_index``, newer ones ``image_token_id``. A modality that
    the configuration does not name is left out.
    """
    found = {}
    for modality in _MODALITIES:
        for name in (f"{modality}_token_id", f"{modality}_token_index"):
            value = getattr(hf_config, name, None)
            if isinstance(value, int):
                found[modality] = value
                break
    return found
