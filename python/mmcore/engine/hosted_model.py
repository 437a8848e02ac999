"""A model of this package for an engine that a C++ program owns (docs/embedding.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcore import _C
from mmcore.engine.arg_utils import EngineArgs
from mmcore.engine.input_preprocessor import MediaItem
from mmcore.engine.llm_engine import LLMEngine
from mmcore.model_executor.model_runner import ModelRunner, RunnerRequest
from mmcore.sampling_params import SamplingParams

__all__ = ["HostedModel"]


class HostedModel:
    """Prepares requests and runs steps; scheduling, caches and outputs are the host's.

    Parameters
    ----------
    model
        Folder of a checkpoint, or a name that transformers knows.
    **engine_args
        Further fields of :class:`~mmcore.engine.arg_utils.EngineArgs`.
    """

    def __init__(self, model: str, **engine_args: Any) -> None:
        # Its own scheduler stays empty: what is used of it are the model, the plan of memory, the
        # tokenizer and the input processor.
        self._engine = LLMEngine.from_engine_args(EngineArgs(model=model, **engine_args))
        self._runner = _HostedRunner(self._engine.model_runner)

    def config(self) -> Any:
        """Give the engine's configuration, as a capsule."""
        return _C.host_config(self._engine.core_config.to_core())

    def runner(self) -> Any:
        """Give the runner, as a capsule."""
        return _C.host_runner(self._runner)

    def request(self, prompt: str, images: Sequence[tuple[bytes, int, int]] = ()) -> Any:
        """Tokenise a prompt, prepare its pictures, and give the request, as a capsule.

        Parameters
        ----------
        images
            For each placeholder, rows of R, G, B from the top, the width, and the height.

        Raises
        ------
        ValidationError
            Or a subclass: the prompt or a picture cannot be used.
        """
        from PIL import Image

        pictures = [Image.frombytes("RGB", (width, height), rgb) for rgb, width, height in images]
        given: dict[str, Any] = {"prompt": prompt}
        if pictures:
            given["multi_modal_data"] = {"image": pictures}
        processed = self._engine.preprocess(given, SamplingParams())  # type: ignore[arg-type]
        core = _C.Request(processed.token_ids, [item.to_core() for item in processed.items])
        return _C.host_request(core, list(processed.items))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Give the text of generated tokens."""
        return str(self._engine.get_tokenizer().decode(list(token_ids), skip_special_tokens=True))


class _HostedRunner:
    """What the core calls, with requests told by the core instead of by an LLMEngine."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner

    def accept(self, request_id: int, items: Sequence[MediaItem]) -> None:
        self._runner.add_request(request_id, RunnerRequest(items))

    def execute(self, plan: _C.StepPlan) -> Any:
        failures = self._runner.execute(plan)
        self._runner.take_first_scheduled()  # times that nobody reads here
        return failures

    def release(self, request_id: int) -> None:
        self._runner.release(request_id)
