"""INPUT_REGISTRY: dummy data and input processors of model classes.

Registrations are keyed by the exact class: a subclass registers for itself.
"""

from __future__ import annotations

import functools
import logging
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from mmcore.errors import InternalError
from mmcore.inputs.data import TokenInputs
from mmcore.multimodal.items import count_items
from mmcore.multimodal.processor_kwargs import (
    get_allowed_kwarg_only_overrides,
    resolve_mm_processor_kwargs,
)
from mmcore.sequence import SequenceData

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

    from mmcore.config import ModelConfig
    from mmcore.multimodal.base import MultiModalDataDict
    from mmcore.multimodal.placeholders import MultiModalPlaceholderDict
    from mmcore.multimodal.registry import MultiModalRegistry

__all__ = [
    "DummyData",
    "DummyDataFactory",
    "InputContext",
    "InputProcessingContext",
    "InputProcessor",
    "InputRegistry",
]

logger = logging.getLogger(__name__)

C = TypeVar("C", bound="PretrainedConfig")
N = TypeVar("N", bound="type[nn.Module]")


@dataclass(frozen=True)
class InputContext:
    """What the registered functions of a model may look at."""

    model_config: ModelConfig

    @overload
    def get_hf_config(self) -> PretrainedConfig: ...
    @overload
    def get_hf_config(self, hf_config_type: type[C]) -> C: ...
    def get_hf_config(self, hf_config_type: type[Any] | None = None) -> Any:
        """Give the checkpoint's configuration.

        Raises
        ------
        TypeError
            If it is not of the given type.
        """
        hf_config = self.model_config.hf_config
        if hf_config_type is not None and not isinstance(hf_config, hf_config_type):
            raise TypeError(
                "Invalid type of HuggingFace config. "
                f"Expected type: {hf_config_type}, but found type: {type(hf_config)}"
            )
        return hf_config

    def get_hf_image_processor_config(self) -> dict[str, Any]:
        """Give the content of the checkpoint's preprocessor_config.json."""
        return self.model_config.hf_image_processor_config


@dataclass(frozen=True)
class InputProcessingContext(InputContext):
    """An :class:`InputContext` for functions that also need the tokenizer."""

    tokenizer: PreTrainedTokenizerBase = field(kw_only=True)

    def get_hf_processor(self, **kwargs: Any) -> ProcessorMixin:
        """Give the checkpoint's Hugging Face processor, cached."""
        from mmcore.multimodal.hf_processor import cached_get_processor

        processor: ProcessorMixin = cached_get_processor(
            self.model_config.model,
            revision=self.model_config.revision,
            trust_remote_code=self.model_config.trust_remote_code,
            **kwargs,
        )
        return processor


@dataclass(frozen=True, slots=True)
class DummyData:
    """What a dummy-data factory gives. Unpacks into the first two."""

    seq_data: SequenceData
    multi_modal_data: MultiModalDataDict | None = None
    multi_modal_placeholders: MultiModalPlaceholderDict | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.seq_data, self.multi_modal_data))


class DummyDataFactory(Protocol):
    """Makes the largest prompt that the engine may meet: the upper bound on memory.

    Placeholders must be expanded already; no input processor runs on dummy data.
    """

    def __call__(
        self,
        ctx: InputContext,
        seq_len: int,
        mm_counts: Mapping[str, int],
        **mm_processor_kwargs: Any,
    ) -> tuple[SequenceData, MultiModalDataDict | None] | DummyData:
        """Make a prompt of `seq_len` tokens with `mm_counts` items of each modality."""
        ...


InputProcessor = Callable[..., TokenInputs]
"""``(ctx, inputs, **mm_processor_kwargs)`` -> new inputs with expanded placeholders."""


class _MultiModalCounts(UserDict[str, int]):
    """Item counts whose missing keys explain themselves."""

    def __getitem__(self, key: str) -> int:
        try:
            return self.data[key]
        except KeyError:
            raise KeyError(
                f"There is no multi-modal plugin with the key: {key}. "
                f"Available keys: {set(self.data)}"
            ) from None


