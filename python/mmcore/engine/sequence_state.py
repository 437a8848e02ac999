"""One generated sequence of a request, as it grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmcore import _C
from mmcore.engine.detokenizer import IncrementalDecoder, StopStrings
from mmcore.outputs import CompletionOutput, Logprob
from mmcore.sampling_params import RequestOutputKind

if TYPE_CHECKING:
    from mmcore.engine.tokenizer import TokenizerAdapter
    from mmcore.sampling_params import SamplingParams

__all__ = ["SequenceState", "to_logprobs"]

_REASONS = {
    _C.FinishReason.STOP: "stop",
    _C.FinishReason.LENGTH: "length",
    _C.FinishReason.ABORTED: "abort",
    _C.FinishReason.ERROR: "error",
}


def to_logprobs(
    alternatives: Sequence[tuple[int, float, int]], adapter: TokenizerAdapter | None
) -> dict[int, Logprob]:
    """Turn the core's (token, logprob, rank) into a dictionary; the sampled token comes first."""
    return {
        token: Logprob(logprob, rank, None if adapter is None else adapter.token_text(token))
        for token, logprob, rank in alternatives
    }


class SequenceState:
    """Collects the tokens of one sequence and turns them into text.

    Parameters
    ----------
    index
        Place among the request's sequences.
    params
        The request's sampling parameters.
    prompt_token_ids
        The prompt; its last ids are context for the first generated ones.
    adapter
        The tokenizer; None leaves the text empty.
    """

    __slots__ = (
        "_adapter",
        "_decode_late",
        "_decoder",
        "_emitted_chars",
        "_emitted_tokens",
        "_params",
        "_stops",
        "_wants_logprobs",
        "cumulative_logprob",
        "finish_reason",
        "index",
        "logprobs",
        "stop_reason",
        "text",
        "token_ids",
    )

    def __init__(
        self,
        index: int,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        adapter: TokenizerAdapter | None,
    ) -> None:
        self.index = index
        self.text = ""
        self.token_ids: list[int] = []
        self.logprobs: list[dict[int, Logprob]] | None = None if params.logprobs is None else []
        self.cumulative_logprob: float | None = None
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self._params = params
        self._adapter = adapter if params.detokenize else None
        self._decoder: IncrementalDecoder | None = None
        if self._adapter is not None:
            self._decoder = IncrementalDecoder(
                self._adapter, prompt_token_ids, params.skip_special_tokens
            )
        self._stops = StopStrings(params.stop) if params.stop else None
        # Nobody looks at the text before the end: then all of it is decoded at once.
        self._decode_late = (
            self._stops is None and params.output_kind is RequestOutputKind.FINAL_ONLY
        )
        self._wants_logprobs = params.logprobs is not None or params.real_n < params.n
        self._emitted_chars = 0
        self._emitted_tokens = 0

    @property
    def finished(self) -> bool:
        """Whether no more tokens will come."""
        return self.finish_reason is not None

    def apply(self, output: _C.EngineOutput) -> bool:
        """Take what the core says of this sequence.

        Returns
        -------
        bool
            True if a stop string ended the sequence and the core does not know yet.
        """
        tokens = output.tokens
        if self._wants_logprobs:
            self._add_logprobs(output)
        if not output.finished:
            return self._add_tokens(tokens, len(tokens))
        # The text of the token that stopped the sequence is no part of the answer.
        stopped = output.finish_reason == _C.FinishReason.STOP
        hides_last = stopped and not self._params.include_stop_str_in_output
        if self._add_tokens(tokens, len(tokens) - hides_last):
            return False
        # What the decoder held back may complete a stop string.
        if self._decoder is not None and self._add_text(self._decoder.flush()):
            return False
        self.finish_reason = _REASONS[output.finish_reason]
        if output.stop_token >= 0:
            self.stop_reason = output.stop_token
        return False

    def _add_tokens(self, tokens: Sequence[int], num_shown: int) -> bool:
        """Add tokens, and the text of the first ones; True if that completes a stop string."""
        if self._decoder is None or self._decode_late:
            self.token_ids += tokens
            if self._decoder is not None:
                self._decoder.extend(tokens[:num_shown])
            return False
        for position, token in enumerate(tokens):
            self.token_ids.append(token)
            if position < num_shown and self._add_text(self._decoder.append(token)):
                return True
        return False

    def end_with(self, finish_reason: str) -> None:
        """End the sequence from outside, without news from the core."""
        if self.finish_reason is None:
            self.finish_reason = finish_reason

    def _add_text(self, new: str) -> bool:
        """Add text; True if it completes a stop string, which ends the sequence."""
        if not new:
            return False
        self.text += new
        if self._stops is None or len(self.token_ids) < self._params.min_tokens:
            return False
        match = self._stops.find(self.text, len(new))
        if match is None:
            return False
        keep = match.end if self._params.include_stop_str_in_output else match.start
        self.text = self.text[:keep]
        self.finish_reason = "stop"
        self.stop_reason = match.stop
        return True

    def _add_logprobs(self, output: _C.EngineOutput) -> None:
        for alternatives in output.logprobs:
            if not alternatives:
                continue
            self.cumulative_logprob = (self.cumulative_logprob or 0.0) + alternatives[0][1]
            if self.logprobs is not None:
                self.logprobs.append(to_logprobs(alternatives, self._adapter))

    def _visible_chars(self) -> int:
        if self._stops is None or self.finished:
            return len(self.text)
        return len(self.text) - self._stops.held_back(self.text)

    def cumulative(self, index: int) -> CompletionOutput:
        """Give everything so far, under the place `index`."""
        return CompletionOutput(
            index=index,
            text=self.text[: self._visible_chars()],
            token_ids=list(self.token_ids),
            cumulative_logprob=self.cumulative_logprob,
            logprobs=None if self.logprobs is None else list(self.logprobs),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )

    def delta(self) -> CompletionOutput:
        """Give what is new since the last call."""
        chars, tokens = self._emitted_chars, self._emitted_tokens
        self._emitted_chars = self._visible_chars()
        self._emitted_tokens = len(self.token_ids)
        return CompletionOutput(
            index=self.index,
            text=self.text[chars : self._emitted_chars],
            token_ids=self.token_ids[tokens:],
            cumulative_logprob=self.cumulative_logprob,
            logprobs=None if self.logprobs is None else self.logprobs[tokens:],
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )
