"""Expanding placeholders in a prompt, and finding which tokens stand for which item.

A prompt as typed has one placeholder an item; the model needs one token an embedding row:

    typed     t t P t P t              P: placeholder token, t: text token
    expanded  t t P P P P t P P P t
    ranges        [0    )   [1  )      offset and length of each item, in the items' order

The ranges are recorded while expanding. They are what counts afterwards, not the token ids: a user
may type the placeholder token as text.
"""

from __future__ import annotations

import itertools
import logging
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from mmcore.errors import PlaceholderMismatchError

if TYPE_CHECKING:
    from mmcore.inputs.data import TokenInputs

__all__ = [
    "ExpandedTokenIds",
    "MultiModalPlaceholderDict",
    "PlaceholderRange",
    "find_item_ranges",
    "repeat_and_pad_placeholder_tokens",
    "repeat_and_pad_token",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A prompt that holds more placeholders than this was most likely expanded by hand.
_MANY_PLACEHOLDERS = 16


@dataclass(frozen=True, slots=True)
class PlaceholderRange:
    """The tokens of an expanded prompt that stand for one item.

    Parameters
    ----------
    offset
        Index of the first token.
    length
        Number of tokens, at least 1.
    is_embed
        Which of them are overwritten by embedding rows; None for all. The others (row breaks,
        start and end tokens) keep their text embedding.
    """

    offset: int
    length: int
    is_embed: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        if self.offset < 0 or self.length < 1:
            raise PlaceholderMismatchError(
                "A placeholder range must have offset >= 0 and length >= 1, "
                f"got offset={self.offset} and length={self.length}."
            )
        if self.is_embed is not None:
            if len(self.is_embed) != self.length:
                raise PlaceholderMismatchError(
                    f"A placeholder range of length {self.length} needs {self.length} entries in "
                    f"is_embed, got {len(self.is_embed)}."
                )
            if not any(self.is_embed):
                raise PlaceholderMismatchError("A placeholder range without embeddings is no item.")

    @property
    def end(self) -> int:
        """Index after the last token."""
        return self.offset + self.length

    @property
    def num_embeds(self) -> int:
        """Embedding rows that the item fills."""
        return self.length if self.is_embed is None else sum(self.is_embed)

    def shifted(self, distance: int) -> PlaceholderRange:
        """Give the same range `distance` tokens later."""
        return PlaceholderRange(self.offset + distance, self.length, self.is_embed)

    @staticmethod
    def of(value: PlaceholderRange | Mapping[str, Any]) -> PlaceholderRange:
        """Take a range, or a dictionary with ``offset``, ``length`` and perhaps ``is_embed``."""
        if isinstance(value, PlaceholderRange):
            return value
        try:
            mask = value.get("is_embed")
            return PlaceholderRange(
                int(value["offset"]),
                int(value["length"]),
                None if mask is None else tuple(bool(b) for b in mask),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, PlaceholderMismatchError):
                raise
            raise PlaceholderMismatchError(
                "A placeholder range must be a PlaceholderRange or a dictionary with `offset` and "
                f"`length`, got {value!r}."
            ) from None


MultiModalPlaceholderDict: TypeAlias = Mapping[
    str, Sequence["PlaceholderRange | Mapping[str, Any]"]
]
"""Placeholder ranges by modality, each list in the order of the modality's items."""


class ExpandedTokenIds(list[int]):
    """Token ids that know where their placeholders are.

    Equal to a plain list of the same ids. A copy, a slice or a sum is a plain list again, since
    the ranges may not hold for it.
    """

    __slots__ = ("placeholder_ranges",)

    def __init__(
        self, ids: Iterable[int] = (), placeholder_ranges: Iterable[PlaceholderRange] = ()
    ) -> None:
        super().__init__(ids)
        self.placeholder_ranges: tuple[PlaceholderRange, ...] = tuple(placeholder_ranges)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ExpandedTokenIds, (list(self), self.placeholder_ranges))


def repeat_and_pad_token(
    token: T,
    *,
    repeat_count: int = 1,
    pad_token_left: T | None = None,
    pad_token_right: T | None = None,
) -> list[T]:
    """Repeat a token, with one token before and one after where they are given.

    >>> repeat_and_pad_token(5, repeat_count=2, pad_token_left=1)
    [1, 5, 5]
    """
    tokens = [token] * repeat_count
    if pad_token_left is not None:
        tokens.insert(0, pad_token_left)
    if pad_token_right is not None:
        tokens.append(pad_token_right)
    return tokens


