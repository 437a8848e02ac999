"""From token ids to text, one token at a time, and the stop strings that end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcore.engine.tokenizer import TokenizerAdapter

__all__ = ["IncrementalDecoder", "StopMatch", "StopStrings"]

# Prompt tokens decoded together with the first generated ones, so that these get the spaces they
# have in context.
_CONTEXT_TOKENS = 5
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class IncrementalDecoder:
    """Decodes a growing list of ids without decoding all of it again.

        ids    p p p g g g g g g          p: end of the prompt, g: generated
                     ^     ^
                     |     read: ids before it are in the text already
                     prefix: ids from here give the context that `read` begins in

    New text is what decode(ids[prefix:]) has beyond decode(ids[prefix:read]). It is held back
    while it ends in an incomplete character.

    Parameters
    ----------
    adapter
        The tokenizer.
    prompt_token_ids
        The prompt, of which the last few ids are context.
    skip_special_tokens
        Leave special tokens out of the text.
    """

    __slots__ = ("_adapter", "_ids", "_prefix", "_prefix_text", "_read", "_skip_special")

    def __init__(
        self,
        adapter: TokenizerAdapter,
        prompt_token_ids: Sequence[int],
        skip_special_tokens: bool = True,
    ) -> None:
        self._adapter = adapter
        self._skip_special = skip_special_tokens
        self._ids = list(prompt_token_ids[-_CONTEXT_TOKENS:])
        self._prefix = 0
        self._read = len(self._ids)
        self._prefix_text = self._decode(0, self._read)

    def append(self, token_id: int) -> str:
        """Add an id and give the text that is complete now, which may be none."""
        self._ids.append(token_id)
        text = self._decode(self._prefix, len(self._ids))
        if len(text) <= len(self._prefix_text) or text.endswith(_INCOMPLETE):
            return ""
        new = text[len(self._prefix_text) :]
        # Forget what is no context any more, so that the list stays short.
        del self._ids[: self._read]
        self._prefix, self._read = 0, len(self._ids)
        self._prefix_text = self._decode(0, self._read)
        return new

    def extend(self, token_ids: Sequence[int]) -> None:
        """Add ids whose text is asked for by :meth:`flush` only."""
        self._ids.extend(token_ids)

    def flush(self) -> str:
        """Give what was held back, when no more ids will come."""
        text = self._decode(self._prefix, len(self._ids))
        new = text[len(self._prefix_text) :]
        self._prefix_text = text
        self._read = len(self._ids)
        return new

    def _decode(self, start: int, end: int) -> str:
        if start == end:
            return ""
        return self._adapter.decode(self._ids[start:end], skip_special_tokens=self._skip_special)


@dataclass(frozen=True, slots=True)
class StopMatch:
    """A stop string that was found.

    Parameters
    ----------
    stop
        The string.
    start, end
        Where it is in the text.
    """

    stop: str
    start: int
    end: int


class StopStrings:
    """Finds the first stop string in a growing text.

    Parameters
    ----------
    stops
        The strings; none of them empty.
    """

    __slots__ = ("_longest", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max((len(stop) for stop in self._stops), default=0)

    def find(self, text: str, new_chars: int) -> StopMatch | None:
        """Find the stop string that is complete first, looking only where something is new.

        Of strings that end at the same character the longest counts.
        """
        first_new = len(text) - new_chars
        best: StopMatch | None = None
        for stop in self._stops:
            start = text.find(stop, max(0, first_new - len(stop) + 1))
            if start < 0:
                continue
            match = StopMatch(stop, start, start + len(stop))
            if best is None or (match.end, match.start) < (best.end, best.start):
                best = match
        return best

    def held_back(self, text: str) -> int:
        """Count the last characters of a text that may turn out to begin a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
