"""The search without an engine: rules on small made-up models. Layer: unit."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from mmcore import BeamSearchParams, ValidationError
from mmcore.beam_search import BeamSearch
from mmcore.outputs import Logprob

EOS = 0


def make_model(seed: int, vocab: int) -> Any:
    """Log probabilities of the next token, a function of the tokens so far."""

    def logprobs(tokens: tuple[int, ...]) -> list[float]:
        draws = random.Random(f"{seed} {tokens}")
        weights = [draws.random() ** 3 + 1e-3 for _ in range(vocab)]
        return [math.log(w / sum(weights)) for w in weights]

    return logprobs


def search(model: Any, params: BeamSearchParams) -> tuple[list[Any], int]:
    """Run a search; gives the ended beams and the number of rounds."""
    one = BeamSearch(params, params.max_tokens, [EOS])
    rounds = 0
    while one.live:
        rounds += 1
        candidates = []
        for beam in one.live:
            ranked = sorted(enumerate(model(beam.tokens)), key=lambda pair: -pair[1])
            best = ranked[: one.num_candidates]
            candidates.append({token: Logprob(value) for token, value in best})
        one.advance(candidates)
    return one.best(), rounds


def everything(model: Any, vocab: int, max_tokens: int, ignore_eos: bool) -> dict[Any, float]:
    """The log probability of each sequence that ends with EOS or at the full length."""
    found: dict[Any, float] = {}
    alive = {(): 0.0}
    for _ in range(max_tokens):
        longer = {
            (*tokens, token): total + value
            for tokens, total in alive.items()
            for token, value in enumerate(model(tokens))
        }
        ended = {t: v for t, v in longer.items() if t[-1] == EOS and not ignore_eos}
        found.update(ended)
        alive = {t: v for t, v in longer.items() if t not in ended}
    return found | alive


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("ignore_eos", [False, True])
def test_a_search_wide_enough_finds_the_best_of_all(penalty: float, ignore_eos: bool) -> None:
    vocab, max_tokens = 3, 4
    for seed in range(30):
        model = make_model(seed, vocab)
        found = everything(model, vocab, max_tokens, ignore_eos)
        scores = {t: value / len(t) ** penalty for t, value in found.items()}
        ranked = sorted(scores, key=lambda t: -scores[t])
        params = BeamSearchParams(
            len(found), max_tokens, length_penalty=penalty, ignore_eos=ignore_eos
        )
        best, _ = search(model, params)
        assert [beam.tokens for beam in best] == ranked, f"{seed=}"
        for beam in best:
            assert beam.cum_logprob == pytest.approx(found[beam.tokens])
            assert beam.score(penalty) == pytest.approx(scores[beam.tokens])
            assert len(beam.logprobs) == len(beam.tokens)
            assert beam.ended == (beam.tokens[-1] == EOS and not ignore_eos)


def test_one_beam_is_greedy() -> None:
    model = make_model(5, 6)
    best, rounds = search(model, BeamSearchParams(1, 8, ignore_eos=True))
    tokens: tuple[int, ...] = ()
    for _ in range(8):
        values = model(tokens)
        tokens += (values.index(max(values)),)
    assert [beam.tokens for beam in best] == [tokens]
    assert rounds == 8


def test_the_search_ends_when_nothing_can_improve() -> None:
    certain = [math.log(0.97)] + [math.log(0.01)] * 3  # EOS at once
    best, rounds = search(lambda tokens: certain, BeamSearchParams(2, 50, length_penalty=0.0))
    assert best[0].tokens == (EOS,)
    assert len(best) == 2
    assert rounds < 50
    # Long sequences are forgiven: the search must go on, since they may still win.
    _, rounds = search(lambda tokens: certain, BeamSearchParams(2, 12, length_penalty=9.0))
    assert rounds == 12


def test_an_end_counts_only_among_the_best() -> None:
    # EOS comes third after two better tokens, always: two beams never end with it.
    values = [math.log(0.2), math.log(0.45), math.log(0.35)]
    best, _ = search(lambda tokens: values, BeamSearchParams(2, 3))
    assert all(EOS not in beam.tokens for beam in best)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beam_width": 0}, "beam_width must be at least 1, got 0"),
        ({"beam_width": 1.5}, r"beam_width must be an integer, got 1\.5"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"length_penalty": math.nan}, "length_penalty must be finite"),
        ({"length_penalty": "1"}, "length_penalty must be a number, got '1'"),
        ({"temperature": 0.7}, r"temperature must be 0, got 0\.7"),
        ({"ignore_eos": 1}, "ignore_eos must be True or False, got 1"),
    ],
)
def test_bad_parameters(arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"beam_width": 2, "max_tokens": 4}
    with pytest.raises(ValidationError, match=message):
        BeamSearchParams(**{**good, **arguments})
