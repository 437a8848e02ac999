"""Unit: which options reach a function, and the warning for those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from mmcore.multimodal.processor_kwargs import (
    get_allowed_kwarg_only_overrides,
    resolve_mm_processor_kwargs,
    supports_kw,
)


def keyword_only(ctx: object, data: object, *, num_crops: int = 4, size: int = 1) -> None: ...


def variadic(ctx: object, *args: object, **mm_processor_kwargs: object) -> None: ...


def positional_only(ctx: object, /, data: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "name", "kw_only", "var_kwargs", "expected"),
    [
        (keyword_only, "num_crops", False, True, True),
        (keyword_only, "num_crops", True, False, True),
        (keyword_only, "data", False, False, True),
        (keyword_only, "data", True, True, False),
        (keyword_only, "other", False, True, False),
        (variadic, "other", True, True, True),
        (variadic, "other", True, False, False),
        (variadic, "ctx", True, True, False),
        (variadic, "mm_processor_kwargs", True, False, False),
        (variadic, "mm_processor_kwargs", True, True, True),
        (variadic, "args", False, False, False),
        (positional_only, "ctx", False, True, False),
        (positional_only, "data", False, True, True),
    ],
)
def test_supports_kw(
    function: Any, name: str, kw_only: bool, var_kwargs: bool, expected: bool
) -> None:
    assert supports_kw(function, name, kw_only, var_kwargs) is expected


@pytest.mark.parametrize(
    ("init", "inference", "expected"),
    [
        (None, None, {}),
        ({}, {}, {}),
        ({"num_crops": 1}, None, {"num_crops": 1}),
        (None, {"num_crops": 2}, {"num_crops": 2}),
        ({"num_crops": 1}, {"num_crops": 2}, {"num_crops": 2}),
        ({"num_crops": 1}, {"size": 2}, {"num_crops": 1, "size": 2}),
        ({"does_not_exist": 1}, {"data": 2}, {}),
        ({"does_not_exist": 1, "size": 3}, {"ctx": 2}, {"size": 3}),
    ],
)
def test_the_prompts_options_win(init: Any, inference: Any, expected: Any) -> None:
    assert resolve_mm_processor_kwargs(init, inference, keyword_only) == expected


def test_a_new_dictionary_is_made() -> None:
    options = {"num_crops": 1}
    resolved = resolve_mm_processor_kwargs(options, None, keyword_only)
    resolved["num_crops"] = 2
    assert options == {"num_crops": 1}


def test_variadic_functions_take_any_option_only_where_allowed() -> None:
    assert resolve_mm_processor_kwargs({"a": 1}, {"b": 2}, variadic) == {}
    resolved = resolve_mm_processor_kwargs({"a": 1}, {"b": 2}, variadic, allow_var_kwargs=True)
    assert resolved == {"a": 1, "b": 2}


def test_positional_parameters_cannot_be_overwritten() -> None:
    assert get_allowed_kwarg_only_overrides(variadic, {"ctx": 1}, allow_var_kwargs=True) == {}


def test_warning_names_what_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    get_allowed_kwarg_only_overrides(keyword_only, {"data": 1, "num_crops": 2})
    assert caplog.messages == [
        "The following intended overrides are not keyword-only args "
        "and and will be dropped: {'data'}"
    ]


def test_no_warning_without_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    get_allowed_kwarg_only_overrides(keyword_only, {"num_crops": 2})
    get_allowed_kwarg_only_overrides(keyword_only, None)
    assert caplog.messages == []


def test_methods_and_partials() -> None:
    import functools

    class Plugin:
        def mapper(self, ctx: object, *, scale: int = 1) -> None: ...

    assert get_allowed_kwarg_only_overrides(Plugin().mapper, {"scale": 2}) == {"scale": 2}
    partial = functools.partial(keyword_only, object())
    assert get_allowed_kwarg_only_overrides(partial, {"size": 2}) == {"size": 2}
