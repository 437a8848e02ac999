"""Write a checkpoint of the model with random weights: what training would leave behind.

python make_checkpoint.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from patch_vlm import PatchVlmConfig, PatchVlmForImage2Seq
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token a byte, and the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write config.json, model.safetensors and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    config = PatchVlmConfig(
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=512,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        architectures=[PatchVlmForImage2Seq.__name__],
    )
    config.save_pretrained(folder)
    save_file(random_weights(config, seed), folder / "model.safetensors", {"format": "pt"})
    return folder


def random_weights(config: PatchVlmConfig, seed: int) -> dict[str, torch.Tensor]:
    """Draw every tensor, under the names that checkpoints of LLaMA have."""
    generator = torch.Generator().manual_seed(seed)
    text = config.text_config
    hidden, inner, head = text.hidden_size, text.intermediate_size, text.head_dim

    def matrix(*shape: int) -> torch.Tensor:
        inputs = torch.Size(shape[1:]).numel()
        return 1.5 * torch.randn(shape, generator=generator) / inputs**0.5

    def norm() -> torch.Tensor:
        return 1 + 0.1 * torch.randn(hidden, generator=generator)

    weights = {
        "patches.weight": matrix(config.patch_width, 3, config.patch_size, config.patch_size),
        "patches.bias": 0.1 * torch.randn(config.patch_width, generator=generator),
        "projector.weight": matrix(hidden, config.patch_width),
        "projector.bias": 0.1 * torch.randn(hidden, generator=generator),
        "language_model.model.embed_tokens.weight": torch.randn(
            (text.vocab_size, hidden), generator=generator
        ),
        "language_model.model.norm.weight": norm(),
        "language_model.lm_head.weight": matrix(text.vocab_size, hidden),
    }
    for i in range(text.num_hidden_layers):
        layer = f"language_model.model.layers.{i}"
        weights |= {
            f"{layer}.input_layernorm.weight": norm(),
            f"{layer}.post_attention_layernorm.weight": norm(),
            f"{layer}.self_attn.q_proj.weight": matrix(text.num_attention_heads * head, hidden),
            f"{layer}.self_attn.k_proj.weight": matrix(text.num_key_value_heads * head, hidden),
            f"{layer}.self_attn.v_proj.weight": matrix(text.num_key_value_heads * head, hidden),
            f"{layer}.self_attn.o_proj.weight": matrix(hidden, text.num_attention_heads * head),
            f"{layer}.mlp.gate_proj.weight": matrix(inner, hidden),
            f"{layer}.mlp.up_proj.weight": matrix(inner, hidden),
            f"{layer}.mlp.down_proj.weight": matrix(hidden, inner),
        }
    return weights


if __name__ == "__main__":
    print(write_checkpoint(Path(sys.argv[1])))
