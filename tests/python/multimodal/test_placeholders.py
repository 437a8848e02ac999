"""Unit: expanding placeholders, and finding the range of each item afterwards."""

from __future__ import annotations

import pickle
import random
from typing import Any

import pytest

from mmcore.errors import PlaceholderMismatchError
from mmcore.inputs import token_inputs
from mmcore.multimodal import PlaceholderRange
from mmcore.multimodal.placeholders import (
    ExpandedTokenIds,
    find_item_ranges,
    repeat_and_pad_placeholder_tokens,
    repeat_and_pad_token,
)

IMAGE = 32000
AUDIO = 32001


TEXTS = {IMAGE: "<image>", AUDIO: "<audio>", 32100: "<start>", 32101: "<end>"}


class Tokenizer:
    """Decodes the ids that these tests use, as a LLaVA tokenizer does."""

    def decode(self, token_id: int) -> str:
        return TEXTS[token_id]


def expand(prompt: str | None, ids: Any, repeat_count: Any, **kwargs: Any) -> Any:
    return repeat_and_pad_placeholder_tokens(
        Tokenizer(), prompt, ids, placeholder_token_id=IMAGE, repeat_count=repeat_count, **kwargs
    )


def test_one_token() -> None:
    assert repeat_and_pad_token("t") == ["t"]
    assert repeat_and_pad_token("t", repeat_count=3) == ["t"] * 3
    assert repeat_and_pad_token("t", repeat_count=2, pad_token_left="l", pad_token_right="r") == [
        "l",
        "t",
        "t",
        "r",
    ]
    assert repeat_and_pad_token(5, repeat_count=2, pad_token_left=0) == [0, 5, 5]


@pytest.mark.parametrize(
    ("prompt", "ids", "repeat_count", "expected_text", "expected_ids", "ranges"),
    [
        ("<image>", [IMAGE], 2, "<image>" * 2, [IMAGE] * 2, [(0, 2)]),
        ("<image><image>", [IMAGE] * 2, 2, "<image>" * 3, [IMAGE] * 3, [(0, 2)]),
        ("<image><image>", [IMAGE] * 2, [3, 2], "<image>" * 5, [IMAGE] * 5, [(0, 3), (3, 2)]),
        (
            "Image:<image>Image:<image>!",
            [9833, 28747, IMAGE, 9833, 28747, IMAGE, 918],
            [3, 2],
            "Image:<image><image><image>Image:<image><image>!",
            [9833, 28747, *[IMAGE] * 3, 9833, 28747, *[IMAGE] * 2, 918],
            [(2, 3), (7, 2)],
        ),
        ("<image>", [IMAGE], [3, 2], "<image>" * 3, [IMAGE] * 3, [(0, 3)]),
    ],
)
def test_seed_era_table(
    prompt: str,
    ids: list[int],
    repeat_count: Any,
    expected_text: str,
    expected_ids: list[int],
    ranges: list[tuple[int, int]],
) -> None:
    new_prompt, new_ids = expand(prompt, ids, repeat_count)
    assert new_prompt == expected_text
    assert new_ids == expected_ids
    assert [(r.offset, r.length) for r in new_ids.placeholder_ranges] == ranges
    assert all(r.is_embed is None for r in new_ids.placeholder_ranges)

    no_prompt, same_ids = expand(None, ids, repeat_count)
    assert no_prompt is None
    assert same_ids == new_ids
    assert same_ids.placeholder_ranges == new_ids.placeholder_ranges


def test_text_without_placeholders_and_ids_with() -> None:
    # The seed-era helper fails with an IndexError here.
    new_prompt, new_ids = expand("typed otherwise", [5, IMAGE, 6], [3])
    assert new_prompt == "typed otherwise"
    assert new_ids == [5, IMAGE, IMAGE, IMAGE, 6]


def test_padding_belongs_to_the_range_and_has_no_embeddings() -> None:
    new_prompt, new_ids = expand(
        "a<image>b", [1, IMAGE, 2], [2], pad_token_left=32100, pad_token_right=32101
    )
    assert new_prompt == "a<start><image><image><end>b"
    assert new_ids == [1, 32100, IMAGE, IMAGE, 32101, 2]
    assert new_ids.placeholder_ranges == (PlaceholderRange(1, 4, (False, True, True, False)),)
    _, left_only = expand(None, [IMAGE], [2], pad_token_left=32100)
    assert left_only.placeholder_ranges == (PlaceholderRange(0, 3, (False, True, True)),)


