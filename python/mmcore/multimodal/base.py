"""The tensors that go into a model's forward, and what a modality plugs into the registry."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar, Union

from mmcore.errors import ValidationError
from mmcore.multimodal.byte_pixels import BytePixels
from mmcore.multimodal.processor_kwargs import (
    get_allowed_kwarg_only_overrides,
    resolve_mm_processor_kwargs,
)
from mmcore.transfer import to_device

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from PIL import Image
    from torch import nn

    from mmcore.config import ModelConfig
    from mmcore.inputs.registry import InputContext

__all__ = [
    "BatchedTensorInputs",
    "MaxTokensCalc",
    "MultiModalData",
    "MultiModalDataBuiltins",
    "MultiModalDataDict",
    "MultiModalInputMapper",
    "MultiModalInputs",
    "MultiModalKwargs",
    "MultiModalPlugin",
    "NestedTensors",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")
N = TypeVar("N", bound="type[nn.Module]")

# typing.Union, because the members are names that only a type checker resolves.
NestedTensors: TypeAlias = Union["list[NestedTensors]", "list[torch.Tensor]", "torch.Tensor"]
"""A tensor, or lists of tensors where shapes do not allow one."""

BatchedTensorInputs: TypeAlias = dict[str, NestedTensors]
"""Keyword arguments of ``forward`` for a whole batch."""

MultiModalData: TypeAlias = Union[T, "list[T]"]
"""One item, or a list of items."""


class MultiModalDataBuiltins(TypedDict, total=False):
    """The modalities that mmcore knows by itself."""

    image: MultiModalData[Image.Image]
    audio: MultiModalData[tuple[npt.NDArray[np.float32], float]]
    video: MultiModalData[npt.NDArray[np.uint8]]


MultiModalDataDict: TypeAlias = Union[  # noqa: UP007
    MultiModalDataBuiltins, Mapping[str, MultiModalData[object]]
]
"""Media by modality. Other keys than the built-in ones need a plugin."""

MultiModalInputMapper: TypeAlias = Callable[..., "MultiModalInputs"]
"""``(ctx, data, **mm_processor_kwargs)`` -> keyword arguments of ``forward``."""

MaxTokensCalc: TypeAlias = Union[int, "Callable[..., int]"]
"""Tokens of one item at most, or ``(ctx, **mm_processor_kwargs)`` -> that."""


class MultiModalInputs(UserDict[str, NestedTensors]):
    """Keyword arguments of a model's ``forward`` for one prompt's media."""

    @staticmethod
    def _try_stack(nested_tensors: Any) -> Any:
        """Stack, inside out, whatever is a list of tensors of one shape."""
        import numpy as np
        import torch

        if isinstance(nested_tensors, (torch.Tensor, BytePixels)):
            return nested_tensors
        if isinstance(nested_tensors, np.ndarray):
            return torch.from_numpy(nested_tensors)
        if isinstance(nested_tensors, (int, float)):
            return torch.tensor(nested_tensors)
        children = [MultiModalInputs._try_stack(child) for child in nested_tensors]
        if children and all(isinstance(child, BytePixels) for child in children):
            return BytePixels.stack(children) or children
        if not children or not all(isinstance(child, torch.Tensor) for child in children):
            return children
        if any(child.shape != children[0].shape for child in children[1:]):
            return children
        return torch.stack(children)

    @staticmethod
    def batch(inputs_list: Sequence[MultiModalInputs]) -> BatchedTensorInputs:
        """Gather the arguments of several prompts, with a new leading dimension for the prompts.

        An argument that only some prompts have is gathered over those. Where shapes differ, the
        result is a list instead of a tensor.
        """
        gathered: dict[str, list[NestedTensors]] = {}
        for inputs in inputs_list:
            for name, value in inputs.items():
                gathered.setdefault(name, []).append(value)
        return {name: MultiModalInputs._try_stack(values) for name, values in gathered.items()}

    @staticmethod
    def as_kwargs(
        batched_inputs: BatchedTensorInputs, *, device: torch.types.Device
    ) -> BatchedTensorInputs:
        """Move every tensor to a device, and make floats there of pixels that are bytes."""

        def move(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [move(child) for child in value]
            if isinstance(value, BytePixels):
                return value.floats(device)
            return to_device(value, device)

        return {name: move(value) for name, value in batched_inputs.items()}


# The v0.6.4 name of the same class.
MultiModalKwargs = MultiModalInputs


class MultiModalPlugin(ABC):
    """One modality: the input mappers and token counts of the model classes that take it.

    Registrations are keyed by the exact class: a subclass registers for itself.
    """

    def __init__(self) -> None:
        self._input_mappers: dict[type, MultiModalInputMapper] = {}
        self._max_mm_tokens: dict[type, MaxTokensCalc] = {}

    @abstractmethod
    def get_data_key(self) -> str:
        """Give the modality's key in ``multi_modal_data``."""
        raise NotImplementedError

    @abstractmethod
    def _default_input_mapper(
        self, ctx: InputContext, data: MultiModalData[Any], **mm_processor_kwargs: Any
    ) -> MultiModalInputs:
        """Map data for classes that registered no mapper of their own.

        Raises
        ------
        TypeError
            If the data are of a type that is not supported.
        """
        raise NotImplementedError

    @abstractmethod
    def _default_max_multimodal_tokens(self, ctx: InputContext) -> int:
        """Give the tokens of one item for classes that registered no number of their own."""
        raise NotImplementedError

    def register_input_mapper(
        self, mapper: MultiModalInputMapper | None = None
    ) -> Callable[[N], N]:
        """Decorate a model class with its input mapper; None for the modality's default."""

        def wrapper(model_cls: N) -> N:
            if model_cls in self._input_mappers:
                logger.warning(
                    "Model class %s already has an input mapper registered to %s. "
                    "It is overwritten by the new one.",
                    model_cls,
                    self,
                )
            self._input_mappers[model_cls] = mapper or self._default_input_mapper
            return model_cls

        return wrapper

    def has_input_mapper(self, model_cls: type) -> bool:
        """Tell whether a model class, itself and not a parent of it, registered a mapper."""
        return model_cls in self._input_mappers

    def map_input(
        self,
        model_config: ModelConfig,
        data: MultiModalData[Any],
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> MultiModalInputs:
        """Turn data into arguments of the model's ``forward`` with its mapper.

        Raises
        ------
        KeyError
            If the model's class registered none for this modality.
        TypeError
            If the mapper does not support the type of the data.
        """
        model_cls = model_config.get_model_cls()
        mapper = self._input_mappers.get(model_cls)
        if mapper is None:
            raise KeyError(
                f"No input mapper in {self} is registered for model class {model_cls.__name__}."
            )
        # The default mapper hands options on to the Hugging Face processor.
        takes_any = mapper == self._default_input_mapper
        return self._run_mapper(mapper, model_config, data, mm_processor_kwargs, takes_any)

    def map_input_as_bytes(
        self,
        model_config: ModelConfig,
        data: MultiModalData[Any],
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> MultiModalInputs:
        """Do what :meth:`map_input` does, for one who takes BytePixels in place of floats."""
        return self.map_input(model_config, data, mm_processor_kwargs)

    def _run_mapper(
        self,
        mapper: MultiModalInputMapper,
        model_config: ModelConfig,
        data: MultiModalData[Any],
        mm_processor_kwargs: Mapping[str, Any] | None,
        takes_any: bool,
    ) -> MultiModalInputs:
        from mmcore.inputs.registry import InputContext

        kwargs = resolve_mm_processor_kwargs(
            model_config.mm_processor_kwargs,
            mm_processor_kwargs,
            callable=mapper,
            allow_var_kwargs=takes_any,
        )
        return mapper(InputContext(model_config), data, **kwargs)

    def register_max_multimodal_tokens(
        self, max_mm_tokens: MaxTokensCalc | None = None
    ) -> Callable[[N], N]:
        """Decorate a model class with the tokens that one item takes at most.

        None stands for the modality's default.
        """
        if isinstance(max_mm_tokens, int):
            self._validate_max_multimodal_tokens(max_mm_tokens)

        def wrapper(model_cls: N) -> N:
            if model_cls in self._max_mm_tokens:
                logger.warning(
                    "Model class %s already calculates maximum number of tokens in %s. "
                    "It is overwritten by the new one.",
                    model_cls,
                    self,
                )
            self._max_mm_tokens[model_cls] = (
                self._default_max_multimodal_tokens if max_mm_tokens is None else max_mm_tokens
            )
            return model_cls

        return wrapper

    def get_max_multimodal_tokens(self, model_config: ModelConfig) -> int:
        """Give the tokens of one item at most; 0 for a class that does not take this modality.

        Raises
        ------
        KeyError
            If the class has a mapper and no number.
        """
        from mmcore.inputs.registry import InputContext

        model_cls = model_config.get_model_cls()
        if model_cls not in self._input_mappers:
            return 0
        max_mm_tokens = self._max_mm_tokens.get(model_cls)
        if max_mm_tokens is None:
            raise KeyError(
                "No maximum number of multi-modal tokens is given for model class "
                f"{model_cls.__name__} in {self}."
            )
        if callable(max_mm_tokens):
            kwargs = get_allowed_kwarg_only_overrides(
                max_mm_tokens, overrides=model_config.mm_processor_kwargs
            )
            max_mm_tokens = max_mm_tokens(InputContext(model_config), **kwargs)
        self._validate_max_multimodal_tokens(max_mm_tokens)
        return max_mm_tokens

    @staticmethod
    def _validate_max_multimodal_tokens(max_mm_tokens: int) -> None:
        if max_mm_tokens < 1:
            raise ValidationError(
                f"You should set the number of tokens to a positive integer. Found: {max_mm_tokens}"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.get_data_key()!r})"
