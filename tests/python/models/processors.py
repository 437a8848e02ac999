"""Folders with a processor and no weights, and Hugging Face's processors of the same models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers as tf
from models import tiny
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["<unk>", "<s>", "</s>", "USER:", "What", "is", "this", "?", "ASSISTANT:", "and", "."]
MEAN_STD = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
SQUARE = {"height": tiny.IMAGE_SIZE, "width": tiny.IMAGE_SIZE}


def _tokenizer() -> Any:
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    filler = [f"w{i}" for i in range(len(WORDS), tiny.IMAGE_TOKEN)]
    tokenizer.add_tokens(filler)
    tokenizer.add_special_tokens(["<image>"])
    assert tokenizer.token_to_id("<image>") == tiny.IMAGE_TOKEN
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def _image_processor(config: Any) -> Any:
    kind = "llava_next" if config.model_type == "llava_next" else config.vision_config.model_type
    if kind == "llava_next":
        return tf.LlavaNextImageProcessor(
            size={"shortest_edge": tiny.IMAGE_SIZE},
            crop_size=SQUARE,
            image_grid_pinpoints=config.image_grid_pinpoints,
            **MEAN_STD,
        )
    if kind == "siglip_vision_model":
        return tf.SiglipImageProcessor(size=SQUARE, **MEAN_STD)
    return tf.CLIPImageProcessor(
        size={"shortest_edge": tiny.IMAGE_SIZE}, crop_size=SQUARE, **MEAN_STD
    )


def make_processor(config: Any, folder: Path, *, old: bool = False) -> Any:
    """Writes config.json, tokenizer and image processor; gives Hugging Face's processor.

    With `old`, what checkpoints of before 2025 lack is lacking.
    """
    clip = config.vision_config.model_type == "clip_vision_model"
    cls = tf.LlavaNextProcessor if config.model_type == "llava_next" else tf.LlavaProcessor
    processor: Any = cls(
        _image_processor(config),
        _tokenizer(),
        patch_size=tiny.PATCH_SIZE,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1 if clip else 0,
    )
    next_ = config.model_type == "llava_next"
    name = "LlavaNextForConditionalGeneration" if next_ else "LlavaForConditionalGeneration"
    config.architectures = [name]
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    if old:
        path = folder / "processor_config.json"
        path.write_text(json.dumps({"processor_class": cls.__name__}))
    return processor
