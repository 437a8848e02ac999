"""Keeps the import of transformers short: no scikit-learn or SciPy before they are used.

Some of its modules import one function each, for assisted generation and for training detectors,
with a thousand modules behind it. While such a module is being imported it finds a stand-in, whose
function imports the real one when it is called. Nobody else ever sees the stand-in.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from mmcore.distributions import quick_distributions

__all__ = ["import_late"]


def import_late() -> None:
    """From now on, have those functions imported when they are called."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds those modules, with a loader that has something in place while they are imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for beginning, meanwhile in _MEANWHILE.items():
            if fullname.startswith(beginning):
                spec = PathFinder.find_spec(fullname, path, target)
                if spec is not None and spec.loader is not None:
                    spec.loader = _Loader(spec.loader, meanwhile)
                return spec
        return None


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any, meanwhile: Callable[[], AbstractContextManager[None]]) -> None:
        self._loader = loader
        self._meanwhile = meanwhile

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        with self._meanwhile():
            self._loader.exec_module(module)

    def __getattr__(self, name: str) -> Any:  # get_source() and the like
        return getattr(self._loader, name)


@contextmanager
def _stand_in(name: str, function: str) -> Iterator[None]:
    """Put a module with one function in the place of one that was not imported yet."""
    package = name.partition(".")[0]
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is None:
        yield
        return

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(name), function)(*args, **kwargs)

    call.__name__ = call.__qualname__ = function
    outer, inner = ModuleType(package), ModuleType(name)
    outer.__spec__ = spec  # for those who ask only whether it is there
    outer.__path__ = list(spec.submodule_search_locations or ())
    setattr(outer, name.rpartition(".")[2], inner)
    setattr(inner, function, call)
    places = {package: outer, name: inner}
    sys.modules.update(places)
    try:
        yield
    finally:
        for place, module in places.items():
            if sys.modules.get(place) is module:
                del sys.modules[place]


# The beginnings of modules' names, and what holds while they are imported.
_MEANWHILE: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "transformers.generation.candidate_generator": partial(
        _stand_in, "sklearn.metrics", "roc_curve"
    ),
    "transformers.loss.loss_": partial(_stand_in, "scipy.optimize", "linear_sum_assignment"),
    "transformers.utils.import_utils": quick_distributions,
}
