"""Unit: the classes, their codes, and that they survive a trip between processes."""

from __future__ import annotations

import pickle

import pytest

from mmcore import errors
from mmcore.errors import (
    CheckpointError,
    EngineDeadError,
    InternalError,
    MediaError,
    MediaFetchError,
    MmcoreError,
    PlaceholderMismatchError,
    RequestTimeoutError,
    UnservableRequestError,
    ValidationError,
)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_an_mmcore_error_with_a_code(name: str) -> None:
    error = getattr(errors, name)("what happened", request_id="r1")
    assert isinstance(error, MmcoreError)
    assert error.code == type(error).default_code
    assert error.code.replace("_", "").islower()
    assert (str(error), error.message, error.request_id) == ("what happened",) * 2 + ("r1",)


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (ValidationError, (ValueError,)),
        (MediaFetchError, (MediaError, ValidationError, ValueError)),
        (UnservableRequestError, (ValidationError,)),
        (PlaceholderMismatchError, (ValidationError,)),
        (CheckpointError, (ValueError,)),
        (InternalError, (RuntimeError,)),
        (RequestTimeoutError, (TimeoutError,)),
    ],
)
def test_hierarchy(error: type[Exception], bases: tuple[type, ...]) -> None:
    assert all(issubclass(error, base) for base in bases)


def test_engine_errors_are_not_the_callers_fault() -> None:
    assert not issubclass(EngineDeadError, ValueError)
    assert not issubclass(InternalError, ValueError)


def test_code_given_wins_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(MediaError("bad", code="invalid_image", request_id="7")))
    assert type(error) is MediaError
    assert (str(error), error.code, error.request_id) == ("bad", "invalid_image", "7")
