"""Which ``mm_processor_kwargs`` reach a registered function.

Options come from two sides: the engine's, fixed when it starts, and the prompt's, which win. A
function gets those that it declares as keyword-only parameters; the others are dropped with a
warning, so that an option can never overwrite ``ctx`` or ``data``.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "get_allowed_kwarg_only_overrides",
    "resolve_mm_processor_kwargs",
    "supports_kw",
]

logger = logging.getLogger(__name__)


def supports_kw(
    callable: Callable[..., object],
    kw_name: str,
    requires_kw_only: bool = False,
    allow_var_kwargs: bool = True,
) -> bool:
    """Tell whether a function can be called with a keyword.

    Parameters
    ----------
    requires_kw_only
        Whether a parameter that could also be given by position does not count.
    allow_var_kwargs
        Whether ``**kwargs`` counts.
    """
    parameters = inspect.signature(callable).parameters
    parameter = parameters.get(kw_name)
    if parameter is not None and parameter.kind not in (
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    ):
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            return True
        # A positional parameter cannot be reached through **kwargs either.
        return not requires_kw_only and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY
    return allow_var_kwargs and any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


def get_allowed_kwarg_only_overrides(
    callable: Callable[..., object],
    overrides: Mapping[str, Any] | None,
    allow_var_kwargs: bool = False,
) -> dict[str, Any]:
    """Keep the options that a function declares as keyword-only.

    Parameters
    ----------
    callable
        The function that will get them.
    overrides
        Options by name.
    allow_var_kwargs
        Whether ``**kwargs`` of the function takes any name.
    """
    if not overrides:
        return {}
    allowed = {
        name: value
        for name, value in overrides.items()
        if supports_kw(callable, name, requires_kw_only=True, allow_var_kwargs=allow_var_kwargs)
    }
    dropped = overrides.keys() - allowed.keys()
    if dropped:
        # Seed-era users grep for this text, doubled "and" included.
        logger.warning(
            "The following intended overrides are not keyword-only args "
            "and and will be dropped: %s",
            dropped,
        )
    return allowed


def resolve_mm_processor_kwargs(
    init_kwargs: Mapping[str, Any] | None,
    inference_kwargs: Mapping[str, Any] | None,
    callable: Callable[..., object],
    allow_var_kwargs: bool = False,
) -> dict[str, Any]:
    """Merge the engine's and the prompt's options for a function; the prompt's win.

    Parameters
    ----------
    init_kwargs
        The engine's options.
    inference_kwargs
        The prompt's options.
    callable, allow_var_kwargs
        As for :func:`get_allowed_kwarg_only_overrides`.
    """
    return {
        **get_allowed_kwarg_only_overrides(callable, init_kwargs, allow_var_kwargs),
        **get_allowed_kwarg_only_overrides(callable, inference_kwargs, allow_var_kwargs),
    }
