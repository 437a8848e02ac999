"""Unit: loading processors, their caches, and checkpoints that leave numbers out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmcore.errors import CheckpointError, ValidationError
from mmcore.multimodal.hf_processor import (
    cached_get_image_processor,
    cached_get_tokenizer,
    get_processor,
    get_tokenizer,
)

pytestmark = pytest.mark.hf


def copy_checkpoint(source: str, target: Path, **files: Any) -> str:
    """Copy a checkpoint's files, with some JSON files merged with what is given."""
    shutil.copytree(source, target)
    for name, changes in files.items():
        path = target / f"{name}.json"
        old = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**old, **changes}))
    return str(target)


def image_tokens(processor: Any) -> int:
    picture = Image.fromarray(np.zeros((60, 80, 3), np.uint8))
    ids = processor(text="a<image>b", images=picture)["input_ids"]
    return list(np.ravel(ids)).count(512)


def test_tokenizer(vision_checkpoint: str) -> None:
    tokenizer = cached_get_tokenizer(vision_checkpoint)
    assert tokenizer.decode(512) == "<image>"
    assert tokenizer("a<image>")["input_ids"] == [67, 512]
    assert cached_get_tokenizer(vision_checkpoint) is tokenizer
    assert get_tokenizer(vision_checkpoint) is not tokenizer


def test_tokenizer_that_is_not_there(text_checkpoint: str) -> None:
    with pytest.raises(CheckpointError, match="No tokenizer can be loaded from"):
        get_tokenizer(text_checkpoint)
    with pytest.raises(ValidationError, match="tokenizer_mode must be auto or slow"):
        get_tokenizer(text_checkpoint, tokenizer_mode="fastest")


def test_cache_keys_are_the_options_whatever_their_order(vision_checkpoint: str) -> None:
    small = {"height": 28, "width": 28}
    first = cached_get_image_processor(vision_checkpoint, crop_size=small, do_resize=False)
    assert first.crop_size["height"] == 28
    same = cached_get_image_processor(vision_checkpoint, do_resize=False, crop_size=small)
    assert same is first
    other = cached_get_image_processor(vision_checkpoint, do_resize=True, crop_size=small)
    assert other is not first


def test_cache_is_bounded(vision_checkpoint: str) -> None:
    limit = cached_get_image_processor.cache_info().maxsize
    assert limit is not None
    for i in range(limit + 5):
        cached_get_image_processor(vision_checkpoint, rescale_factor=1.0 / (i + 1))
    assert cached_get_image_processor.cache_info().currsize == limit


def test_options_that_cannot_be_compared_are_not_kept(vision_checkpoint: str) -> None:
    before = cached_get_image_processor.cache_info().currsize
    mean = np.zeros(3)
    first = cached_get_image_processor(vision_checkpoint, image_mean=mean)
    assert first is not cached_get_image_processor(vision_checkpoint, image_mean=mean)
    assert cached_get_image_processor.cache_info().currsize == before


def test_old_checkpoint_counts_as_a_new_one(vision_checkpoint: str, tmp_path: Path) -> None:
    stated = {
        "processor_class": "LlavaProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    }
    new = copy_checkpoint(vision_checkpoint, tmp_path / "new", processor_config=stated)
    assert not (Path(vision_checkpoint) / "processor_config.json").exists()
    assert image_tokens(get_processor(new)) == 16
    assert image_tokens(get_processor(vision_checkpoint)) == 16


@pytest.mark.parametrize(
    ("name", "value", "tokens"),
    [("vision_feature_select_strategy", "full", 17), ("num_additional_image_tokens", 5, 20)],
)
def test_what_a_checkpoint_states_is_kept(
    vision_checkpoint: str, tmp_path: Path, name: str, value: Any, tokens: int
) -> None:
    stated = {"processor_class": "LlavaProcessor", name: value}
    folder = copy_checkpoint(vision_checkpoint, tmp_path / "some", processor_config=stated)
    processor = get_processor(folder)
    assert getattr(processor, name) == value
    assert image_tokens(processor) == tokens


def test_tower_without_a_class_token(vision_checkpoint: str, tmp_path: Path) -> None:
    siglip = {"model_type": "siglip_vision_model", "patch_size": 14, "image_size": 56}
    folder = copy_checkpoint(
        vision_checkpoint,
        tmp_path / "siglip",
        config={"vision_config": siglip, "vision_feature_select_strategy": "full"},
    )
    processor: Any = get_processor(folder)
    assert processor.num_additional_image_tokens == 0
    assert image_tokens(processor) == 16