def repeat_and_pad_placeholder_tokens(
    tokenizer: Any,
    prompt: str | None,
    prompt_token_ids: Sequence[int],
    *,
    placeholder_token_id: int,
    repeat_count: int | Sequence[int],
    pad_token_left: int | None = None,
    pad_token_right: int | None = None,
) -> tuple[str | None, ExpandedTokenIds]:
    """Expand the first ``len(repeat_count)`` placeholders of a prompt.

    Parameters
    ----------
    tokenizer
        Decodes the placeholder, to find it in `prompt`. Not used when `prompt` is None.
    prompt, prompt_token_ids
        The prompt as text, if it was text, and as ids. Ids that were expanded before (for another
        modality) keep their ranges.
    placeholder_token_id
        The id to expand.
    repeat_count
        Tokens for each item, in order. An int expands one placeholder; for several items give a
        list.
    pad_token_left, pad_token_right
        Tokens to put around each item; they belong to its range and get no embeddings.

    Returns
    -------
    tuple
        The expanded text (None without a text) and the expanded ids with their ranges.
    """
    counts = _counts(repeat_count)
    new_prompt = prompt
    if prompt is not None:
        new_prompt = _expand_text(
            tokenizer, prompt, placeholder_token_id, counts, pad_token_left, pad_token_right
        )

    ids = list(prompt_token_ids)
    # Ranges of an earlier expansion: for another modality, or a second run of this one.
    earlier: list[PlaceholderRange] = sorted(
        getattr(prompt_token_ids, "placeholder_ranges", ()), key=lambda r: int(r.offset)
    )
    new_ids: list[int] = []
    ranges: list[PlaceholderRange] = []
    copied = 0  # ids[:copied] are in new_ids
    for count, position in zip(
        counts, _positions(ids, placeholder_token_id, earlier), strict=False
    ):
        while earlier and earlier[0].offset < position:
            ranges.append(earlier.pop(0).shifted(len(new_ids) - copied))
        new_ids.extend(ids[copied:position])
        copied = position + 1
        replacement = repeat_and_pad_token(
            placeholder_token_id,
            repeat_count=count,
            pad_token_left=pad_token_left,
            pad_token_right=pad_token_right,
        )
        mask: tuple[bool, ...] | None = None
        if len(replacement) > count:
            first = int(pad_token_left is not None)
            mask = tuple(first <= i < first + count for i in range(len(replacement)))
        ranges.append(PlaceholderRange(len(new_ids), len(replacement), mask))
        new_ids.extend(replacement)
    ranges.extend(r.shifted(len(new_ids) - copied) for r in earlier)
    new_ids.extend(ids[copied:])
    return new_prompt, ExpandedTokenIds(new_ids, ranges)


def _counts(repeat_count: int | Sequence[int]) -> list[int]:
    counts = [
        operator.index(count)
        for count in (repeat_count if isinstance(repeat_count, Iterable) else [repeat_count])
    ]
    if any(count < 1 for count in counts):
        raise PlaceholderMismatchError(
            f"Each item needs at least one token, got repeat_count={counts}."
        )
    return counts


def _positions(
    ids: list[int], placeholder_token_id: int, expanded: Sequence[PlaceholderRange]
) -> list[int]:
    """Find the placeholders that no earlier expansion made."""
    inside = {position for r in expanded for position in range(r.offset, r.end)}
    return [
        position
        for position, token in enumerate(ids)
        if token == placeholder_token_id and position not in inside
    ]


def _expand_text(
    tokenizer: Any,
    prompt: str,
    placeholder_token_id: int,
    counts: Sequence[int],
    pad_token_left: int | None,
    pad_token_right: int | None,
) -> str:
    placeholder: str = tokenizer.decode(placeholder_token_id)
    found = prompt.count(placeholder) if placeholder else 0
    if found > _MANY_PLACEHOLDERS:
        logger.warning(
            "Please follow the prompt format that is documented on HuggingFace "
            "which does not involve repeating %s tokens.",
            placeholder,
        )
    if found < len(counts):
        logger.warning(
            "The number of multi-modal placeholder tokens in the prompt is less than the number "
            "of multi-modal inputs. Extra placeholder tokens will be treated as plain text"
        )
    if not found:
        return prompt
    left = "" if pad_token_left is None else tokenizer.decode(pad_token_left)
    right = "" if pad_token_right is None else tokenizer.decode(pad_token_right)
    parts = prompt.split(placeholder, maxsplit=min(found, len(counts)))
    text = parts[0]
    for count, part in zip(counts, parts[1:], strict=False):
        text += left + placeholder * count + right + part
    return text


