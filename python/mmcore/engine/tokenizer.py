"""The checkpoint's tokenizer, and the two things that the engine does with it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerBase

    from mmcore.config import ModelConfig

__all__ = ["TokenizerAdapter", "load_tokenizer"]


def load_tokenizer(model_config: ModelConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint.

    Raises
    ------
    CheckpointError
        If there is none, or it cannot be read.
    """
    from mmcore.multimodal.hf_processor import get_tokenizer

    return get_tokenizer(
        model_config.tokenizer,
        tokenizer_mode=model_config.tokenizer_mode,
        trust_remote_code=model_config.trust_remote_code,
        revision=model_config.tokenizer_revision,
    )


_PROBE = "Hello, wörld!  <s> 12\n\tx"


class TokenizerAdapter:
    """Encodes prompts and decodes ids, past the slow wrappers where that gives the same.

    Several threads may encode at the same time: the wrappers change settings of the tokenizer that
    they share, so this has copies of its own.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self._encode_fast = _encoder(backend, special=True)
        self._encode_literal = _encoder(backend, special=False)
        if self._encode_fast is not None and (
            self._encode_fast(_PROBE, True) != tokenizer.encode(_PROBE)
        ):
            self._encode_fast = None  # the wrapper adds something
        cleans_up = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))
        self._decode_fast = None if backend is None or cleans_up else backend.decode
        self._token_text = lru_cache(maxsize=1 << 16)(self._decode_one)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Turn a prompt's text into ids."""
        if self._encode_fast is not None:
            return self._encode_fast(text, add_special_tokens)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return ids

    def encode_literal(self, text: str) -> list[int]:
        """Turn a text into ids, with special tokens that it spells as text."""
        if self._encode_literal is not None:
            return self._encode_literal(text, False)
        ids: list[int] = self.tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Turn ids into text."""
        if self._decode_fast is not None:
            text: str = self._decode_fast(ids, skip_special_tokens)
            return text
        decoded = self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return str(decoded)

    def token_text(self, token_id: int) -> str:
        """Give the text of one id alone, special or not; cached."""
        return self._token_text(token_id)

    def _decode_one(self, token_id: int) -> str:
        return self.decode([token_id], skip_special_tokens=False)

    @property
    def eos_token_id(self) -> int | None:
        """The tokenizer's end-of-text id."""
        value = getattr(self.tokenizer, "eos_token_id", None)
        return value if isinstance(value, int) else None


def _encoder(backend: Any, *, special: bool) -> Callable[[str, bool], list[int]] | None:
    """Copy a fast tokenizer, with or without recognising special tokens in texts."""
    if backend is None:
        return None
    own = type(backend).from_str(backend.to_str())
    own.no_truncation()
    own.no_padding()
    own.encode_special_tokens = not special

    def encode(text: str, add_special_tokens: bool) -> list[int]:
        ids: list[int] = own.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    return encode
