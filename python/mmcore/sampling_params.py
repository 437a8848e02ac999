"""How the next token of a request is chosen, and when generation stops."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any

from mmcore._checks import as_finite, as_int, require
from mmcore.errors import ValidationError

if TYPE_CHECKING:
    import torch

__all__ = [
    "GuidedDecodingParams",
    "LogitsProcessor",
    "RequestOutputKind",
    "SamplingParams",
    "SamplingType",
]

logger = logging.getLogger(__name__)

# A processor takes (generated ids, logits) or (prompt ids, generated ids, logits).
LogitsProcessor = Callable[..., "torch.Tensor"]

_GREEDY_BELOW = 1e-5
_MIN_TEMPERATURE = 1e-2  # smaller ones overflow half-precision logits
_MAX_TEMPERATURE = 1e3  # the distribution is uniform long before
_MAX_INT32 = 2**31 - 1
_MAX_UINT64 = 2**64 - 1


class SamplingType(IntEnum):
    """How the token is drawn."""

    GREEDY = 0
    RANDOM = 1
    RANDOM_SEED = 2


class RequestOutputKind(Enum):
    """What each ``RequestOutput`` of a stream holds."""

    CUMULATIVE = 0
    """Everything generated so far."""
    DELTA = 1
    """Only what is new."""
    FINAL_ONLY = 2
    """Nothing until the request is finished."""


@dataclass(slots=True)
class GuidedDecodingParams:
    """One constraint on the generated text; at most one kind may be given."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    backend: str | None = None
    whitespace_pattern: str | None = None

    def __post_init__(self) -> None:
        kinds = (self.json, self.regex, self.choice, self.grammar, self.json_object)
        if sum(kind is not None and kind is not False for kind in kinds) > 1:
            raise ValidationError(
                f"You can only use one kind of guided decoding but multiple are specified: {self!r}"
            )


