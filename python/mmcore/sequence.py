"""The tokens of one sequence, as dummy-data factories and models see them, and what is sampled."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from mmcore.outputs import Logprob, PromptLogprobs, RequestMetrics

if TYPE_CHECKING:
    import torch

__all__ = [
    "IntermediateTensors",
    "Logprob",
    "PromptLogprobs",
    "RequestMetrics",
    "SampledToken",
    "SamplerOutput",
    "SequenceData",
    "SequenceStage",
    "SequenceStatus",
]


class SequenceStage(enum.Enum):
    """Whether a sequence still computes its prompt or generates."""

    PREFILL = enum.auto()
    DECODE = enum.auto()


class SequenceStatus(enum.IntEnum):
    """Where a sequence is in its life. The finished states are the last ones."""

    WAITING = 0
    RUNNING = 1
    SWAPPED = 2
    FINISHED_STOPPED = 3
    FINISHED_LENGTH_CAPPED = 4
    FINISHED_ABORTED = 5
    FINISHED_IGNORED = 6

    @staticmethod
    def is_finished(status: SequenceStatus) -> bool:
        """Tell whether no more tokens will come."""
        return status > SequenceStatus.SWAPPED

    @staticmethod
    def get_finished_reason(status: SequenceStatus) -> str | None:
        """Give the OpenAI word for a finished state, None for a live one."""
        return _FINISH_REASONS.get(status)


_FINISH_REASONS: Mapping[SequenceStatus, str] = {
    SequenceStatus.FINISHED_STOPPED: "stop",
    SequenceStatus.FINISHED_LENGTH_CAPPED: "length",
    SequenceStatus.FINISHED_ABORTED: "abort",
    # A prompt that is longer than the engine takes: cut off before it began.
    SequenceStatus.FINISHED_IGNORED: "length",
}


class SequenceData:
    """Prompt and output token ids of one sequence, and how many of them are computed.

    Parameters
    ----------
    prompt_token_ids, output_token_ids
        Token ids; copied.
    """

    __slots__ = (
        "_num_computed_tokens",
        "_output_token_ids",
        "_prompt_token_ids",
        "_stage",
        "cumulative_logprob",
        "mrope_position_delta",
    )

    def __init__(
        self, prompt_token_ids: Sequence[int], output_token_ids: Sequence[int] | None = None
    ) -> None:
        self._prompt_token_ids: tuple[int, ...] = tuple(prompt_token_ids)
        self._output_token_ids: list[int] = list(output_token_ids or ())
        self._num_computed_tokens = 0
        self._stage = SequenceStage.PREFILL
        self.cumulative_logprob = 0.0
        self.mrope_position_delta: int | None = None

    @staticmethod
    def from_prompt_token_counts(*token_counts: tuple[int, int]) -> SequenceData:
        """Build a prompt from ``(token_id, count)`` runs, in order.

        >>> SequenceData.from_prompt_token_counts((32000, 3), (0, 2)).prompt_token_ids
        (32000, 32000, 32000, 0, 0)
        """
        prompt: list[int] = []
        for token_id, count in token_counts:
            prompt.extend([token_id] * count)
        return SequenceData(prompt)

    # The v0.6.3 name of the same constructor.
    from_token_counts = from_prompt_token_counts

    @staticmethod
    def from_seqs(
        prompt_token_ids: Sequence[int], output_token_ids: Sequence[int] | None = None
    ) -> SequenceData:
        """Build from any sequences of ids."""
        return SequenceData(prompt_token_ids, output_token_ids)

    @property
    def prompt_token_ids(self) -> tuple[int, ...]:
        """The prompt's ids."""
        return self._prompt_token_ids

    @property
    def output_token_ids(self) -> tuple[int, ...]:
        """The ids generated so far."""
        return tuple(self._output_token_ids)

    @property
    def stage(self) -> SequenceStage:
        """PREFILL until every prompt token is computed, then DECODE."""
        return self._stage

    def append_token_id(self, token_id: int, logprob: float) -> None:
        """Add a generated token."""
        self._output_token_ids.append(token_id)
        self.cumulative_logprob += logprob

    def get_len(self) -> int:
        """Count prompt and output tokens."""
        return len(self._prompt_token_ids) + len(self._output_token_ids)

    def get_prompt_len(self) -> int:
        """Count prompt tokens."""
        return len(self._prompt_token_ids)

    def get_output_len(self) -> int:
        """Count generated tokens."""
        return len(self._output_token_ids)

    def get_token_ids(self) -> list[int]:
        """Give prompt and output ids in one list."""
        return [*self._prompt_token_ids, *self._output_token_ids]

    def get_prompt_token_ids(self) -> tuple[int, ...]:
        """Give the prompt's ids."""
        return self._prompt_token_ids

    def get_output_token_ids(self) -> tuple[int, ...]:
        """Give the generated ids."""
        return tuple(self._output_token_ids)

    def get_last_token_id(self) -> int:
        """Give the newest id, of the prompt if nothing was generated yet."""
        if self._output_token_ids:
            return self._output_token_ids[-1]
        return self._prompt_token_ids[-1]

    def get_num_computed_tokens(self) -> int:
        """Count tokens whose keys and values are in the cache."""
        return self._num_computed_tokens

    def get_num_uncomputed_tokens(self) -> int:
        """Count tokens that still have to run."""
        return self.get_len() - self._num_computed_tokens

    def update_num_computed_tokens(self, num_new_computed_tokens: int) -> None:
        """Record that more tokens ran.

        Raises
        ------
        ValueError
            If the total would be negative or more than the sequence holds.
        """
        total = self._num_computed_tokens + num_new_computed_tokens
        if not 0 <= total <= self.get_len():
            raise ValueError(
                f"{total} computed tokens is outside 0..{self.get_len()}: "
                f"{self._num_computed_tokens} were computed, {num_new_computed_tokens} were added."
            )
        self._num_computed_tokens = total
        if self.get_num_uncomputed_tokens() == 0:
            self._stage = SequenceStage.DECODE

    def reset_state_for_recompute(self) -> None:
        """Forget what was computed: the sequence lost its blocks and starts over."""
        self._num_computed_tokens = 0
        self._stage = SequenceStage.PREFILL

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SequenceData):
            return NotImplemented
        return (
            self._prompt_token_ids == other._prompt_token_ids
            and self._output_token_ids == other._output_token_ids
            and self._num_computed_tokens == other._num_computed_tokens
        )

    # Mutable and compared by value.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"SequenceData(prompt tokens={self.get_prompt_len()}, "
            f"output tokens={self.get_output_len()}, computed={self._num_computed_tokens})"
        )


