"""Finds the class that runs a checkpoint by the architecture name in its config.json."""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcore.errors import ValidationError
from mmcore.model_executor.models.interfaces import supports_multimodal, supports_pp

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BUILTIN_MODELS", "LazyModel", "ModelRegistry"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LazyModel:
    """A class named by module and name, imported when it is first used.

    Parameters
    ----------
    is_multimodal
        Known without an import for the models that ship; None looks at the class.
    """

    module: str
    class_name: str
    is_multimodal: bool | None = None

    def load(self) -> type[nn.Module]:
        """Import the class.

        Raises
        ------
        ValidationError
            If the module has no such class. Errors while importing it pass through.
        """
        module = importlib.import_module(self.module)
        model_cls = getattr(module, self.class_name, None)
        if not isinstance(model_cls, type):
            raise ValidationError(
                f"The module {self.module!r} has no class {self.class_name!r}; "
                "check the string given to ModelRegistry.register_model.",
                code="model_not_found",
            )
        return model_cls


_MODELS = "mmcore.model_executor.models"

BUILTIN_MODELS: Mapping[str, LazyModel] = {
    "LlamaForCausalLM": LazyModel(f"{_MODELS}.llama", "LlamaForCausalLM", False),
    "MistralForCausalLM": LazyModel(f"{_MODELS}.mistral", "MistralForCausalLM", False),
    "Qwen2ForCausalLM": LazyModel(f"{_MODELS}.qwen2", "Qwen2ForCausalLM", False),
    "LlavaForConditionalGeneration": LazyModel(
        f"{_MODELS}.llava", "LlavaForConditionalGeneration", True
    ),
    "LlavaNextForConditionalGeneration": LazyModel(
        f"{_MODELS}.llava_next", "LlavaNextForConditionalGeneration", True
    ),
}


class _ModelRegistry:
    """Architecture name -> model class, or where to import it from."""

    def __init__(self, models: Mapping[str, LazyModel]) -> None:
        self._models: dict[str, LazyModel | type[nn.Module]] = dict(models)

    def get_supported_archs(self) -> list[str]:
        """List the registered architecture names."""
        return list(self._models)

    def register_model(self, model_arch: str, model_cls: type[nn.Module] | str) -> None:
        """Register a class for an architecture name.

        Parameters
        ----------
        model_arch
            The name under ``architectures`` in config.json.
        model_cls
            The class, or ``"module:Class"``, which is imported when a checkpoint needs it. The
            string form keeps a plugin's start-up free of torch and CUDA.
        """
        entry: LazyModel | type[nn.Module]
        if isinstance(model_cls, str):
            module, separator, class_name = model_cls.partition(":")
            if not (module and separator and class_name) or ":" in class_name:
                raise ValidationError("Expected a string in the format `<module>:<class>`")
            entry = LazyModel(module, class_name)
        elif isinstance(model_cls, type):
            entry = model_cls
        else:
            raise TypeError(
                "model_cls must be a class or a string `<module>:<class>`, "
                f"got {type(model_cls).__name__}"
            )
        if model_arch in self._models:
            logger.warning(
                "Model architecture %s is already registered, and will be overwritten by the new "
                "model class %s.",
                model_arch,
                model_cls,
            )
        self._models[model_arch] = entry

    def resolve_model_cls(self, architectures: str | Iterable[str]) -> tuple[type[nn.Module], str]:
        """Give the class and the name of the first architecture that is registered.

        Raises
        ------
        ValidationError
            If none is. The message lists what is, and the nearest names.
        """
        arch, entry = self._find(architectures)
        if isinstance(entry, LazyModel):
            entry = self._models[arch] = entry.load()
        return entry, arch

    def is_multimodal_model(self, architectures: str | Iterable[str]) -> bool:
        """Tell whether the registered class takes media."""
        arch, entry = self._find(architectures)
        if isinstance(entry, LazyModel) and entry.is_multimodal is not None:
            return entry.is_multimodal
        return supports_multimodal(self.resolve_model_cls(arch)[0])

    def is_pp_supported_model(self, architectures: str | Iterable[str]) -> bool:
        """Tell whether the registered class can be cut into pipeline stages."""
        return supports_pp(self.resolve_model_cls(architectures)[0])

    def _find(self, architectures: str | Iterable[str]) -> tuple[str, LazyModel | type[nn.Module]]:
        names = [architectures] if isinstance(architectures, str) else list(architectures)
        for name in names:
            if name in self._models:
                return name, self._models[name]
        known = self.get_supported_archs()
        near = [n for name in names for n in difflib.get_close_matches(name, known, 3, 0.0)][:3]
        hint = f" The nearest names are {', '.join(near)}." if near else ""
        if not names:
            hint = " The checkpoint's config.json has no `architectures`."
        raise ValidationError(
            f"Model architectures {names} are not supported for now. "
            f"Supported architectures: {known}.{hint}",
            code="model_not_supported",
        )


ModelRegistry = _ModelRegistry(BUILTIN_MODELS)
