"""LLM: offline generation from a list of prompts."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from mmcore.beam_search import BeamSearchOutput, BeamSearchParams
from mmcore.engine.arg_utils import EngineArgs
from mmcore.engine.llm_engine import LLMEngine
from mmcore.engine.prompts_ahead import PromptsAhead
from mmcore.entrypoints.chat import ChatPrompts
from mmcore.errors import MmcoreError, ValidationError
from mmcore.outputs import RequestOutput
from mmcore.sampling_params import RequestOutputKind, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mmcore.entrypoints.chat import Message
    from mmcore.inputs import PromptType

__all__ = ["LLM"]

logger = logging.getLogger(__name__)

OnError = Literal["raise", "return"]


class LLM:
    """A model for offline use: hand it prompts, get the generated texts.

    Parameters
    ----------
    model
        A folder with config.json and safetensors files, or a hub name.
    allowed_local_media_path
        Folder below which chat messages may name local files with ``file://`` URLs. None refuses
        them.
    **kwargs
        Any option of :class:`~mmcore.engine.arg_utils.EngineArgs`, such as ``max_model_len``,
        ``dtype`` or ``limit_mm_per_prompt={"image": 2}``.

    Examples
    --------
    >>> llm = LLM("path/to/llava", limit_mm_per_prompt={"image": 1})
    >>> prompt = {"prompt": "USER: <image>\\nWhat is it?\\nASSISTANT:",
    ...           "multi_modal_data": {"image": picture}}
    >>> llm.generate(prompt, SamplingParams(temperature=0, max_tokens=64))[0].outputs[0].text
    """

    def __init__(
        self,
        model: str,
        tokenizer: str | None = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: Any = "auto",
        quantization: str | None = None,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        seed: int = 0,
        gpu_memory_utilization: float = 0.9,
        mm_processor_kwargs: dict[str, Any] | None = None,
        *,
        allowed_local_media_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        args = EngineArgs.from_kwargs(
            model=model,
            tokenizer=tokenizer,
            tokenizer_mode=tokenizer_mode,
            skip_tokenizer_init=skip_tokenizer_init,
            trust_remote_code=trust_remote_code,
            tensor_parallel_size=tensor_parallel_size,
            dtype=dtype,
            quantization=quantization,
            revision=revision,
            tokenizer_revision=tokenizer_revision,
            seed=seed,
            gpu_memory_utilization=gpu_memory_utilization,
            mm_processor_kwargs=mm_processor_kwargs,
            **kwargs,
        )
        self.llm_engine = LLMEngine.from_engine_args(args)
        self._request_counter = itertools.count()
        self._allowed_local_media_path = allowed_local_media_path
        self._chat: ChatPrompts | None = None

    def get_tokenizer(self) -> PreTrainedTokenizerBase:
        """Give the tokenizer."""
        return self.llm_engine.get_tokenizer()

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType] | None = None,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        prompt_token_ids: list[int] | list[list[int]] | None = None,
        use_tqdm: bool = True,
        lora_request: Any = None,
        prompt_adapter_request: Any = None,
        guided_options_request: Any = None,
        priority: Sequence[int] | None = None,
        *,
        timeout: float | None = None,
        errors: OnError = "raise",
    ) -> list[RequestOutput]:
        """Generate from prompts, which run together.

        A bad prompt never harms the others: they are finished first, whatever `errors` says.

        Parameters
        ----------
        prompts
            A prompt or a list of them: strings, ``{"prompt": ...}`` or
            ``{"prompt_token_ids": ...}``, with ``"multi_modal_data"`` if they have media.
        sampling_params
            For all prompts, or one for each; the defaults if left out.
        prompt_token_ids
            Token ids instead of `prompts`, as in older scripts.
        use_tqdm
            Show the progress.
        priority
            One number a prompt, smaller runs first; needs ``scheduling_policy="priority"``.
        timeout
            Seconds after which a prompt that is not finished ends with a
            :class:`~mmcore.RequestTimeoutError`.
        errors
            What to do about prompts that failed: ``"raise"`` the first error, or ``"return"`` an
            output with :attr:`~mmcore.outputs.RequestOutput.error` in its place.

        Returns
        -------
        list
            One output a prompt, in the prompts' order.

        Raises
        ------
        MmcoreError
            With ``errors="raise"``: the error of the first prompt that failed, of whatever class
            it is (TypeError for what is no prompt at all). Its attribute ``outputs`` holds the
            outputs of *all* prompts, those that failed with their ``error``.
        """
        for name, value in (
            ("lora_request", lora_request),
            ("prompt_adapter_request", prompt_adapter_request),
            ("guided_options_request", guided_options_request),
        ):
            if value is not None:
                raise ValidationError(f"{name} is not supported.", code="unsupported")
        if errors not in ("raise", "return"):
            raise ValidationError(f'errors must be "raise" or "return", got {errors!r}.')
        inputs = _as_list(prompts, prompt_token_ids)
        params = _one_each("sampling_params", sampling_params, len(inputs), SamplingParams())
        priorities = _one_each("priority", priority, len(inputs), 0)
        return self._run(inputs, params, priorities, use_tqdm, errors, timeout)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        lora_request: Any = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
        *,
        errors: OnError = "raise",
    ) -> list[RequestOutput]:
        """Generate the next message of one or several conversations.

        Parameters
        ----------
        messages
            A conversation, or a list of them. The content of a message is a string or a list of
            parts: ``{"type": "text", "text": ...}``, ``{"type": "image_url", "image_url":
            {"url": ...}}`` (http, https, data, or file below the allowed folder), or ``{"type":
            "image", "image": <Pillow image>}``. Media stay where they stand in the message.
        chat_template
            A Jinja template, or a file that holds one; the checkpoint's own if left out.
        add_generation_prompt
            End with the header of the assistant's turn.
        continue_final_message
            Go on with the last message instead of beginning a new one.
        tools
            Passed on to the template.
        errors
            As for :meth:`generate`.
        """
        if self._chat is None:
            self._chat = ChatPrompts(
                self.llm_engine.get_model_config(),
                self.get_tokenizer(),
                allowed_local_media_path=self._allowed_local_media_path,
            )
        conversations = _conversations(messages)
        prompts: list[Any] = []
        for conversation in conversations:
            try:
                prompts.append(
                    self._chat.render(
                        conversation,
                        chat_template=chat_template,
                        add_generation_prompt=add_generation_prompt,
                        continue_final_message=continue_final_message,
                        tools=tools,
                        mm_processor_kwargs=mm_processor_kwargs,
                    )
                )
            except (MmcoreError, TypeError) as error:
                prompts.append(error)
        if lora_request is not None:
            raise ValidationError("lora_request is not supported.", code="unsupported")
        params = _one_each("sampling_params", sampling_params, len(prompts), SamplingParams())
        return self._run(prompts, params, [0] * len(prompts), use_tqdm, errors)

    def beam_search(
        self,
        prompts: PromptType | Sequence[PromptType],
        params: BeamSearchParams,
        lora_request: Any = None,
        use_tqdm: bool = False,
    ) -> list[BeamSearchOutput]:
        """Search for the most likely continuations of prompts, which run together.

        Parameters
        ----------
        prompts
            As for :meth:`generate`, with images or without.
        params
            For all prompts.
        use_tqdm
            Accepted; there is no progress to show before the search ends.

        Returns
        -------
        list
            One output a prompt, with ``beam_width`` sequences or as many as were found, best first.

        Raises
        ------
        MmcoreError
            Of the first prompt that cannot be served; nothing of the others goes on.
        """
        from mmcore.entrypoints.beam_prompts import BeamPrompts

        if not isinstance(params, BeamSearchParams):
            raise ValidationError(f"params must be BeamSearchParams, got {type(params).__name__}.")
        if lora_request is not None:
            raise ValidationError("lora_request is not supported.", code="unsupported")
        return BeamPrompts(self.llm_engine, _as_list(prompts, None), params).run()

    def encode(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Refuse: pooling models are not supported."""
        raise ValidationError(
            "encode() needs a pooling model, and this version runs generating models only.",
            code="unsupported",
        )

    def _run(
        self,
        prompts: Sequence[Any],
        params: Sequence[SamplingParams],
        priorities: Sequence[int],
        use_tqdm: bool,
        errors: OnError,
        timeout: float | None = None,
    ) -> list[RequestOutput]:
        """Add all prompts, run until nothing is left, and put the outputs in order.

        An exception in `prompts` stands for a prompt that could not even be made.
        """
        engine, started = self.llm_engine, time.time()
        places: dict[str, int] = {}
        outputs: list[RequestOutput | None] = [None] * len(prompts)
        refused: dict[int, Exception] = {}

        def add(place: int, prompt: Any) -> None:
            request_id = str(next(self._request_counter))
            try:
                if isinstance(prompt, Exception):
                    raise prompt
                final = params[place].clone()
                final.output_kind = RequestOutputKind.FINAL_ONLY
                engine.add_request(
                    request_id, prompt, final, started, priority=priorities[place], timeout=timeout
                )
            except (MmcoreError, TypeError) as error:
                refused[place] = error
                outputs[place] = _refused(request_id, prompts[place], error)
            else:
                places[request_id] = place

        try:
            with PromptsAhead(engine, prompts, params, at_once=timeout is not None) as waiting:
                more = waiting.submit(add)
                count = len(prompts) - len(refused)
                for output in self._finish(
                    count, use_tqdm, (lambda: waiting.submit(add)) if more else None
                ):
                    # An earlier call that was interrupted may have left the outputs of its aborts.
                    if output.request_id in places:
                        outputs[places[output.request_id]] = output
        except BaseException:
            # Interrupted: nothing of this call may go on in the next one.
            engine.abort_request(places)
            raise
        finished = cast("list[RequestOutput]", outputs)
        if errors == "raise":
            for place, output in enumerate(finished):
                failure = refused.get(place, output.error)
                if failure is not None:
                    failure.outputs = finished  # type: ignore[attr-defined]
                    raise failure
        return finished

    def _finish(
        self, num_requests: int, use_tqdm: bool, submit: Callable[[], bool] | None
    ) -> list[RequestOutput]:
        """Run until nothing is left; `submit` is called between steps as long as it has more."""
        progress: Any = None
        if use_tqdm and num_requests:
            progress = _progress_bar(num_requests)
        outputs = []
        tokens = 0
        while submit is not None or self.llm_engine.has_unfinished_requests():
            for output in self.llm_engine.step():
                if not output.finished:
                    continue
                outputs.append(output)
                if progress is not None:
                    tokens += sum(len(c.token_ids) for c in output.outputs)
                    elapsed = progress.format_dict["elapsed"] or 1e-9
                    progress.postfix = f"{tokens / elapsed:.1f} tokens/s"
                    progress.update(1)
            if submit is not None and not submit():
                submit = None
        if progress is not None:
            progress.close()
        return outputs