def test_fewer_placeholders_than_counts_warn(caplog: pytest.LogCaptureFixture) -> None:
    expand("<image>", [IMAGE], [3, 2])
    assert caplog.messages == [
        "The number of multi-modal placeholder tokens in the prompt is less than the number of "
        "multi-modal inputs. Extra placeholder tokens will be treated as plain text"
    ]


@pytest.mark.parametrize(("count", "warned"), [(16, False), (17, True)])
def test_prompts_expanded_by_hand_warn(
    count: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    expand("<image>" * count, [IMAGE] * count, 2)
    assert (
        "Please follow the prompt format that is documented on HuggingFace "
        "which does not involve repeating <image> tokens." in caplog.messages
    ) is warned


@pytest.mark.parametrize("repeat_count", [0, [2, 0], [-1]])
def test_items_without_tokens(repeat_count: Any) -> None:
    with pytest.raises(PlaceholderMismatchError, match="at least one token"):
        expand(None, [IMAGE, IMAGE], repeat_count)


def test_ranges_survive_expanding_another_modality() -> None:
    ids = [1, IMAGE, 2, AUDIO, 3, IMAGE]
    _, with_images = expand(None, ids, [2, 3])
    _, both = repeat_and_pad_placeholder_tokens(
        Tokenizer(), None, with_images, placeholder_token_id=AUDIO, repeat_count=[4]
    )
    assert both == [1, IMAGE, IMAGE, 2, *[AUDIO] * 4, 3, *[IMAGE] * 3]
    assert both.placeholder_ranges == (
        PlaceholderRange(1, 2),
        PlaceholderRange(4, 4),
        PlaceholderRange(9, 3),
    )


def test_an_expanded_prompt_is_not_expanded_again() -> None:
    _, once = expand(None, [1, IMAGE, 2, IMAGE], [3])
    _, twice = expand(None, once, [2])
    assert twice == [1, *[IMAGE] * 3, 2, IMAGE, IMAGE]
    assert twice.placeholder_ranges == (PlaceholderRange(1, 3), PlaceholderRange(5, 2))


def test_expanded_ids_are_a_list() -> None:
    ids = ExpandedTokenIds([1, 2], [PlaceholderRange(0, 1)])
    assert ids == [1, 2]
    assert isinstance(ids, list)
    assert type(ids[:]) is list
    assert type(ids.copy()) is list
    again = pickle.loads(pickle.dumps(ids))
    assert again == ids
    assert again.placeholder_ranges == ids.placeholder_ranges


def test_random_prompts_keep_text_and_ranges() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        ids = [rng.choice([1, 2, 3, IMAGE]) for _ in range(rng.randrange(30))]
        counts = [rng.randint(1, 5) for _ in range(ids.count(IMAGE))]
        if not counts:
            continue
        _, new = expand(None, ids, counts)
        assert [t for t in new if t != IMAGE] == [t for t in ids if t != IMAGE]
        assert [r.length for r in new.placeholder_ranges] == counts
        inside = [i for r in new.placeholder_ranges for i in range(r.offset, r.end)]
        assert inside == [i for i, t in enumerate(new) if t == IMAGE]
        found = find_item_ranges(token_inputs(new), ids, {"image": len(counts)}, {"image": IMAGE})
        assert found == {"image": list(new.placeholder_ranges)}


@pytest.mark.parametrize(
    ("offset", "length", "is_embed"),
    [(-1, 2, None), (0, 0, None), (0, 2, (True,)), (0, 2, (False, False))],
)
def test_impossible_ranges(offset: int, length: int, is_embed: Any) -> None:
    with pytest.raises(PlaceholderMismatchError):
        PlaceholderRange(offset, length, is_embed)


def test_range_arithmetic() -> None:
    r = PlaceholderRange(3, 4, (False, True, True, False))
    assert (r.end, r.num_embeds) == (7, 2)
    assert r.shifted(2) == PlaceholderRange(5, 4, r.is_embed)
    assert PlaceholderRange(3, 4).num_embeds == 4


@pytest.mark.parametrize("value", [5, "ab", {}, {"offset": 1}, {"offset": "x", "length": 1}, None])
def test_what_is_no_range(value: Any) -> None:
    with pytest.raises(PlaceholderMismatchError):
        PlaceholderRange.of(value)


def find(ids: list[int], counts: dict[str, int], explicit: Any = None) -> Any:
    inputs = token_inputs(ids, multi_modal_placeholders=explicit)
    return find_item_ranges(inputs, ids, counts, {"image": IMAGE, "audio": [AUDIO]})


def test_no_media() -> None:
    assert find([1, 2, 3], {}) == {}
    assert find([1, 2, 3], {"image": 0}) == {}


def test_explicit_ranges_win_over_the_ids() -> None:
    ranges = [{"offset": 1, "length": 3, "is_embed": [True, False, True]}, PlaceholderRange(4, 1)]
    found = find([1, 2, 3, 4, 5], {"image": 2}, {"image": ranges})
    assert found == {"image": [PlaceholderRange(1, 3, (True, False, True)), PlaceholderRange(4, 1)]}


def test_explicit_ranges_leave_typed_placeholders_alone() -> None:
    found = find([IMAGE, 1, IMAGE, IMAGE], {"image": 1}, {"image": [PlaceholderRange(2, 2)]})
    assert found == {"image": [PlaceholderRange(2, 2)]}


def test_runs() -> None:
    assert find([1, IMAGE, IMAGE, 2, IMAGE], {"image": 2}) == {
        "image": [PlaceholderRange(1, 2), PlaceholderRange(4, 1)]
    }
    assert find([IMAGE, AUDIO, AUDIO], {"image": 1, "audio": 1}) == {
        "image": [PlaceholderRange(0, 1)],
        "audio": [PlaceholderRange(1, 2)],
    }


def test_one_run_in_equal_shares() -> None:
    assert find([1, *[IMAGE] * 6], {"image": 3}) == {
        "image": [PlaceholderRange(1, 2), PlaceholderRange(3, 2), PlaceholderRange(5, 2)]
    }
    with pytest.raises(PlaceholderMismatchError):
        find([1, *[IMAGE] * 7], {"image": 3})


@pytest.mark.parametrize(
    ("ids", "counts", "message"),
    [
        (
            [1, 2],
            {"image": 1},
            "The prompt has 0 image placeholders but 1 image item was given; "
            "add a placeholder to the prompt for each item, or pass fewer items.",
        ),
        (
            [1, IMAGE],
            {},
            "The prompt has 1 image placeholder but 0 image items were given; "
            "remove placeholders from the prompt, or pass an item for each.",
        ),
        ([IMAGE, 1, IMAGE], {"image": 1}, "The prompt has 2 image placeholders but 1 image item"),
        ([IMAGE, 1, IMAGE], {"image": 3}, "The prompt has 2 image placeholders but 3 image items"),
        ([IMAGE], {"smell": 1, "image": 1}, "The prompt has 0 smell placeholders but 1 smell"),
    ],
)
def test_mismatches_in_plain_ids(ids: list[int], counts: dict[str, int], message: str) -> None:
    with pytest.raises(PlaceholderMismatchError) as caught:
        find(ids, counts)
    assert str(caught.value).startswith(message)
    assert caught.value.code == "placeholder_mismatch"


@pytest.mark.parametrize(("typed", "counts"), [(1, [3, 2]), (3, [3, 2])])
def test_mismatches_in_expanded_ids(typed: int, counts: list[int]) -> None:
    ids = [t for i in range(typed) for t in (i, IMAGE)]
    _, new = expand(None, ids, counts)
    message = f"The prompt has {typed} image placeholders? but 2 image items were given"
    with pytest.raises(PlaceholderMismatchError, match=message):
        find_item_ranges(token_inputs(new), ids, {"image": 2}, {"image": IMAGE})


@pytest.mark.parametrize(
    ("explicit", "counts", "message"),
    [
        ({"image": [{"offset": 0, "length": 2}]}, {"image": 2}, "has 1 image placeholder but 2"),
        ({"image": [{"offset": 0, "length": 2}]}, {}, "has 1 image placeholder but 0"),
        (
            {"image": [{"offset": 3, "length": 2}, {"offset": 0, "length": 2}]},
            {"image": 2},
            "not in the prompt's order",
        ),
        (
            {"image": [{"offset": 0, "length": 3}, {"offset": 2, "length": 2}]},
            {"image": 2},
            "overlaps another one",
        ),
        (
            {"image": [{"offset": 0, "length": 3}], "audio": [{"offset": 1, "length": 1}]},
            {"image": 1, "audio": 1},
            "overlaps another one",
        ),
        ({"image": [{"offset": 3, "length": 3}]}, {"image": 1}, "ends after the prompt's 5"),
        ({"image": [{"offset": 3}]}, {"image": 1}, "must be a PlaceholderRange or"),
    ],
)
def test_bad_explicit_ranges(explicit: Any, counts: dict[str, int], message: str) -> None:
    with pytest.raises(PlaceholderMismatchError, match=message):
        find([1, 2, 3, 4, 5], counts, explicit)