@dataclass(frozen=True, slots=True)
class SampledToken:
    """What was sampled for one row of logits.

    Parameters
    ----------
    token_id
        The sampled token.
    logprobs
        The sampled token's and the best tokens' log probabilities by id, if asked for.
    """

    token_id: int
    logprobs: Mapping[int, Logprob] | None = None


@dataclass(frozen=True, slots=True)
class SamplerOutput:
    """What a model's ``sample`` returns: one token a row of logits, in the rows' order."""

    outputs: Sequence[SampledToken] = ()

    def __len__(self) -> int:
        return len(self.outputs)

    def __getitem__(self, index: int) -> SampledToken:
        return self.outputs[index]

    def __iter__(self) -> Iterator[SampledToken]:
        return iter(self.outputs)


@dataclass(slots=True)
class IntermediateTensors:
    """Tensors that one pipeline stage hands to the next, by name."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @overload
    def __getitem__(self, key: str) -> torch.Tensor: ...
    @overload
    def __getitem__(self, key: slice) -> IntermediateTensors: ...
    def __getitem__(self, key: str | slice) -> torch.Tensor | IntermediateTensors:
        if isinstance(key, str):
            return self.tensors[key]
        return IntermediateTensors({name: t[key] for name, t in self.tensors.items()})

    def __setitem__(self, key: str, value: torch.Tensor) -> None:
        self.tensors[key] = value

    def __len__(self) -> int:
        return len(self.tensors)
