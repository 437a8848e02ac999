"""Checkpoint folders without weights: what the Python front reads of a model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

TEXT_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "vocab_size": 513,
}
VISION_CONFIG: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 64,
    "image_size": 56,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "patch_size": 14,
    "projection_dim": 64,
}
IMAGE_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "crop_size": {"height": 56, "width": 56},
    "size": {"shortest_edge": 56},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
IMAGE_TOKEN_ID = 512


def _unclaimed(items: list[pytest.Item], claims: Path) -> Iterator[list[pytest.Item]]:
    """Yield the tests of the files that no other process has taken, and take them."""
    for file, group in groupby(items, lambda item: item.path):
        tests = list(group)
        try:
            (claims / hashlib.sha256(str(file).encode()).hexdigest()).touch(exist_ok=False)
        except FileExistsError:
            continue
        yield tests


def pytest_runtestloop(session: pytest.Session) -> object:
    """Share the test files with other processes that were given the same MMCORE_TEST_CLAIMS.

    That is an empty folder; scripts/run_tests.sh starts one process a core.
    """
    claims = os.environ.get("MMCORE_TEST_CLAIMS")
    if claims is None or session.config.option.collectonly or session.testsfailed:
        return None
    groups = _unclaimed(session.items, Path(claims))
    tests = next(groups, None)
    while tests is not None:
        upcoming: list[pytest.Item] | None = None
        for item, following in zip(tests, [*tests[1:], None], strict=True):
            if following is None:  # taken now: fixtures of the session go on into the next file
                upcoming = next(groups, None)
                following = upcoming[0] if upcoming else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        tests = upcoming
    return True


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="session")
def text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A LLaMA's config.json in the hub's dialect."""
    folder = tmp_path_factory.mktemp("text")
    config = {**TEXT_CONFIG, "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"}
    write_json(folder / "config.json", config)
    return str(folder)


@pytest.fixture(scope="session")
def vision_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A LLaVA's configuration, image processor and tokenizer, as hub checkpoints have them."""
    folder = tmp_path_factory.mktemp("vision")
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": IMAGE_TOKEN_ID,
        "torch_dtype": "float16",
        "text_config": TEXT_CONFIG,
        "vision_config": VISION_CONFIG,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", IMAGE_PROCESSOR)
    _write_tokenizer(folder)
    return str(folder)


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    letters = [chr(c) for c in range(33, 127)]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{c: i + 3 for i, c in enumerate(letters)}}
    vocab["<image>"] = IMAGE_TOKEN_ID
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [
        {
            "id": IMAGE_TOKEN_ID,
            "content": "<image>",
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
    ]
    write_json(folder / "tokenizer.json", state)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "LlavaProcessor",
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "image_token": "<image>",
        },
    )
