"""From media items to the keyword arguments of a model, through its input mapper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mmcore import _C
from mmcore.errors import InternalError, MediaError, MmcoreError
from mmcore.model_executor.mapped_input_cache import MappedInputCache

if TYPE_CHECKING:
    from mmcore.config import ModelConfig
    from mmcore.multimodal import MultiModalInputs, MultiModalRegistry

__all__ = ["MediaItemLike", "MediaMapper"]


class MediaItemLike(Protocol):
    """What a runner needs to know of a media item."""

    @property
    def modality(self) -> str:
        """Its key in ``multi_modal_data``."""

    @property
    def data(self) -> Any:
        """What the input mapper takes."""

    @property
    def content_id(self) -> bytes:
        """The name of its content; empty for an item that is never shared."""

    @property
    def processor_kwargs(self) -> Mapping[str, Any] | None:
        """Options of its prompt for the input mapper."""


class MediaMapper:
    """Runs a model's input mappers, each item once while the result is cached.

    Parameters
    ----------
    model_config
        The model, whose limits must have been fixed.
    mm_registry
        Where its mappers are registered.
    cache_bytes
        Memory for results.
    """

    def __init__(
        self, model_config: ModelConfig, mm_registry: MultiModalRegistry, cache_bytes: int
    ) -> None:
        self._model_config = model_config
        self._mm_registry = mm_registry
        self.cache = MappedInputCache(cache_bytes)

    def map(self, items: Sequence[MediaItemLike]) -> MultiModalInputs:
        """Map items of one request together, as the seed-era runner does.

        Pixels may be :class:`~mmcore.multimodal.byte_pixels.BytePixels`.

        Raises
        ------
        MediaError
            If the mapper refuses an item.
        InternalError
            If the mapper fails.
        """
        key = tuple(item.content_id for item in items)
        cacheable = all(key)
        if cacheable:
            known = self.cache.get(key)
            if known is not None:
                return known
        data: dict[str, Any] = {}
        for item in items:
            data.setdefault(item.modality, []).append(item.data)
        single = {modality: v[0] if len(v) == 1 else v for modality, v in data.items()}
        try:
            mapped = self._mm_registry.map_input(
                self._model_config, single, items[0].processor_kwargs, as_bytes=True
            )
        except MmcoreError:
            raise
        except (TypeError, ValueError) as error:  # how seed-era mappers refuse data
            reason = _C.public_text(error, with_class=False)
            raise MediaError(f"The {items[0].modality} cannot be used: {reason}") from error
        except Exception as error:
            raise InternalError(
                f"The input mapper raised {_C.public_text(error)}", code="processor_error"
            ) from error
        if cacheable:
            self.cache.put(key, mapped)
        return mapped
