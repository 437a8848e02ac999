"""What a model class may implement, and checks for it.

The interfaces are structural: a class that has the flag and the methods implements one, whether it
inherits from it or not. Signatures are not checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeGuard, runtime_checkable

if TYPE_CHECKING:
    import torch

    from mmcore.config import MultiModalConfig

__all__ = [
    "FixedMediaInput",
    "HasInnerState",
    "SupportsEncoderSplit",
    "SupportsLoRA",
    "SupportsMultiModal",
    "SupportsPP",
    "SupportsVision",
    "fixed_media_input",
    "has_inner_state",
    "supports_encoder_split",
    "supports_lora",
    "supports_multimodal",
    "supports_pp",
    "supports_vision",
]


@runtime_checkable
class SupportsMultiModal(Protocol):
    """A model that takes media: one keyword of ``forward`` for each media tensor.

    The flag is inherited; a subclass need not set it again.
    """

    supports_multimodal: ClassVar[Literal[True]] = True

    def __init__(self, *, multimodal_config: MultiModalConfig) -> None: ...


@runtime_checkable
class SupportsVision(SupportsMultiModal, Protocol):
    """The older name of :class:`SupportsMultiModal`."""

    supports_vision: ClassVar[Literal[True]] = True

    def __init__(self, *, multimodal_config: MultiModalConfig) -> None: ...


@runtime_checkable
class SupportsEncoderSplit(Protocol):
    """The extended level: the engine runs the encoder apart from the decoder.

    Such a model gets the encoder cache, chunked prefill inside an item, and the prefix cache over
    media.
    """

    def embed_multimodal(self, **kwargs: Any) -> Sequence[torch.Tensor]:
        """Encode media: one (rows, hidden) tensor an item, in prompt order."""
        ...

    def embed_input_ids(
        self,
        input_ids: torch.Tensor,
        multimodal_embeddings: Sequence[torch.Tensor] | None = None,
        *,
        is_multimodal: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed tokens, with the rows marked in `is_multimodal` taken from the embeddings."""
        ...


@dataclass(frozen=True, slots=True)
class FixedMediaInput:
    """The only argument of an ``embed_multimodal`` whose items all have one shape.

    Parameters
    ----------
    name
        Of the keyword.
    shape
        Of one item; a batch has one more dimension in front.
    """

    name: str
    shape: tuple[int, ...]


@runtime_checkable
class SupportsLoRA(Protocol):
    """A model that names the layers which adapters may change."""

    supports_lora: ClassVar[Literal[True]] = True

    packed_modules_mapping: ClassVar[dict[str, list[str]]]
    supported_lora_modules: ClassVar[list[str]]
    embedding_modules: ClassVar[dict[str, str]]
    embedding_padding_modules: ClassVar[list[str]]


@runtime_checkable
class SupportsPP(Protocol):
    """A model that can be cut into pipeline stages."""

    supports_pp: ClassVar[Literal[True]] = True

    def make_empty_intermediate_tensors(
        self, batch_size: int, dtype: torch.dtype, device: torch.device
    ) -> Any:
        """Make the tensors that a stage gets from the one before."""
        ...


@runtime_checkable
class HasInnerState(Protocol):
    """A model that keeps state of its own between steps."""

    has_inner_state: ClassVar[Literal[True]] = True


def supports_multimodal(
    model: type[object] | object,
) -> TypeGuard[type[SupportsMultiModal] | SupportsMultiModal]:
    """Tell whether a model class or instance takes media, under either name of the interface."""
    return _flag(model, "supports_multimodal") or _flag(model, "supports_vision")


def fixed_media_input(model: object) -> FixedMediaInput | None:
    """Tell whether a model's encoder may run from CUDA graphs, and what it then reads.

    A model says so with a method ``fixed_media_input() -> FixedMediaInput``: its
    ``embed_multimodal`` launches the same kernels whatever the values are, and has no other effect.
    A subclass with another ``embed_multimodal`` says so for itself.
    """
    said = _definer(type(model), "fixed_media_input")
    if said is None or said is not _definer(type(model), "embed_multimodal"):
        return None
    found: FixedMediaInput | None = model.fixed_media_input()  # type: ignore[attr-defined]
    return found


def _definer(cls: type[object], name: str) -> type[object] | None:
    return next((base for base in cls.__mro__ if name in vars(base)), None)


# The older name of the same check.
supports_vision = supports_multimodal


def supports_encoder_split(
    model: type[object] | object,
) -> TypeGuard[type[SupportsEncoderSplit] | SupportsEncoderSplit]:
    """Tell whether a model has the extended level: ``embed_multimodal`` and ``embed_input_ids``."""
    return all(
        callable(getattr(model, name, None)) for name in ("embed_multimodal", "embed_input_ids")
    )


def supports_lora(model: type[object] | object) -> TypeGuard[type[SupportsLoRA] | SupportsLoRA]:
    """Tell whether a model declares adapters."""
    return _flag(model, "supports_lora")


def supports_pp(model: type[object] | object) -> TypeGuard[type[SupportsPP] | SupportsPP]:
    """Tell whether a model declares pipeline stages."""
    return _flag(model, "supports_pp")


def has_inner_state(
    model: type[object] | object,
) -> TypeGuard[type[HasInnerState] | HasInnerState]:
    """Tell whether a model declares state of its own."""
    return _flag(model, "has_inner_state")


def _flag(model: object, name: str) -> bool:
    return bool(getattr(model, name, False))