def find_item_ranges(
    inputs: TokenInputs,
    unexpanded_ids: Sequence[int],
    modality_counts: Mapping[str, int],
    placeholder_token_ids: Mapping[str, int | Sequence[int]],
) -> dict[str, list[PlaceholderRange]]:
    """Find the range of every item in an expanded prompt.

    Taken from the first of these that is there:

    1. ``inputs["multi_modal_placeholders"]``: what the input processor says.
    2. The ranges of :class:`ExpandedTokenIds`: what the expansion recorded.
    3. Runs of the placeholder token: one run an item, or one run that divides evenly.

    Parameters
    ----------
    inputs
        What the input processor returned.
    unexpanded_ids
        The ids before it ran; only counted, for the error's text.
    modality_counts
        Items of each modality.
    placeholder_token_ids
        The placeholder id, or ids, of each modality. A modality without an entry has no
        placeholder token of its own, so only 1 can serve it.

    Returns
    -------
    dict
        For each modality with items, one range an item, in order.

    Raises
    ------
    PlaceholderMismatchError
        If placeholders are missing, left over, overlapping or outside the prompt.
    """
    ids = inputs["prompt_token_ids"]
    explicit = inputs.get("multi_modal_placeholders") or {}
    recorded = getattr(ids, "placeholder_ranges", ())

    found: dict[str, list[PlaceholderRange]] = {}
    for modality in dict.fromkeys([*modality_counts, *placeholder_token_ids, *explicit]):
        count = modality_counts.get(modality, 0)
        tokens = _as_set(placeholder_token_ids.get(modality, ()))
        if modality in explicit:
            ranges = [PlaceholderRange.of(value) for value in explicit[modality]]
            if len(ranges) != count:
                raise _mismatch(modality, len(ranges), count)
        else:
            ranges = [r for r in recorded if _stands_for(r, ids, tokens)]
            if ranges:
                stray = _count_outside(ids, tokens, ranges)
                if len(ranges) != count or stray:
                    raise _mismatch(modality, len(ranges) + stray, count)
            else:
                ranges = _ranges_from_runs(modality, ids, tokens, count, unexpanded_ids)
        if ranges:
            found[modality] = ranges
    _check_layout(found, len(ids))
    return found


def _as_set(tokens: int | Sequence[int]) -> frozenset[int]:
    return frozenset([tokens] if isinstance(tokens, int) else tokens)


def _stands_for(r: PlaceholderRange, ids: Sequence[int], tokens: frozenset[int]) -> bool:
    if r.end > len(ids):
        return False
    first = 0 if r.is_embed is None else r.is_embed.index(True)
    return ids[r.offset + first] in tokens


def _count_outside(
    ids: Sequence[int], tokens: frozenset[int], ranges: Sequence[PlaceholderRange]
) -> int:
    total = sum(ids.count(token) for token in tokens)
    return total - sum(ids[i] in tokens for r in ranges for i in range(r.offset, r.end))


def _ranges_from_runs(
    modality: str,
    ids: Sequence[int],
    tokens: frozenset[int],
    count: int,
    unexpanded_ids: Sequence[int],
) -> list[PlaceholderRange]:
    runs: list[PlaceholderRange] = []
    if any(token in ids for token in tokens):
        position = 0
        for is_placeholder, run in itertools.groupby(ids, tokens.__contains__):
            length = sum(1 for _ in run)
            if is_placeholder:
                runs.append(PlaceholderRange(position, length))
            position += length
    if len(runs) == count:
        return runs
    if len(runs) == 1 and count > 1 and runs[0].length % count == 0:
        # Items next to each other make one run, and equal shares are all one can assume.
        share = runs[0].length // count
        return [PlaceholderRange(runs[0].offset + i * share, share) for i in range(count)]
    typed = sum(token in tokens for token in unexpanded_ids)
    raise _mismatch(modality, typed or len(runs), count)


def _check_layout(found: Mapping[str, Sequence[PlaceholderRange]], num_tokens: int) -> None:
    for modality, ranges in found.items():
        offsets = [r.offset for r in ranges]
        if offsets != sorted(offsets):
            raise PlaceholderMismatchError(
                f"The placeholder ranges of {modality!r} are not in the prompt's order: {offsets}."
            )
    everything = sorted(
        (r.offset, r.end, modality) for modality, ranges in found.items() for r in ranges
    )
    reached = 0
    for offset, end, modality in everything:
        if offset < reached:
            raise PlaceholderMismatchError(
                f"The placeholder range [{offset}, {end}) of {modality!r} overlaps another one."
            )
        if end > num_tokens:
            raise PlaceholderMismatchError(
                f"The placeholder range [{offset}, {end}) of {modality!r} ends after the prompt's "
                f"{num_tokens} tokens."
            )
        reached = end


def _mismatch(modality: str, placeholders: int, items: int) -> PlaceholderMismatchError:
    have = "placeholder" if placeholders == 1 else "placeholders"
    given = "item" if items == 1 else "items"
    if placeholders < items:
        todo = "add a placeholder to the prompt for each item, or pass fewer items"
    else:
        todo = "remove placeholders from the prompt, or pass an item for each"
    return PlaceholderMismatchError(
        f"The prompt has {placeholders} {modality} {have} but {items} {modality} {given} "
        f"{'was' if items == 1 else 'were'} given; {todo}."
    )
