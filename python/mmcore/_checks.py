"""Checks of single values that several modules make."""

from __future__ import annotations

import math
import operator

from mmcore.errors import ValidationError

__all__ = ["as_finite", "as_int", "int_at_least", "one_of", "require"]


def require(condition: bool, message: str) -> None:
    """Raise a :class:`~mmcore.errors.ValidationError` unless the condition holds."""
    if not condition:
        raise ValidationError(message)


def as_int(name: str, value: object) -> int:
    """Give a plain int for an int or a NumPy integer; refuse everything else, bools too."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValidationError(f"{name} must be an integer, got {value!r}.") from None


def int_at_least(name: str, value: object, least: int) -> int:
    """Give a plain int that is not below `least`."""
    number = as_int(name, value)
    require(number >= least, f"{name} must be at least {least}, got {number}.")
    return number


def as_finite(name: str, value: object) -> float:
    """Give a float for any real number; refuse strings, bools, NaN and infinities."""
    number: float | None = None
    if not isinstance(value, (bool, str, bytes, bytearray)):
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = None
    if number is None:
        raise ValidationError(f"{name} must be a number, got {value!r}.")
    require(math.isfinite(number), f"{name} must be finite, got {number}.")
    return number


def one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse a word that is not in the list."""
    require(value in known, f"{name} must be one of {', '.join(known)}, got {value!r}.")
