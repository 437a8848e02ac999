"""Beam search: its parameters, what it returns, and the search itself, which knows no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmcore._checks import as_finite, int_at_least, require
from mmcore.errors import ValidationError
from mmcore.outputs import Logprob

__all__ = ["BeamSearch", "BeamSearchOutput", "BeamSearchParams", "BeamSearchSequence"]


@dataclass(frozen=True, slots=True)
class BeamSearchParams:
    """Parameters of a beam search, checked when they are made.

    Parameters
    ----------
    beam_width
        Beams that are followed, and sequences that are returned.
    max_tokens
        Most tokens to generate.
    ignore_eos
        Go on after the end-of-text token.
    temperature
        Only 0: the search compares the model's own probabilities.
    length_penalty
        Sequences are compared by ``cum_logprob / tokens ** length_penalty``, over the generated
        tokens with the end-of-text token: more than 0 prefers longer ones.
    include_stop_str_in_output
        Keep the end-of-text token in the text.
    """

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False

    def __post_init__(self) -> None:
        int_at_least("beam_width", self.beam_width, 1)
        int_at_least("max_tokens", self.max_tokens, 1)
        as_finite("length_penalty", self.length_penalty)
        temperature = as_finite("temperature", self.temperature)
        if temperature != 0:
            raise ValidationError(
                f"Beam search draws nothing: temperature must be 0, got {temperature}.",
                code="unsupported",
            )
        for name in ("ignore_eos", "include_stop_str_in_output"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"{name} must be True or False, got {value!r}.")


@dataclass(frozen=True, slots=True)
class BeamSearchSequence:
    """One sequence of a search.

    Parameters
    ----------
    tokens
        The prompt's tokens as the model saw them, and the generated ones.
    logprobs
        One dictionary a generated token: the candidates that were looked at.
    cum_logprob
        Sum of the generated tokens' log probabilities.
    text
        What was generated; None without a tokenizer.
    finish_reason
        ``"stop"`` for the end-of-text token, ``"length"`` where the tokens ran out.
    stop_reason
        None, as for requests that end with the end-of-text token.
    num_prompt_tokens
        How many of `tokens` are the prompt's.
    """

    tokens: list[int]
    logprobs: list[dict[int, Logprob]] = field(repr=False)
    cum_logprob: float
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    num_prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class BeamSearchOutput:
    """The best sequences of one prompt, best first."""

    sequences: list[BeamSearchSequence]


@dataclass(frozen=True, slots=True)
class Beam:
    """A sequence that is followed, or has ended."""

    tokens: tuple[int, ...] = ()
    cum_logprob: float = 0.0
    logprobs: tuple[dict[int, Logprob], ...] = ()
    ended: bool = False

    def score(self, length_penalty: float) -> float:
        """Give what sequences of different lengths are compared by."""
        length: float = len(self.tokens) ** length_penalty
        return self.cum_logprob / length


class BeamSearch:
    """The search of one prompt: says which beams to continue, and takes what may follow them.

    Of all candidates of a step the best `beam_width` that do not end the text are followed. One
    that ends it counts if it is itself among the best `beam_width`. The search ends early only when
    nothing that is followed can become better than the worst of `beam_width` ended sequences.

    Parameters
    ----------
    max_tokens
        Most tokens to generate: the parameters', or fewer where the model's length ends.
    eos_token_ids
        Tokens that end the text.
    """

    def __init__(
        self, params: BeamSearchParams, max_tokens: int, eos_token_ids: Sequence[int]
    ) -> None:
        self._params = params
        self._max_tokens = max_tokens
        self._eos = frozenset(() if params.ignore_eos else eos_token_ids)
        self._ended: list[Beam] = []
        self.live: list[Beam] = [Beam()]

    @property
    def num_candidates(self) -> int:
        """Tokens after each beam that suffice: the best, and one for each that ends the text."""
        return self._params.beam_width + len(self._eos)

    def advance(self, candidates: Sequence[Mapping[int, Logprob]]) -> None:
        """Take the most likely tokens after each live beam, in the order of :attr:`live`."""
        width = self._params.beam_width
        longer = [
            Beam(
                (*beam.tokens, token),
                beam.cum_logprob + logprob.logprob,
                (*beam.logprobs, dict(tokens)),
                token in self._eos,
            )
            for beam, tokens in zip(self.live, candidates, strict=True)
            for token, logprob in tokens.items()
        ]
        longer.sort(key=lambda beam: -beam.cum_logprob)
        over = len(longer[0].tokens) >= self._max_tokens
        best = longer[:width]
        self._ended += best if over else [beam for beam in best if beam.ended]
        self._ended.sort(key=self._score, reverse=True)
        del self._ended[width:]
        self.live = [] if over else [beam for beam in longer if not beam.ended][:width]
        if len(self._ended) == width and self.live and not self._may_improve():
            self.live = []

    def best(self) -> list[Beam]:
        """Give the sequences that have ended, best first."""
        return self._ended

    def _score(self, beam: Beam) -> float:
        return beam.score(self._params.length_penalty)

    def _may_improve(self) -> bool:
        """Tell whether what is followed could still beat the worst that has ended."""
        penalty = self._params.length_penalty
        leader = self.live[0]
        # Log probabilities only fall; a positive penalty forgives most at the full length.
        length = self._max_tokens if penalty > 0 else len(leader.tokens)
        most: float = leader.cum_logprob / length**penalty
        return most > self._score(self._ended[-1])
