"""Two more tiny checkpoints, made the way the oracle makes its own.

    variants.py ORACLE_DIR --out DIR --arch mistral llava_siglip

`mistral` has a sliding window that its prompts exceed; `llava_siglip` is LLaVA-1.5 over a SigLIP
tower, whose features are used whole ("full", last layer, no class token).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def add_variants(oracle: Any) -> None:
    """Adds both architectures to the table of the oracle's module."""
    tf = oracle.tf

    def mistral() -> tuple[Any, Any, None]:
        tok = oracle.make_tokenizer([], add_bos=True)
        text = oracle.llama_text(len(tok), tok, sliding_window=48)
        return tf.MistralForCausalLM(tf.MistralConfig(**text)), tok, None

    def llava_siglip() -> tuple[Any, Any, Any]:
        tok = oracle.make_tokenizer(
            oracle.IMG, add_bos=True, named={"image_token": "<image>"}, image_text="<image>\n"
        )
        config = tf.LlavaConfig(
            vision_config=oracle.siglip_vision(),
            text_config=tf.LlamaConfig(**oracle.llama_text(len(tok), tok)),
            image_token_index=tok.convert_tokens_to_ids("<image>"),
            image_seq_length=16,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        )
        half = [0.5] * 3
        processor = tf.LlavaProcessor(
            tf.SiglipImageProcessor(size=oracle.SQUARE, image_mean=half, image_std=half),
            tok,
            patch_size=oracle.PATCH,
            vision_feature_select_strategy="full",
            num_additional_image_tokens=0,
            chat_template=tok.chat_template,
        )
        return tf.LlavaForConditionalGeneration(config), tok, processor

    oracle.ARCHS |= {"mistral": mistral, "llava_siglip": llava_siglip}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(sys.argv.pop(1)).resolve()))
    import make_tiny_checkpoints

    add_variants(make_tiny_checkpoints)
    make_tiny_checkpoints.main()
