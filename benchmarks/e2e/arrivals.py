"""What a new picture costs those that are being answered: gaps between their tokens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcore import LLMEngine

__all__ = ["measure_arrivals"]

_STEPS_BETWEEN = 6
_NEWCOMER_TOKENS = 3


def measure_arrivals(
    name: str, engine: LLMEngine, prompts: Callable[[int], list[Any]], running: int, arrivals: int
) -> dict[str, Any]:
    """Let requests run, and others come one by one.

    Parameters
    ----------
    prompts
        Gives so many new ones.
    running
        Requests that run all the time.
    arrivals
        Requests that come, each when the one before it has ended.

    Returns
    -------
    dict
        Milliseconds, medians over the arrivals: between two tokens of those that run, when nobody
        comes; the longest of a newcomer's time; and from its coming to its first token.
    """
    from mmcore import SamplingParams

    def params(max_tokens: int) -> Any:
        return SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)

    tokens = (arrivals + 1) * (_STEPS_BETWEEN + _NEWCOMER_TOKENS + 8) + 2 * running
    names = [f"running {i}" for i in range(running)]
    for one, prompt in zip(names, prompts(running), strict=True):
        engine.add_request(one, prompt, params(tokens))
    begun: set[str] = set()
    while len(begun) < running:
        begun.update(output.request_id for output in engine.step())

    quiet: list[float] = []
    longest: list[float] = []
    first_token: list[float] = []
    for number in range(arrivals):
        newcomer, [prompt] = f"newcomer {number}", prompts(1)
        for _ in range(2):  # what the last newcomer left behind
            engine.step()
        last = time.perf_counter()
        for _ in range(_STEPS_BETWEEN):
            engine.step()
            now = time.perf_counter()
            quiet.append(now - last)
            last = now
        gaps, answered, ended = [], 0.0, False
        came = time.perf_counter()
        engine.add_request(newcomer, prompt, params(_NEWCOMER_TOKENS))
        while not ended:
            outputs = {output.request_id: output for output in engine.step()}
            now = time.perf_counter()
            if len(outputs) > 1 or newcomer not in outputs:
                gaps.append(now - last)
                last = now
            if newcomer in outputs:
                answered = answered or now
                ended = outputs[newcomer].finished
        longest.append(max(gaps))
        first_token.append(answered - came)
    engine.abort_request(names)
    while engine.has_unfinished_requests():
        engine.step()
    row = {
        "running": running,
        "arrivals": arrivals,
        "quiet_ms": statistics.median(quiet) * 1e3,
        "longest_ms": statistics.median(longest) * 1e3,
        "first_token_ms": statistics.median(first_token) * 1e3,
    }
    print(
        f"{name}: {running} running, a new picture now and then: {row['quiet_ms']:.2f} ms between "
        f"tokens, {row['longest_ms']:.2f} at most when one comes, whose first token takes "
        f"{row['first_token_ms']:.2f} ms",
        flush=True,
    )
    return {"engine": name, **row}
