"""Checks that solvers, grids and schedules share: names against a registry, options against a signature."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar

import numpy as np

from dpmrt.errors import OptionError

T = TypeVar("T")


def choose(kind: str, name: object, known: Mapping[str, T]) -> T:
    """Return `known[name]`, or say which names there are."""
    if isinstance(name, str) and name in known:
        return known[name]
    near = difflib.get_close_matches(str(name), known, n=1)
    raise OptionError(
        f"unknown {kind}",
        got=repr(name),
        expected="one of " + ", ".join(known),
        fix=f"did you mean {near[0]!r}?" if near else None,
    )


def one_of(option: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a value that is not among `allowed`."""
    choices = list(allowed)
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise OptionError(
            f"{option} has a value that is not possible",
            got=repr(value),
            expected="one of " + ", ".join(repr(choice) for choice in choices),
        )


def within(option: str, value: float, low: float, high: float, expected: str | None = None) -> None:
    """Refuse a number outside bounds; `expected` may say what they mean."""
    if not low <= value <= high:
        raise OptionError(f"{option} is out of range", got=value, expected=expected or f"{low:g} to {high:g}")


def whole(option: str, value: object, low: int, high: int | None = None) -> int:
    """Return a whole number within bounds, or say what was expected."""
    if not is_whole(value) or (index := operator.index(value)) < low or (high is not None and index > high):
        bound = f"a whole number from {low} to {high}" if high is not None else f"a whole number of at least {low}"
        raise OptionError(f"{option} is out of range", got=repr(value), expected=bound)
    return index


def accepted(function: Callable[..., Any]) -> list[str]:
    """Return the names of the keyword options of a function (those with a default)."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is not p.empty]


def check_types(label: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Hold options against the annotations of a function: the kinds are the keys of _IS."""
    target = function.func if isinstance(function, functools.partial) else function
    hints = typing.get_type_hints(target)
    for name, value in options.items():
        hint = hints[name]
        kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
        if not any(_IS[kind](value) for kind in kinds):
            raise OptionError(
                f"{label}: {name} must be {' or '.join(_NAMES[kind] for kind in kinds)}", got=repr(value)
            )


def finite_number(value: object) -> float | None:
    """Return a finite number as a float, or None for anything else, text and truth values among it."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, typing.SupportsFloat):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def is_whole(value: object) -> TypeGuard[typing.SupportsIndex]:
    """Return whether a value is a whole number, of Python's or NumPy's kind."""
    if isinstance(value, (bool, np.bool_)):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def _is_row(value: object, *tail: int) -> bool:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    return (
        array.shape[1:] == tail and array.ndim == 1 + len(tail) and array.size > 0 and bool(np.isfinite(array).all())
    )


_IS: dict[Any, Callable[[object], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: is_whole,
    float: lambda value: finite_number(value) is not None,
    str: lambda value: isinstance(value, str),
    Sequence[float]: _is_row,
    Sequence[tuple[float, float]]: lambda value: _is_row(value, 2),
    type(None): lambda value: value is None,
}
_NAMES: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    Sequence[float]: "a row of finite numbers",
    Sequence[tuple[float, float]]: "a row of pairs of finite numbers",
    type(None): "None",
}


def call_with_options(label: str, function: Callable[..., T], options: Mapping[str, Any], *args: Any) -> T:
    """Call `function(*args, **options)`, refusing an option that it does not have by name."""
    names = accepted(function)
    for option in options:
        if option not in names:
            near = difflib.get_close_matches(option, names, n=1)
            raise OptionError(
                f"{label} has no option of this name",
                got=repr(option),
                expected=", ".join(names) or "no options",
                fix=f"did you mean {near[0]!r}?" if near else None,
            )
    check_types(label, function, options)
    return function(*args, **options)
