"""Incremental decoding and stop strings. Layer: engine, with a tokenizer and no model."""

from __future__ import annotations

import random

import pytest
import tiny_models
from tiny_models import EOS_ID, FIRST_BYTE_ID, IMAGE_TOKEN_ID, VOCAB_SIZE, token_ids

from mmcore.engine.detokenizer import IncrementalDecoder, StopMatch, StopStrings
from mmcore.engine.tokenizer import TokenizerAdapter


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> TokenizerAdapter:
    return TokenizerAdapter(tiny_models.save_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def stream(decoder: IncrementalDecoder, ids: list[int]) -> list[str]:
    return [*(decoder.append(i) for i in ids), decoder.flush()]


def test_gives_text_as_soon_as_it_is_complete(adapter: TokenizerAdapter) -> None:
    decoder = IncrementalDecoder(adapter, token_ids("prompt"))
    assert stream(decoder, token_ids("aéb")) == ["a", "", "é", "b", ""]


def test_holds_an_emoji_back_until_its_last_byte(adapter: TokenizerAdapter) -> None:
    decoder = IncrementalDecoder(adapter, [])
    assert stream(decoder, token_ids("👩")) == ["", "", "", "👩", ""]


def test_flush_gives_an_incomplete_character(adapter: TokenizerAdapter) -> None:
    decoder = IncrementalDecoder(adapter, [])
    assert decoder.append(token_ids("é")[0]) == ""
    assert decoder.flush() == "\N{REPLACEMENT CHARACTER}"


def test_special_tokens_can_be_kept(adapter: TokenizerAdapter) -> None:
    ids = [*token_ids("a"), EOS_ID, IMAGE_TOKEN_ID, *token_ids("b")]
    assert "".join(stream(IncrementalDecoder(adapter, []), ids)) == "ab"
    kept = IncrementalDecoder(adapter, [], skip_special_tokens=False)
    assert "".join(stream(kept, ids)) == "a</s><image>b"


@pytest.mark.parametrize("seed", range(20))
def test_the_stream_is_the_whole_in_pieces(adapter: TokenizerAdapter, seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice("ab é漢👩 \n") for _ in range(40))
    ids = token_ids(text)
    for _ in range(seed % 4):  # bytes that are no UTF-8, and special tokens
        ids.insert(rng.randrange(len(ids)), rng.randrange(VOCAB_SIZE))
    prompt = token_ids("some prompt")
    whole = adapter.decode(prompt + ids)[len("some prompt") :]
    assert "".join(stream(IncrementalDecoder(adapter, prompt), ids)) == whole, f"{seed=}"
    late = IncrementalDecoder(adapter, prompt)
    late.extend(ids)
    assert late.flush() == whole


def test_token_text_shows_special_tokens(adapter: TokenizerAdapter) -> None:
    assert adapter.token_text(EOS_ID) == "</s>"
    assert adapter.token_text(FIRST_BYTE_ID + ord("x")) == "x"


# Stop strings.


@pytest.mark.parametrize(
    ("stops", "text", "new", "expected"),
    [
        (["end"], "the end", 1, StopMatch("end", 4, 7)),
        (["end"], "the end!", 2, StopMatch("end", 4, 7)),
        (["end"], "end of it", 2, None),  # that one was old
        (["end"], "the en", 3, None),
        (["bc", "abc"], "xabc", 1, StopMatch("abc", 1, 4)),  # the same end: the longest
        (["c", "abcd"], "abcd", 2, StopMatch("c", 2, 3)),  # complete first
        (["\n\n"], "a\n\n", 1, StopMatch("\n\n", 1, 3)),
        (["aa"], "aaa", 1, StopMatch("aa", 1, 3)),
    ],
)
def test_finds_the_stop_that_is_complete_first(
    stops: list[str], text: str, new: int, expected: StopMatch | None
) -> None:
    assert StopStrings(stops).find(text, new) == expected


@pytest.mark.parametrize(
    ("text", "held"), [("hello", 0), ("hello <", 1), ("<|", 2), ("<|x", 0), ("<<", 1), ("", 0)]
)
def test_holds_back_what_may_begin_a_stop(text: str, held: int) -> None:
    assert StopStrings(["<|end|>", "<stop>"]).held_back(text) == held


@pytest.mark.parametrize("seed", range(20))
def test_what_was_shown_is_never_taken_back(seed: int) -> None:
    rng = random.Random(seed)
    stops = ["".join(rng.choice("ab") for _ in range(rng.randint(1, 4))) for _ in range(3)]
    found, text, shown = StopStrings(stops), "", ""
    for _ in range(60):
        text += rng.choice("abc")
        match = found.find(text, 1)
        if match is not None:
            text = text[: match.start]
            break
        visible = text[: len(text) - found.held_back(text)]
        assert visible.startswith(shown)
        shown = visible
    assert text.startswith(shown), f"{seed=} {stops=}"
    assert not any(stop in text for stop in stops)
