"""A runner without a model: it answers each sample with a function of what came before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmcore import _C

VOCAB_SIZE = 100


class FakeRunner:
    """Generates (last token + 1) % VOCAB_SIZE, and keeps copies of the plans that it saw."""

    def __init__(self, before: Callable[[Any], Any] | None = None) -> None:
        self.before = before
        self.plans: list[dict[str, Any]] = []
        self.released: list[int] = []
        self.plan: Any = None

    def execute(self, plan: Any) -> Any:
        self.plan = plan
        self.plans.append(
            {
                "sequences": plan.sequences.copy(),
                "token_ids": plan.token_ids.tolist(),
                "positions": plan.positions.tolist(),
                "slot_mapping": plan.slot_mapping.tolist(),
                "query_start": plan.query_start.tolist(),
                "seq_lens": plan.seq_lens.tolist(),
                "block_tables": plan.block_tables.copy(),
                "encode": plan.encode.tolist(),
                "embeddings": plan.embeddings.tolist(),
                "evict": plan.evict.tolist(),
                "host_saves": plan.host_saves.tolist(),
                "host_loads": plan.host_loads.tolist(),
                "block_copies": plan.block_copies.tolist(),
            }
        )
        if self.before is not None:
            answer = self.before(plan)
            if answer is not None:
                return answer
        plan.set_tokens([(int(plan.token_ids[row]) + 1) % VOCAB_SIZE for row in plan.sample_rows])
        return None

    def release(self, request_id: int) -> None:
        self.released.append(request_id)


def config(**changes: Any) -> Any:
    """A small engine's configuration."""
    made = _C.EngineConfig()
    made.num_blocks = 64
    made.max_model_len = 256
    made.vocab_size = VOCAB_SIZE
    made.hash_key = 1
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def request(ids: list[int], *, max_tokens: int = 4, media: Any = (), **changes: Any) -> Any:
    """A greedy request."""
    params = _C.SamplingParams()
    params.temperature = 0.0
    params.max_tokens = max_tokens
    for name, value in changes.items():
        setattr(params, name, value)
    return _C.Request(ids, list(media), params)


def run(engine: Any) -> dict[int, list[Any]]:
    """Run until nothing is left; the outputs of each request in order."""
    outputs: dict[int, list[Any]] = {}
    for _ in range(10_000):
        for output in engine.take_outputs():
            outputs.setdefault(output.id, []).append(output)
        if not engine.has_unfinished():
            return outputs
        engine.step()
    raise AssertionError("the engine does not come to an end")


def tokens(outputs: list[Any]) -> list[int]:
    """All tokens of one request."""
    return [token for output in outputs for token in output.tokens]
