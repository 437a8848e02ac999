"""Turn a training run into a checkpoint directory that Hugging Face transformers loads.

    cd examples && python -m train_tiny_llava.export runs/tiny ../python/mmcore/assets/tiny_llava

Weights are rounded to bfloat16.  Files and names are those of LLaVA-1.5 on the hub.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .render import GRID, PATCH, SIDE
from .sizes import DEFAULT, PIXEL_MEAN, PIXEL_STD, Sizes
from .tokenizer import BOS, BOS_ID, EOS, EOS_ID, IMAGE, IMAGE_ID, PAD, PAD_ID, UNKNOWN

# A system message stands before the dialogue; in a turn the images come first, then the texts.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] != 'system' -%}{{ message['role'].upper() + ': ' }}{%- endif -%}
{%- if message['content'] is string -%}
{%- set text = message['content'] -%}
{%- else -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}
{{ '<image>\\n' }}
{%- endfor -%}
{%- set text = message['content'] | selectattr('type', 'equalto', 'text') \
| map(attribute='text') | join(' ') -%}
{%- endif -%}
{{ text }}
{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- else -%}{{ ' ' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""


def config(sizes: Sizes) -> dict[str, object]:
    """Return config.json."""
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": IMAGE_ID,
        "image_seq_length": GRID * GRID,
        "ignore_index": -100,
        "pad_token_id": PAD_ID,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": sizes.vision_hidden,
            "intermediate_size": sizes.vision_inner,
            "num_hidden_layers": sizes.vision_layers,
            "num_attention_heads": sizes.vision_heads,
            "projection_dim": sizes.vision_hidden,
            "image_size": SIDE,
            "patch_size": PATCH,
            "num_channels": 3,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": sizes.norm_eps,
        },
        "text_config": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": sizes.vocabulary,
            "hidden_size": sizes.hidden,
            "intermediate_size": sizes.inner,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.kv_heads,
            "head_dim": sizes.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": sizes.max_positions,
            "rms_norm_eps": sizes.norm_eps,
            "rope_theta": sizes.rope_theta,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
            "bos_token_id": BOS_ID,
            "eos_token_id": EOS_ID,
            "pad_token_id": PAD_ID,
            "torch_dtype": "bfloat16",
        },
    }


def preprocessor() -> dict[str, object]:
    """Return preprocessor_config.json, the image processor's."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": SIDE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
    }


def processor() -> dict[str, object]:
    """Return processor_config.json: what expands the image token."""
    return {
        "processor_class": "LlavaProcessor",
        "image_token": IMAGE,
        "patch_size": PATCH,
        "num_additional_image_tokens": 1,  # CLIP's class token, which "default" drops again
        "vision_feature_select_strategy": "default",
    }


def tokenizer_config(sizes: Sizes) -> dict[str, object]:
    """Return tokenizer_config.json."""
    tokens = {0: UNKNOWN, BOS_ID: BOS, EOS_ID: EOS, PAD_ID: PAD, IMAGE_ID: IMAGE}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "LlavaProcessor",
        "added_tokens_decoder": {
            str(index): {"content": token, **flags, "special": True}
            for index, token in tokens.items()
        },
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "image_token": IMAGE,
        "extra_special_tokens": {"image_token": IMAGE},
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": sizes.max_positions,
    }


def generation() -> dict[str, object]:
    """Return generation_config.json."""
    return {
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": PAD_ID,
        "do_sample": False,
        "max_new_tokens": 64,
    }


def export(run: Path, out: Path, sizes: Sizes = DEFAULT) -> None:
    """Write the checkpoint of a training run into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in load_file(run / "model.safetensors").items()
        if not name.startswith("patch_")
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    shutil.copyfile(run / "tokenizer.json", out / "tokenizer.json")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    files = {
        "config": config(sizes),
        "preprocessor_config": preprocessor(),
        "processor_config": processor(),
        "tokenizer_config": tokenizer_config(sizes),
        "generation_config": generation(),
    }
    for name, content in files.items():
        (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("run", type=Path, help="folder that train.py wrote")
    parser.add_argument("out", type=Path, help="checkpoint folder to write")
    args = parser.parse_args(argv)
    export(args.run, args.out)
    total = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"{args.out}: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
