"""Tiny checkpoints with random weights, made by transformers in a second: no oracle needed.

The tokenizer has one token a byte, so that tests can say in advance which tokens a text is. Weights
have gains that keep activations of order one: greedy tokens vary and depend on everything before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
IMAGE_TOKEN = "<image>"
IMAGE_TOKEN_ID = SPECIAL.index(IMAGE_TOKEN)
EOS_ID = SPECIAL.index("</s>")
FIRST_BYTE_ID = len(SPECIAL)
VOCAB_SIZE = len(SPECIAL) + 256
ROWS_PER_IMAGE = 4  # 28 x 28 pixels, patches of 14
MAX_LEN = 512

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: "
    "{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
TEXT_TEMPLATE = (
    "{% for m in messages %}{{ m.role + ': ' + m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def text_config(**changes: Any) -> dict[str, Any]:
    """Arguments of a LlamaConfig."""
    return {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": MAX_LEN,
        "bos_token_id": 1,
        "eos_token_id": EOS_ID,
        "pad_token_id": 3,
        "tie_word_embeddings": False,
        **changes,
    }


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter anew."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.1 * noise + (0.0 if name.endswith("bias") else 1.0))
            elif "embed" in name and parameter.ndim == 2:
                parameter.copy_(noise)
            else:
                parameter.copy_(1.2 * noise / parameter[0].numel() ** 0.5)


def save_tokenizer(folder: Path, *, template: str = TEXT_TEMPLATE) -> Any:
    """Write a byte-level tokenizer and give it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # The 256 characters that stand for bytes, in the order of the bytes.
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    hidden = [b for b in range(256) if b not in shown]
    character = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    vocab = {name: i for i, name in enumerate(SPECIAL)}
    vocab |= {character[b]: FIRST_BYTE_ID + b for b in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        pad_token="<pad>", extra_special_tokens={"image_token": IMAGE_TOKEN},
        chat_template=template,
    )  # fmt: skip
    fast.save_pretrained(folder)
    return fast


def make_llama(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a LLaMA with its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**text_config(**changes)))
    randomize(model, seed)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def make_llava(folder: Path, *, seed: int = 0) -> Path:
    """Write a LLaVA-1.5 with its processor: 4 embedding rows an image."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2,
        image_size=28, patch_size=14, projection_dim=32,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**text_config()),
        image_token_index=IMAGE_TOKEN_ID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=ROWS_PER_IMAGE,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    randomize(model, seed)
    model.save_pretrained(folder)
    tokenizer = save_tokenizer(folder, template=TEMPLATE)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder


def token_ids(text: str) -> list[int]:
    """Give the ids of a text without special tokens."""
    return [FIRST_BYTE_ID + b for b in text.encode()]


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config
