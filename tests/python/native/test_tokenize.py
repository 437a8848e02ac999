"""The native tokenizer gives what Hugging Face tokenizers gives, id for id and byte for byte."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from native.programs import BUNDLED, run_job

tokenizers = pytest.importorskip("tokenizers")

SEED = 23
SNIPPETS = (
    *("<image>", "</s>", "<s>", "<im", "<", "'s", "'re", "'ll", "'S", "don't", " the", " a"),
    *("é", "e\N{COMBINING ACUTE ACCENT}", "👨‍👩‍👧", "日本語", "½", "Ⅷ", "٣", "\N{NO-BREAK SPACE}"),
)


def texts(rng: random.Random, count: int) -> list[str]:
    """Writes random texts of all kinds of characters, and some on purpose."""
    kinds = (
        lambda: chr(rng.randrange(32, 127)),
        lambda: rng.choice(" \n\t  \r\u00a0\u3000\u200b"),
        lambda: rng.choice("etaoinshrdlu"),
        lambda: chr(rng.choice([rng.randrange(0x80, 0xD800), rng.randrange(0xE000, 0x110000)])),
        lambda: rng.choice(SNIPPETS),
    )
    made = ["", " ", "  ", "   a", "a   ", "\n\n a", "a \n", "x'y we'll I'd", "a" * 2000]
    while len(made) < count:
        weights = [rng.random() ** 3 for _ in kinds]
        chosen = rng.choices(kinds, weights, k=rng.choice([1, 2, 3, 8, 30, 200]))
        made.append("".join(kind() for kind in chosen))
    return made


@pytest.mark.parametrize("parse_special", [True, False])
@pytest.mark.parametrize("add_special", [True, False])
def test_ids_and_texts_are_equal(add_special: bool, parse_special: bool, tmp_path: Path) -> None:
    print("seed", SEED)
    rng = random.Random(SEED)
    reference = tokenizers.Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    reference.encode_special_tokens = not parse_special
    wanted = texts(rng, 800)
    size = reference.get_vocab_size()
    # Any ids at all: most make no UTF-8, and two are in no vocabulary.
    given = [
        [rng.randrange(size + 2) for _ in range(rng.choice([0, 1, 5, 40]))] for _ in range(300)
    ]
    ids = [reference.encode(text, add_special_tokens=add_special).ids for text in wanted]
    job = {
        "checkpoint": str(BUNDLED),
        "encode": wanted,
        "add_special": add_special,
        "parse_special": parse_special,
        "decode": given + ids[:300],
        "skip_special": parse_special,
    }
    result = run_job("tokenize", tmp_path, job)
    for text, want, got in zip(wanted, ids, result["ids"], strict=True):
        assert got == want, repr(text[:80])
    for tokens, hexes in zip(given + ids[:300], result["pieces"], strict=True):
        pieces = [bytes.fromhex(piece).decode() for piece in hexes]  # each is whole UTF-8
        assert "".join(pieces) == reference.decode(tokens, skip_special_tokens=parse_special)
