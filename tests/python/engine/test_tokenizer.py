"""The adapter in front of a Hugging Face tokenizer. Layer: engine, no model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from tiny_models import EOS_ID, IMAGE_TOKEN_ID, token_ids

from mmcore.engine.tokenizer import TokenizerAdapter


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return tiny_models.save_tokenizer(tmp_path)


def test_encodes_as_the_tokenizer_does(tokenizer: Any) -> None:
    adapter = TokenizerAdapter(tokenizer)
    for text in ("", "hello", "é <image> 漢", "<s>x</s>", " \n"):
        for special in (True, False):
            ids = adapter.encode(text, add_special_tokens=special)
            assert ids == tokenizer.encode(text, add_special_tokens=special)


def test_special_tokens_that_are_added(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    adapter = TokenizerAdapter(tokenizer)
    assert adapter.encode("a") == [1, *token_ids("a")]
    assert adapter.encode("a", add_special_tokens=False) == token_ids("a")


def test_truncation_in_the_file_is_not_applied(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert TokenizerAdapter(tokenizer).encode("abcdef") == token_ids("abcdef")


def test_literal_text_has_no_special_tokens(tokenizer: Any) -> None:
    adapter = TokenizerAdapter(tokenizer)
    assert adapter.encode("a<image></s>") == [*token_ids("a"), IMAGE_TOKEN_ID, EOS_ID]
    assert adapter.encode_literal("a<image></s>") == token_ids("a<image></s>")


def test_a_wrapper_that_adds_something_is_asked(tokenizer: Any) -> None:
    class Prefixed:
        backend_tokenizer = tokenizer.backend_tokenizer

        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [7, *tokenizer.encode(text, add_special_tokens=add_special_tokens)]

    wrapper: Any = Prefixed()
    assert TokenizerAdapter(wrapper).encode("a") == [7, *token_ids("a")]


def test_threads_do_not_disturb_each_other(tokenizer: Any) -> None:
    adapter = TokenizerAdapter(tokenizer)
    text = "<image>" * 20
    with ThreadPoolExecutor(4) as pool:
        special = [pool.submit(adapter.encode, text) for _ in range(50)]
        literal = [pool.submit(adapter.encode_literal, text) for _ in range(50)]
    assert all(future.result() == [IMAGE_TOKEN_ID] * 20 for future in special)
    assert all(future.result() == token_ids(text) for future in literal)
