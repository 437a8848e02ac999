"""MULTIMODAL_REGISTRY: finds the plugin of a modality, and keeps the limits of each model."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from mmcore.errors import MediaError, ValidationError
from mmcore.multimodal.audio import AudioPlugin
from mmcore.multimodal.base import (
    MaxTokensCalc,
    MultiModalDataDict,
    MultiModalInputMapper,
    MultiModalInputs,
    MultiModalPlugin,
)
from mmcore.multimodal.image import ImagePlugin
from mmcore.multimodal.items import count_items
from mmcore.multimodal.video import VideoPlugin

if TYPE_CHECKING:
    from torch import nn

    from mmcore.config import ModelConfig

__all__ = ["MultiModalRegistry"]

logger = logging.getLogger(__name__)

N = TypeVar("N", bound="type[nn.Module]")


class MultiModalRegistry:
    """Routes each modality to its plugin.

    Parameters
    ----------
    plugins
        The plugins to start with; new image, audio and video plugins when left out, so that two
        registries share nothing.
    """

    DEFAULT_PLUGIN_TYPES: tuple[type[MultiModalPlugin], ...] = (
        ImagePlugin,
        AudioPlugin,
        VideoPlugin,
    )

    def __init__(self, *, plugins: Sequence[MultiModalPlugin] | None = None) -> None:
        if plugins is None:
            plugins = [plugin_type() for plugin_type in self.DEFAULT_PLUGIN_TYPES]
        self._plugins = {plugin.get_data_key(): plugin for plugin in plugins}
        # Weak: a registry lives as long as the process, a model's configuration need not.
        self._limits_by_model: WeakKeyDictionary[ModelConfig, dict[str, int]] = WeakKeyDictionary()

    def register_plugin(self, plugin: MultiModalPlugin) -> None:
        """Add a modality, or replace the plugin of one."""
        key = plugin.get_data_key()
        if key in self._plugins:
            logger.warning(
                "A plugin is already registered for data type %s, "
                "and will be overwritten by the new plugin %s.",
                key,
                plugin,
            )
        self._plugins[key] = plugin

    def _get_plugin(self, data_type_key: str) -> MultiModalPlugin:
        plugin = self._plugins.get(data_type_key)
        if plugin is None:
            raise NotImplementedError(f"Unknown multi-modal data type: {data_type_key}")
        return plugin

    def register_input_mapper(
        self, data_type_key: str, mapper: MultiModalInputMapper | None = None
    ) -> Callable[[N], N]:
        """Decorate a model class with its mapper for a modality; None for the default one."""
        return self._get_plugin(data_type_key).register_input_mapper(mapper)

    def register_image_input_mapper(
        self, mapper: MultiModalInputMapper | None = None
    ) -> Callable[[N], N]:
        """Decorate a model class with its mapper for images; None for the default one."""
        return self.register_input_mapper("image", mapper)

    def map_input(
        self,
        model_config: ModelConfig,
        data: MultiModalDataDict,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
        *,
        as_bytes: bool = False,
    ) -> MultiModalInputs:
        """Turn a prompt's media into arguments of the model's ``forward``.

        :meth:`init_mm_limits_per_prompt` must have been called for the model.

        Parameters
        ----------
        as_bytes
            Whether :class:`BytePixels` may stand for float tensors, until
            :meth:`MultiModalInputs.as_kwargs` makes those.

        Raises
        ------
        ValidationError
            If there are more items than the limit, or two modalities give the same argument.
        NotImplementedError
            If a modality has no plugin.
        """
        merged: dict[str, Any] = {}
        for key, value in data.items():
            plugin = self._get_plugin(key)
            self.check_limit(model_config, key, count_items(key, value))
            if isinstance(value, list) and not value:
                continue
            map_one = plugin.map_input_as_bytes if as_bytes else plugin.map_input
            mapped = map_one(model_config, value, mm_processor_kwargs)
            for name, tensors in mapped.items():
                if name in merged:
                    raise ValidationError(
                        f"The input mappers (keys={set(data)}) resulted in a "
                        f"conflicting keyword argument to `forward()`: {name}"
                    )
                merged[name] = tensors
        return MultiModalInputs(merged)

    def check_limit(self, model_config: ModelConfig, data_type_key: str, num_items: int) -> None:
        """Refuse more items of a modality than the model's limit.

        Raises
        ------
        MediaError
            If there are more.
        """
        text_only = model_config.multimodal_config is None
        # A plugin may have been added after the limits were fixed.
        max_items = self.get_mm_limits_per_prompt(model_config).get(
            data_type_key, 0 if text_only else 1
        )
        if num_items <= max_items:
            return
        message = (
            f"You set {data_type_key}={max_items} (or defaulted to 1) in "
            f"`--limit-mm-per-prompt`, but found {num_items} items in the same prompt."
        )
        if text_only:
            raise MediaError(
                f"{message} The model takes text only; send the prompt without media.",
                code="images_not_supported",
            )
        raise MediaError(message, code="too_many_items")

    def create_input_mapper(self, model_config: ModelConfig) -> Callable[..., MultiModalInputs]:
        """Bind :meth:`map_input` to a model."""
        return functools.partial(self.map_input, model_config)

    def register_max_multimodal_tokens(
        self, data_type_key: str, max_mm_tokens: MaxTokensCalc | None = None
    ) -> Callable[[N], N]:
        """Decorate a model class with the tokens that one item of a modality takes at most."""
        return self._get_plugin(data_type_key).register_max_multimodal_tokens(max_mm_tokens)

    def register_max_image_tokens(
        self, max_mm_tokens: MaxTokensCalc | None = None
    ) -> Callable[[N], N]:
        """Decorate a model class with the tokens that one image takes at most."""
        return self.register_max_multimodal_tokens("image", max_mm_tokens)

    def get_max_multimodal_tokens(self, model_config: ModelConfig) -> int:
        """Give the media tokens of one prompt at most, over all modalities and their limits."""
        limits = self.get_mm_limits_per_prompt(model_config)
        return sum(
            limits[key] * plugin.get_max_multimodal_tokens(model_config)
            for key, plugin in self._plugins.items()
        )

    def get_modalities(self, model_cls: type[nn.Module]) -> list[str]:
        """List the modalities that a model class has an input mapper for."""
        return [key for key, plugin in self._plugins.items() if plugin.has_input_mapper(model_cls)]

    def get_max_tokens_per_item(self, model_config: ModelConfig) -> dict[str, int]:
        """Give the tokens of one item at most, for each modality that the model takes."""
        tokens = {
            key: plugin.get_max_multimodal_tokens(model_config)
            for key, plugin in self._plugins.items()
        }
        return {key: n for key, n in tokens.items() if n > 0}

    def init_mm_limits_per_prompt(self, model_config: ModelConfig) -> None:
        """Fix how many items of each modality a prompt of this model may have.

        A modality that the engine's options do not name gets 1; a text-only model gets 0 of each.
        """
        if model_config in self._limits_by_model:
            logger.warning(
                "`mm_limits` has already been set for model=%s, and will be overwritten by the "
                "new values.",
                model_config.model,
            )
        multimodal_config = model_config.multimodal_config
        if multimodal_config is None:
            self._limits_by_model[model_config] = dict.fromkeys(self._plugins, 0)
            return
        given = multimodal_config.limit_per_prompt
        extra = given.keys() - self._plugins.keys()
        if extra:
            logger.warning(
                "Detected extra keys in `--limit-mm-per-prompt` which are not registered as "
                "multi-modal plugins: %s. They will be ignored.",
                extra,
            )
        self._limits_by_model[model_config] = {key: given.get(key, 1) for key in self._plugins}

    def get_mm_limits_per_prompt(self, model_config: ModelConfig) -> Mapping[str, int]:
        """Give the limits that :meth:`init_mm_limits_per_prompt` fixed.

        Raises
        ------
        KeyError
            If it was not called for this model.
        """
        limits = self._limits_by_model.get(model_config)
        if limits is None:
            raise KeyError(
                f"Cannot find `mm_limits` for model={model_config.model}. "
                "Did you forget to call `init_mm_limits_per_prompt`?"
            )
        return limits
