"""From the tensors of a checkpoint to the parameters of a model, by name.

checkpoint name --WeightsMapper--> name in the model --AutoWeightsLoader--> parameter (shard)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from mmcore.errors import CheckpointError
from mmcore.model_executor.model_loader.weight_utils import default_weight_loader

__all__ = ["AutoWeightsLoader", "StackedParameter", "UnexpectedTensorError", "WeightsMapper"]

StackedParameter = tuple[str, str, "str | int"]
"""(name of the stacked parameter's module, name of the checkpoint's, shard id)."""

# Tables that older transformers versions saved and every model computes.
_COMPUTED = (".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached")
_POSITION_IDS = "position_ids"
# What a KV cache of 8-bit floats is scaled by, and the projections that some name it after.
_CACHE_SCALES = ("k_scale", "v_scale")
_CACHE_PROJECTIONS = ("k_proj", "v_proj")


class UnexpectedTensorError(CheckpointError):
    """A checkpoint has a tensor that belongs to no parameter of the model."""

    default_code = "unexpected_tensor"


@dataclass(frozen=True, slots=True)
class WeightsMapper:
    """Renames tensors, or drops those that a name is mapped to None for.

    Parameters
    ----------
    orig_to_new_substr
        Replacements anywhere in a name; all of them apply.
    orig_to_new_prefix, orig_to_new_suffix
        Replacements at the beginning and the end; the first that matches applies.
    """

    orig_to_new_substr: Mapping[str, str | None] = field(default_factory=dict)
    orig_to_new_prefix: Mapping[str, str | None] = field(default_factory=dict)
    orig_to_new_suffix: Mapping[str, str | None] = field(default_factory=dict)

    def map_name(self, name: str) -> str | None:
        """Give the new name, None for a tensor that is to be dropped."""
        for old, new in self.orig_to_new_substr.items():
            if old in name:
                if new is None:
                    return None
                name = name.replace(old, new, 1)
        for old, new in self.orig_to_new_prefix.items():
            if name.startswith(old):
                if new is None:
                    return None
                name = new + name[len(old) :]
                break
        for old, new in self.orig_to_new_suffix.items():
            if name.endswith(old):
                if new is None:
                    return None
                name = name[: len(name) - len(old)] + new
                break
        return name

    def apply(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Rename a stream of tensors."""
        for name, weight in weights:
            new = self.map_name(name)
            if new is not None:
                yield new, weight


class AutoWeightsLoader:
    """Hands each tensor to the parameter of its name.

    Tensors below a child module that has ``load_weights`` go through that method, so that a
    language model inside a vision-language model loads itself.

    Parameters
    ----------
    module
        The model.
    skip_prefixes
        Tensors that are not loaded, by the beginning of their names.
    skip_substrs
        The same, by what their names contain.
    ignore_unexpected_prefixes
        Where tensors without a parameter are no error.
    stacked
        Parameters that a checkpoint delivers in shards.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        skip_prefixes: Sequence[str] = (),
        skip_substrs: Sequence[str] = (),
        ignore_unexpected_prefixes: Sequence[str] = (),
        stacked: Sequence[StackedParameter] = (),
    ) -> None:
        self.module = module
        self._skip_prefixes = tuple(skip_prefixes)
        self._skip_substrs = tuple(skip_substrs)
        self._ignored = tuple(ignore_unexpected_prefixes)
        self._stacked = tuple(stacked)
        # A tied parameter has two names, and a checkpoint may use either.
        self._params = dict(module.named_parameters(remove_duplicate=False))
        self._modules = dict(module.named_modules())
        self._delegates = {
            name: child
            for name, child in module.named_children()
            if callable(getattr(child, "load_weights", None))
        }

    def load_weights(
        self, weights: Iterable[tuple[str, Tensor]], *, mapper: WeightsMapper | None = None
    ) -> set[str]:
        """Load a stream of tensors, which is read once.

        Returns
        -------
        set of str
            Names of the parameters that got values.

        Raises
        ------
        UnexpectedTensorError
            If a tensor has no parameter.
        WeightShapeError
            If it has another shape than its parameter.
        """
        if mapper is not None:
            weights = mapper.apply(weights)
        kept = ((name, weight) for name, weight in weights if not self._skips(name))
        loaded: set[str] = set()
        # Consecutive tensors of one child go to it in one call, without looking ahead.
        for child_name, group in itertools.groupby(kept, lambda item: item[0].partition(".")[0]):
            child = self._delegates.get(child_name)
            if child is None:
                for name, weight in group:
                    loaded |= self._load_one(name, weight)
                continue
            stripped = ((name.partition(".")[2], weight) for name, weight in group)
            names = child.load_weights(stripped)  # type: ignore[operator]
            if names is None:  # as in the seed era: it does not say what it loaded
                names = [name for name, _ in child.named_parameters()]
            loaded |= {f"{child_name}.{name}" for name in names}
        return loaded

    def _skips(self, name: str) -> bool:
        return (
            name.startswith(self._skip_prefixes)
            or name.endswith(_COMPUTED)
            or name.rpartition(".")[2] == _POSITION_IDS
            or any(part in name for part in self._skip_substrs)
        )

    def _load_one(self, name: str, weight: Tensor) -> set[str]:
        if self._load_cache_scale(name, weight):
            return set()
        for stacked, part, shard in self._stacked:
            target = name.replace(f".{part}.", f".{stacked}.")
            if target == name or target not in self._params:
                continue
            param = self._params[target]
            param.weight_loader(param, weight, shard)  # type: ignore[attr-defined]
            return {target}
        found = self._params.get(name)
        if found is None:
            if name.startswith(self._ignored):
                return set()
            raise UnexpectedTensorError(
                f"{name!r} belongs to no parameter of {type(self.module).__name__}"
            )
        loader = getattr(found, "weight_loader", default_weight_loader)
        loader(found, weight)
        return {name}

    def _load_cache_scale(self, name: str, value: Tensor) -> bool:
        """Give a KV cache's scale to its attention layer; False for any other tensor."""
        owner, _, kind = name.rpartition(".")
        if kind not in _CACHE_SCALES or name in self._params:
            return False
        block, _, last = owner.rpartition(".")
        for path in (owner, f"{owner}.attn", f"{block}.attn" if last in _CACHE_PROJECTIONS else ""):
            load = getattr(self._modules.get(path), "load_cache_scale", None)
            if path and callable(load):
                load(kind, value)
                return True
        return False
