"""User text that spells special tokens, kept apart from the template's own.

A template puts user text and special tokens into one string, where nothing tells them apart any
more. So the spellings in user text are replaced by marks before the template runs, and encoded as
text afterwards:

    user text   is <image> a token?        marked    is M0M a token?
    prompt      USER: <image> is M0M a token?
    encoded     [ USER: <image> is ] with special tokens, [ <image> ] without, [ a token? ] with
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcore.engine.tokenizer import TokenizerAdapter

__all__ = ["Literals", "encode_with_literals"]

# Private-use characters that no tokenizer's special tokens contain.
_OPEN, _CLOSE = "\ue0d1", "\ue0d2"
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


class Literals:
    """The spellings that were replaced, by number.

    Parameters
    ----------
    special_tokens
        What must not be recognised in user text.
    """

    def __init__(self, special_tokens: Iterable[str]) -> None:
        # Longest first, so that no token hides a longer one; the marks themselves as well.
        known = sorted({t for t in special_tokens if t}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, [*known, _OPEN, _CLOSE])))
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        """Replace the spellings in a user's text."""

        def replace(match: re.Match[str]) -> str:
            self._texts.append(match.group())
            return f"{_OPEN}{len(self._texts) - 1}{_CLOSE}"

        return self._pattern.sub(replace, text)

    def restore(self, text: str) -> str:
        """Put the spellings back."""
        return _MARK.sub(lambda match: self._texts[int(match.group(1))], text)

    def split(self, text: str) -> list[tuple[str, bool]]:
        """Cut a marked text into (piece, is a spelling)."""
        pieces: list[tuple[str, bool]] = []
        position = 0
        for match in _MARK.finditer(text):
            pieces.append((text[position : match.start()], False))
            pieces.append((self._texts[int(match.group(1))], True))
            position = match.end()
        pieces.append((text[position:], False))
        return [piece for piece in pieces if piece[0]]


def encode_with_literals(adapter: TokenizerAdapter, text: str, literals: Literals) -> list[int]:
    """Encode a template's output; it holds its special tokens, so none are added."""
    ids: list[int] = []
    for piece, literal in literals.split(text):
        if literal:
            ids += adapter.encode_literal(piece)
        else:
            ids += adapter.encode(piece, add_special_tokens=False)
    return ids
