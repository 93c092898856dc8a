"""Checks that solvers, grids and schedules share: names against a registry, options against a signature."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

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
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        raise OptionError(
            f"{option} has a value that is not possible",
            got=repr(value),
            expected="one of " + ", ".join(repr(choice) for choice in choices),
        )


def whole(option: str, value: object, low: int, high: int | None = None) -> int:
    """Return a whole number within bounds, or say what was expected."""
    index = getattr(value, "__index__", None)
    if isinstance(value, bool) or index is None or index() < low or (high is not None and index() > high):
        bound = f"a whole number from {low} to {high}" if high is not None else f"a whole number of at least {low}"
        raise OptionError(f"{option} is out of range", got=repr(value), expected=bound)
    return int(index())


def accepted(function: Callable[..., Any]) -> list[str]:
    """Return the names of the keyword options of a function (those with a default)."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is not p.empty]


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
    return function(*args, **options)
