"""Options that several commands share, and how a command gets several as one object."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.values import parse_pairs

F = TypeVar("F", bound=Callable[..., Any])

#: what is asked of a solver by flags of its own
OWN = {name: f"--{name}" for name in ("batch", "seed", "steps", "solver", "guidance", "label", "noise", "plan")} | {
    "x_T": "--noise",
    "shape": "--shape",
    "conditions": "--condition",
    "negative": "--negative",
    "callback": "--progress",
    "encoder_hidden_states": "--condition encoder_hidden_states=FILE.npy",
    "negative_hidden_states": "--negative encoder_hidden_states=FILE.npy",
    **{f"classifier_{name}": f"--classifier-{name}" for name in ("scale", "label", "mode")},
}


def group(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Return one decorator for several options, listed by --help in their order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def gathered(name: str, kind: Callable[..., Any], *options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Return one decorator for options that a command gets as one object of this name, made of them by `kind`."""
    taken = [parameter.name for parameter in click.command()(group(*options)(lambda: None)).params]

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def command(**given: Any) -> Any:
            own = kind(**{str(key): given.pop(str(key)) for key in taken})
            return function(**given, **{name: own})

        return group(*options)(cast(F, command))

    return decorate


FILE = click.Path(path_type=Path)
SAMPLER = group(
    click.option("--steps", type=int, help="How many steps.  [default: the bundle's]"),
    click.option("--solver", help="Name of a solver.  [default: the bundle's scheduler]"),
)
SOLVER_OPTION = click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the solver; repeatable."
)
FPS = click.option("--fps", type=float, default=10.0, show_default=True, help="Frames a second of an .apng.")


def parse_options(texts: tuple[str, ...], **flags: str) -> dict[str, Any]:
    """Return the options of a solver, which may not be what has a flag of its own; `flags` are the command's."""
    options, own = parse_pairs(texts), {**OWN, **flags}
    for key in options:
        if key in own:
            raise OptionError(
                f"{key} cannot be given as --option", got=f"{key}={options[key]}", fix=f"use {own[key]}"
            )
    return options


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(2, "sample")
    '2 samples'
    """
    return f"{number} {noun}" + "s" * (number != 1)