class InputRegistry:
    """Keeps dummy-data factories and input processors by model class."""

    def __init__(self) -> None:
        self._dummy_factories_by_model_type: dict[type, Any] = {}
        self._dummy_encoder_factories_by_model_type: dict[type, Any] = {}
        self._input_processors_by_model_type: dict[type, InputProcessor] = {}

    def register_dummy_data(self, factory: Any) -> Callable[[N], N]:
        """Decorate a model class with its :class:`DummyDataFactory`."""
        return self._register(self._dummy_factories_by_model_type, factory, "dummy data")

    def register_dummy_encoder_data(self, factory: Any) -> Callable[[N], N]:
        """Decorate an encoder-decoder model class with the factory of its encoder's prompt."""
        return self._register(
            self._dummy_encoder_factories_by_model_type, factory, "dummy encoder data"
        )

    def register_input_processor(self, processor: InputProcessor) -> Callable[[N], N]:
        """Decorate a model class with the function that expands its placeholders."""
        return self._register(self._input_processors_by_model_type, processor, "input processor")

    @staticmethod
    def _register(table: dict[type, Any], value: Any, what: str) -> Callable[[N], N]:
        def wrapper(model_cls: N) -> N:
            if model_cls in table:
                logger.warning(
                    "Model class %s already has %s registered to %s. "
                    "It is overwritten by the new one.",
                    model_cls,
                    what,
                    table[model_cls],
                )
            table[model_cls] = value
            return model_cls

        return wrapper

    def _default_dummy_data_factory(
        self, ctx: InputContext, seq_len: int, mm_counts: Mapping[str, int]
    ) -> tuple[SequenceData, MultiModalDataDict | None]:
        return SequenceData.from_prompt_token_counts((0, seq_len)), None

    def _get_dummy_data_factory(self, model_cls: type[nn.Module]) -> Any:
        return self._dummy_factories_by_model_type.get(model_cls, self._default_dummy_data_factory)

    def _get_dummy_encoder_data_factory(self, model_cls: type[nn.Module]) -> Any:
        # Without one of its own, the encoder's prompt is like the decoder's.
        factory = self._dummy_encoder_factories_by_model_type.get(model_cls)
        return self._get_dummy_data_factory(model_cls) if factory is None else factory

    def dummy_data_for_profiling(
        self,
        model_config: ModelConfig,
        seq_len: int,
        mm_registry: MultiModalRegistry,
        is_encoder_data: bool = False,
    ) -> DummyData:
        """Make the prompt that the memory plan is checked with.

        Raises
        ------
        AssertionError
            If the model's factory gives fewer tokens or fewer items than asked for: profiling
            would then be no upper bound.
        """
        model_cls = model_config.get_model_cls()
        factory = (
            self._get_dummy_encoder_data_factory(model_cls)
            if is_encoder_data
            else self._get_dummy_data_factory(model_cls)
        )
        mm_counts = mm_registry.get_mm_limits_per_prompt(model_config)
        kwargs = get_allowed_kwarg_only_overrides(
            factory, overrides=model_config.mm_processor_kwargs
        )
        made = factory(InputContext(model_config), seq_len, _MultiModalCounts(mm_counts), **kwargs)
        dummy = made if isinstance(made, DummyData) else DummyData(*made)

        num_tokens = dummy.seq_data.get_prompt_len()
        if num_tokens < seq_len:
            message = (
                f"Expected at least {seq_len} dummy tokens for profiling, "
                f"but found {num_tokens} tokens instead."
            )
            if not is_encoder_data:
                raise AssertionError(message)
            _warn_once(message)
        for modality, data in (dummy.multi_modal_data or {}).items():
            num_items = count_items(modality, data)
            num_expected = mm_counts[modality]
            if num_items < num_expected:
                raise AssertionError(
                    f"Expected at least {num_expected} dummy '{modality}' instances for "
                    f"profiling, but found {num_items} instances instead."
                )
        return dummy

    def _default_input_processor(self, ctx: InputContext, inputs: TokenInputs) -> TokenInputs:
        return inputs

    def _get_model_input_processor(self, model_cls: type[nn.Module]) -> InputProcessor:
        return self._input_processors_by_model_type.get(model_cls, self._default_input_processor)

    def process_input(self, model_config: ModelConfig, inputs: TokenInputs) -> TokenInputs:
        """Run the model's input processor; inputs of a model without one come back as they are.

        The prompt's ``mm_processor_kwargs`` win over the engine's.
        """
        processor = self._get_model_input_processor(model_config.get_model_cls())
        kwargs = resolve_mm_processor_kwargs(
            model_config.mm_processor_kwargs, inputs.get("mm_processor_kwargs"), processor
        )
        processed = processor(InputContext(model_config), inputs, **kwargs)
        if processed is None:
            raise InternalError(
                f"The input processor {processor} returned None; it must return the inputs.",
                code="processor_error",
            )
        return processed

    def create_input_processor(
        self, model_config: ModelConfig
    ) -> Callable[[TokenInputs], TokenInputs]:
        """Bind :meth:`process_input` to a model."""
        return functools.partial(self.process_input, model_config)


@functools.lru_cache(maxsize=128)
def _warn_once(message: str) -> None:
    logger.warning(message)