def _progress_bar(total: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc="Processed prompts", dynamic_ncols=True)


def _as_list(prompts: Any, prompt_token_ids: Any) -> list[Any]:
    if prompt_token_ids is not None:
        ids = prompt_token_ids
        if ids and isinstance(ids[0], int):
            ids = [ids]
        if prompts is None:
            return [{"prompt_token_ids": one} for one in ids]
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if len(texts) != len(ids):
            raise ValidationError(
                f"Got {len(texts)} prompts and {len(ids)} lists of prompt_token_ids; "
                "give as many of each."
            )
        return [
            {"prompt": text, "prompt_token_ids": one} for text, one in zip(texts, ids, strict=True)
        ]
    if prompts is None:
        raise ValidationError("Either prompts or prompt_token_ids must be provided.")
    if isinstance(prompts, (str, Mapping)):
        return [prompts]
    if not isinstance(prompts, Sequence) or isinstance(prompts, (bytes, bytearray)):
        raise TypeError(
            f"prompts must be a prompt or a list of prompts, got {type(prompts).__name__}"
        )
    if prompts and all(isinstance(token, int) for token in prompts):
        return [{"prompt_token_ids": list(prompts)}]
    return list(prompts)


def _one_each(name: str, values: Any, count: int, default: Any) -> list[Any]:
    if values is None:
        return [default] * count
    if isinstance(values, SamplingParams):
        return [values] * count
    if not isinstance(values, Sequence) or len(values) != count:
        size = len(values) if isinstance(values, Sequence) else values
        raise ValidationError(
            f"The lengths of prompts ({count}) and {name} ({size}) must be the same."
        )
    return list(values)


def _conversations(messages: Any) -> list[Any]:
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)) or not messages:
        raise ValidationError(
            "messages must be a conversation (a non-empty list of messages) or a list of "
            f"conversations, got {messages!r:.100}."
        )
    if isinstance(messages[0], Mapping):
        return [messages]
    return list(messages)


def _refused(request_id: str, prompt: Any, error: Exception) -> RequestOutput:
    text = prompt if isinstance(prompt, str) else None
    if isinstance(prompt, Mapping) and isinstance(prompt.get("prompt"), str):
        text = prompt["prompt"]
    known = error if isinstance(error, MmcoreError) else ValidationError(str(error))
    known.request_id = request_id
    if known is not error:
        known.__cause__ = error
    return RequestOutput(
        request_id=request_id,
        prompt=text,
        prompt_token_ids=None,
        prompt_logprobs=None,
        outputs=[],
        finished=True,
        error=known,
    )
