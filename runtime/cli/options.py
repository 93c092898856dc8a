"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.values import parse_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
}


def group(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Return one decorator for several options, listed by --help in their order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


FILE = click.Path(path_type=Path)
SAMPLER = group(
    click.option("--steps", type=int, help="How many steps.  [default: the bundle's]"),
    click.option("--solver", help="Name of a solver.  [default: the bundle's scheduler]"),
)
SOLVER_OPTION = click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the solver; repeatable."
)
GUIDANCE = click.option("--guidance", type=float, help="Scale of classifier-free guidance.  [default: the bundle's]")
CONDITIONS = group(
    click.option(
        "--condition", "conditions", multiple=True, metavar="NAME=FILE", help="A condition (.npy); repeatable."
    ),
    click.option("--negative", multiple=True, metavar="NAME=FILE", help="What guidance moves away from; repeatable."),
)
LABEL = click.option("--label", help="A class, a list as 0,1,2 or `all`; a list is cycled to fill the batch.")
SHEET = group(
    click.option("--grid", type=int, metavar="COLUMNS", help="Pictures in a row.  [default: near to a square]"),
    click.option("--scale", type=int, help="Size of a pixel.  [default: makes a picture at least 64 wide]"),
)
FPS = click.option("--fps", type=float, default=10.0, show_default=True, help="Frames a second of an .apng.")
FRAMES = group(
    click.option("--frames", type=FILE, help="Write the course of the run: .png (a strip), .apng or .npy."),
    click.option("--frames-every", type=int, default=1, show_default=True, help="Keep every so many-th step."),
    click.option(
        "--frames-show",
        type=click.Choice(["x0", "x"]),
        default="x0",
        show_default=True,
        help="Show what the network predicts, or the noisy state.",
    ),
    FPS,
)
ENGINE = group(
    click.option("--engine", default="auto", show_default=True, help="What runs the network."),
    click.option("--threads", type=int, help="Threads of the engine.  [default: the engine's choice]"),
    click.option(
        "--engine-option", "engine_pairs", multiple=True, metavar="KEY=VALUE", help="An option of the engine."
    ),
    click.option("--progress/--no-progress", default=None, help="Show a progress bar.  [default: on a terminal]"),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
)


def parse_options(texts: tuple[str, ...], **flags: str) -> dict[str, Any]:
    """Return the options of a solver, which may not be what has a flag of its own; `flags` are the command's."""
    options, own = parse_pairs(texts), {**OWN, **flags}
    for key in options:
        if key in own:
            raise OptionError(
                f"{key} cannot be given as --option", got=f"{key}={options[key]}", fix=f"use {own[key]}"
            )
    return options


def parse_labels(text: str | None, classes: int | None) -> list[int] | None:
    """Return the classes that --label lists."""
    if text is None:
        return None
    if text == "all":
        if not classes:
            raise OptionError(
                "the bundle does not say which classes it has", got="--label all", expected="a list, as --label 0,1,2"
            )
        return list(range(classes))
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(
            "--label is not a class", got=repr(text), expected="a whole number, a list as 0,1,2, or `all`"
        ) from None


def settle_batch(
    batch: int | None, labels: list[int] | None, first: NDArray[Any] | None, given: dict[str, NDArray[Any]]
) -> int:
    """Return how many samples there are: as asked for, as noises or images, or as labels or conditions."""
    if batch is None:
        rows = max((len(array) for array in given.values() if array.ndim), default=1)
        batch = len(first) if first is not None else max(rows, 1 if labels is None else len(labels))
    if labels is not None and len(labels) > batch > 0:
        raise OptionError(
            "there are more labels than samples",
            got=f"{counted(len(labels), 'label')}, {counted(batch, 'sample')}",
            expected="no more labels than samples, whose number --batch or --noise sets",
            fix="leave out --batch and --noise for one sample a label",
        )
    return batch


def cycled(labels: list[int] | None, batch: int) -> list[int] | None:
    """Return a label for each sample."""
    return None if labels is None else [labels[i % len(labels)] for i in range(batch)]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(2, "sample")
    '2 samples'
    """
    return f"{number} {noun}" + "s" * (number != 1)
