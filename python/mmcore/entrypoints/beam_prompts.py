"""Runs beam searches on an engine: a round of one-token requests for each token."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmcore.beam_search import BeamSearch, BeamSearchOutput, BeamSearchSequence
from mmcore.engine.input_preprocessor import ProcessedPrompt
from mmcore.errors import InternalError, ValidationError
from mmcore.sampling_params import RequestOutputKind, SamplingParams

if TYPE_CHECKING:
    from mmcore.beam_search import Beam, BeamSearchParams
    from mmcore.engine.llm_engine import LLMEngine
    from mmcore.inputs import PromptType
    from mmcore.outputs import Logprob

__all__ = ["BeamPrompts"]


class BeamPrompts:
    """The searches of several prompts, which run together.

    A beam of a round is a request for one token behind the prompt and the beam's tokens. The prefix
    cache has all but the last, partly filled block of it, images included.

    Raises
    ------
    ValidationError
        If a prompt cannot be used, or the width needs more log probabilities than the engine gives.
    """

    _ids = itertools.count()

    def __init__(
        self, engine: LLMEngine, prompts: Sequence[PromptType], params: BeamSearchParams
    ) -> None:
        self._engine = engine
        self._params = params
        config = engine.core_config
        limit = min(config.max_model_len, engine.max_servable_tokens())
        self._prompts = [engine.preprocess(prompt, SamplingParams()) for prompt in prompts]
        self._searches = [
            BeamSearch(
                params,
                min(params.max_tokens, limit - len(prompt.token_ids)),
                config.eos_token_ids,
            )
            for prompt in self._prompts
        ]
        for search in self._searches[:1]:
            if search.num_candidates > config.max_logprobs:
                raise ValidationError(
                    f"beam_width={params.beam_width} needs the log probabilities of "
                    f"{search.num_candidates} tokens (the beams and one for each end-of-text "
                    f"token), but max_logprobs is {config.max_logprobs}. Raise max_logprobs when "
                    "initializing the engine, or search with fewer beams."
                )

    def run(self) -> list[BeamSearchOutput]:
        """Search to the end and give the best sequences of each prompt."""
        while any(search.live for search in self._searches):
            self._round()
        return [
            BeamSearchOutput([self._sequence(prompt, beam) for beam in search.best()])
            for prompt, search in zip(self._prompts, self._searches, strict=True)
        ]

    def _round(self) -> None:
        places: dict[str, tuple[int, int]] = {}
        found = [[dict[int, "Logprob"]() for _ in search.live] for search in self._searches]
        try:
            for index, search in enumerate(self._searches):
                for place, beam in enumerate(search.live):
                    name = f"beam-{next(self._ids)}"
                    places[name] = (index, place)
                    self._add(name, self._prompts[index], beam, search.num_candidates)
            waiting = set(places)
            while waiting:
                for output in self._engine.step():
                    if output.request_id not in waiting or not output.finished:
                        continue
                    if output.error is not None:
                        raise output.error
                    waiting.discard(output.request_id)
                    logprobs = output.outputs[0].logprobs
                    if not logprobs:
                        raise InternalError("A beam ended without a token.")
                    index, place = places[output.request_id]
                    found[index][place] = logprobs[0]
        except BaseException:
            # Nothing of this search may go on in the next call.
            self._engine.abort_request(places)
            raise
        for search, candidates in zip(self._searches, found, strict=True):
            if search.live:
                search.advance(candidates)

    def _add(self, name: str, prompt: ProcessedPrompt, beam: Beam, num_candidates: int) -> None:
        logits_size = self._engine.core_config.logits_size
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            ignore_eos=True,
            logprobs=min(num_candidates, logits_size or num_candidates),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        tokens = [*prompt.token_ids, *beam.tokens]
        self._engine.add_request(name, ProcessedPrompt(None, tokens, prompt.items), params)

    def _sequence(self, prompt: ProcessedPrompt, beam: Beam) -> BeamSearchSequence:
        text = None
        if not self._engine.get_model_config().skip_tokenizer_init:
            whole = self._params.include_stop_str_in_output
            shown = beam.tokens if whole or not beam.ended else beam.tokens[:-1]
            tokenizer = self._engine.get_tokenizer()
            text = str(tokenizer.decode(list(shown), skip_special_tokens=not whole))
        return BeamSearchSequence(
            tokens=[*prompt.token_ids, *beam.tokens],
            logprobs=list(beam.logprobs),
            cum_logprob=beam.cum_logprob,
            text=text,
            finish_reason="stop" if beam.ended else "length",
            num_prompt_tokens=len(prompt.token_ids),
        )