@dataclass(slots=True)
class SamplingParams:
    """Sampling parameters of one request, checked when they are made.

    Names, order, defaults and messages are those of the seed-era API. Where a value is refused
    a :class:`~mmcore.errors.ValidationError` (a ``ValueError``) says what was given.

    Parameters
    ----------
    n
        Sequences to return.
    best_of
        Sequences to generate, of which the ``n`` most likely are returned; ``n`` when left out.
    presence_penalty, frequency_penalty
        In [-2, 2], over generated tokens.
    repetition_penalty
        In (0, 2], over prompt and generated tokens.
    temperature
        0 is greedy; other values below 0.01 are raised to 0.01 with a warning.
    top_p, top_k, min_p
        Cut-offs of the distribution; -1 switches ``top_k`` off.
    seed
        Makes the request's draws repeatable; -1 is the same as None.
    stop, stop_token_ids
        Texts and token ids that end a sequence.
    ignore_eos
        Go on after the end-of-text token.
    max_tokens
        Most tokens to generate; None for as many as fit.
    min_tokens
        Tokens to generate before anything may stop the sequence.
    logprobs, prompt_logprobs
        How many of the best tokens' log probabilities to return a position; True means 1.
    truncate_prompt_tokens
        Keep only this many of the prompt's last tokens.
    output_kind
        What a stream's outputs hold.
    """

    n: int = 1
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | str | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    logits_processors: list[LogitsProcessor] | None = None
    include_stop_str_in_output: bool = False
    truncate_prompt_tokens: int | None = None
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    guided_decoding: GuidedDecodingParams | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None

    # Characters held back from a stream because they may turn out to begin a stop string.
    output_text_buffer_length: int = field(default=0, init=False)
    _real_n: int | None = field(default=None, init=False, repr=False)

    @staticmethod
    def from_optional(
        n: int | None = 1,
        best_of: int | None = None,
        presence_penalty: float | None = 0.0,
        frequency_penalty: float | None = 0.0,
        repetition_penalty: float | None = 1.0,
        temperature: float | None = 1.0,
        top_p: float | None = 1.0,
        top_k: int | None = -1,
        min_p: float | None = 0.0,
        seed: int | None = None,
        stop: str | list[str] | None = None,
        stop_token_ids: list[int] | None = None,
        include_stop_str_in_output: bool = False,
        ignore_eos: bool = False,
        max_tokens: int | None = 16,
        min_tokens: int = 0,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        detokenize: bool = True,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
        logits_processors: list[LogitsProcessor] | None = None,
        truncate_prompt_tokens: int | None = None,
        output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE,
        guided_decoding: GuidedDecodingParams | None = None,
        logit_bias: Mapping[int, float] | Mapping[str, float] | None = None,
        allowed_token_ids: list[int] | None = None,
    ) -> SamplingParams:
        """Build from values of which any may be None, which means the default."""
        given = {
            "n": n,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "repetition_penalty": repetition_penalty,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
        }
        known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return SamplingParams(
            **known,
            best_of=best_of,
            seed=seed,
            stop=stop,
            stop_token_ids=stop_token_ids,
            include_stop_str_in_output=include_stop_str_in_output,
            ignore_eos=ignore_eos,
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            detokenize=detokenize,
            skip_special_tokens=skip_special_tokens,
            spaces_between_special_tokens=spaces_between_special_tokens,
            logits_processors=logits_processors,
            truncate_prompt_tokens=truncate_prompt_tokens,
            output_kind=output_kind,
            guided_decoding=guided_decoding,
            logit_bias=_parse_logit_bias(logit_bias),
            allowed_token_ids=allowed_token_ids,
        )

    def __post_init__(self) -> None:
        self._normalise()
        self._check_ranges()
        self._check_combinations()
        if self.best_of is not None:
            # The engine runs best_of sequences and returns real_n of them.
            self._real_n = self.n
            self.n = self.best_of
        if self.sampling_type is SamplingType.GREEDY:
            self.top_p = 1.0
            self.top_k = -1
            self.min_p = 0.0
            if self.n > 1:
                raise ValidationError(f"n must be 1 when using greedy sampling, got {self.n}.")

    def _normalise(self) -> None:
        for name in ("n", "top_k", "min_tokens"):
            setattr(self, name, as_int(name, getattr(self, name)))
        for name in ("best_of", "seed", "max_tokens", "truncate_prompt_tokens"):
            if getattr(self, name) is not None:
                setattr(self, name, as_int(name, getattr(self, name)))
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if isinstance(value, bool):
                setattr(self, name, 1 if value else None)
            elif value is not None:
                setattr(self, name, as_int(name, value))
        for name in _FLOAT_FIELDS:
            setattr(self, name, as_finite(name, getattr(self, name)))
        for name in _BOOL_FIELDS:
            if not isinstance(getattr(self, name), bool):
                raise ValidationError(f"{name} must be a bool, got {getattr(self, name)!r}.")
        if not isinstance(self.output_kind, RequestOutputKind):
            raise ValidationError(
                f"output_kind must be a RequestOutputKind, got {self.output_kind!r}."
            )

        if self.seed == -1:
            self.seed = None
        if 0 < self.temperature < _MIN_TEMPERATURE:
            logger.warning(
                "temperature %s is below %s, where half-precision logits overflow; using %s.",
                self.temperature,
                _MIN_TEMPERATURE,
                _MIN_TEMPERATURE,
            )
            self.temperature = _MIN_TEMPERATURE
        self.stop = _strings("stop", self.stop)
        self.stop_token_ids = _token_ids("stop_token_ids", self.stop_token_ids or [])
        if self.allowed_token_ids is not None:
            self.allowed_token_ids = _token_ids("allowed_token_ids", self.allowed_token_ids)
        self.logit_bias = _parse_logit_bias(self.logit_bias)
        if self.stop and not self.include_stop_str_in_output:
            self.output_text_buffer_length = max(len(s) for s in self.stop) - 1

    def _check_ranges(self) -> None:
        require(self.n >= 1, f"n must be at least 1, got {self.n}.")
        require(
            -2.0 <= self.presence_penalty <= 2.0,
            f"presence_penalty must be in [-2, 2], got {self.presence_penalty}.",
        )
        require(
            -2.0 <= self.frequency_penalty <= 2.0,
            f"frequency_penalty must be in [-2, 2], got {self.frequency_penalty}.",
        )
        require(
            0.0 < self.repetition_penalty <= 2.0,
            f"repetition_penalty must be in (0, 2], got {self.repetition_penalty}.",
        )
        require(
            self.temperature >= 0.0, f"temperature must be non-negative, got {self.temperature}."
        )
        require(
            self.temperature <= _MAX_TEMPERATURE,
            f"temperature must be at most {_MAX_TEMPERATURE:g}, got {self.temperature}.",
        )
        require(0.0 < self.top_p <= 1.0, f"top_p must be in (0, 1], got {self.top_p}.")
        require(
            self.top_k == -1 or self.top_k >= 1,
            f"top_k must be -1 (disable), or at least 1, got {self.top_k}.",
        )
        require(0.0 <= self.min_p <= 1.0, f"min_p must be in [0, 1], got {self.min_p}.")
        require(
            self.max_tokens is None or self.max_tokens >= 1,
            f"max_tokens must be at least 1, got {self.max_tokens}.",
        )
        require(
            self.min_tokens >= 0,
            f"min_tokens must be greater than or equal to 0, got {self.min_tokens}.",
        )
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} must be non-negative, got {value}.")
        require(
            self.truncate_prompt_tokens is None or self.truncate_prompt_tokens >= 1,
            f"truncate_prompt_tokens must be >= 1, got {self.truncate_prompt_tokens}",
        )
        require(
            self.seed is None or 0 <= self.seed <= _MAX_UINT64,
            f"seed must be -1 (none) or in [0, 2**64), got {self.seed}.",
        )
        for name in _INT32_FIELDS:
            value = getattr(self, name)
            require(
                value is None or value <= _MAX_INT32,
                f"{name} must be below 2**31, got {value}.",
            )

    def _check_combinations(self) -> None:
        require(
            self.max_tokens is None or self.min_tokens <= self.max_tokens,
            f"min_tokens must be less than or equal to max_tokens={self.max_tokens}, "
            f"got {self.min_tokens}.",
        )
        require(all(self.stop or ()), "stop cannot contain an empty string.")
        require(
            not self.stop or self.detokenize,
            "stop strings are only supported when detokenize is True. "
            "Set detokenize=True to use stop.",
        )
        if self.best_of is not None:
            require(
                self.best_of >= self.n,
                "best_of must be greater than or equal to n, "
                f"got n={self.n} and best_of={self.best_of}.",
            )
            require(
                self.best_of == self.n or self.output_kind is not RequestOutputKind.DELTA,
                "best_of must equal n to use output_kind=DELTA",
            )

    @property
    def sampling_type(self) -> SamplingType:
        """Greedy, random, or random with the request's own seed."""
        if self.temperature < _GREEDY_BELOW:
            return SamplingType.GREEDY
        return SamplingType.RANDOM if self.seed is None else SamplingType.RANDOM_SEED

    @property
    def real_n(self) -> int:
        """Sequences to return; ``n`` is how many to generate once ``best_of`` was given."""
        return self.n if self._real_n is None else self._real_n

    @property
    def all_stop_token_ids(self) -> frozenset[int]:
        """The stop ids as a set, without the model's end-of-text ids."""
        return frozenset(self.stop_token_ids or ())

    def clone(self) -> SamplingParams:
        """Copy deeply, except for the logits processors, which may be large and are shared."""
        shared = {id(p): p for p in self.logits_processors or ()}
        return copy.deepcopy(self, memo=shared)


_FLOAT_FIELDS = (
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "min_p",
)
_BOOL_FIELDS = (
    "ignore_eos",
    "detokenize",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "include_stop_str_in_output",
)
# Fields that the core holds in 32 bits.
_INT32_FIELDS = (
    "n",
    "best_of",
    "top_k",
    "max_tokens",
    "min_tokens",
    "logprobs",
    "prompt_logprobs",
    "truncate_prompt_tokens",
)


def _strings(name: str, value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Sequence) or not all(isinstance(s, str) for s in value):
        raise ValidationError(f"{name} must be a string or a list of strings, got {value!r}.")
    return list(value)


def _token_ids(name: str, value: object) -> list[int]:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise ValidationError(f"{name} must be a list of token ids, got {value!r}.")
    ids = [as_int(f"each of {name}", token) for token in value]
    for token in ids:
        require(0 <= token <= _MAX_INT32, f"{name} must be in [0, 2**31), got {token}.")
    return ids


def _parse_logit_bias(value: object) -> dict[int, float] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValidationError(f"logit_bias must map token ids to numbers, got {value!r}.")
    bias: dict[int, float] = {}
    for key, number in value.items():
        token: object = key
        if isinstance(key, str):
            try:
                token = int(key)
            except ValueError:
                raise ValidationError(f"logit_bias keys must be token ids, got {key!r}.") from None
        bias[_token_ids("logit_bias keys", [token])[0]] = as_finite(f"logit_bias[{key}]", number)
    return bias
