"""A bundle opened, run and watched, as every command that samples does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli import UNCHECKED
from dpmrt.runtime.cli.notices import notices
from dpmrt.runtime.cli.options import counted
from dpmrt.runtime.cli.progress import progress_bar
from dpmrt.runtime.cli.values import parse_pairs

if TYPE_CHECKING:
    from dpmrt.runtime.pipeline import Pipeline
    from dpmrt.solvers_np import StepEvent


def check_engine(engine: str) -> None:
    """Refuse an engine that there is not, before anything is loaded."""
    from dpmrt.runtime.backends import plain_engines

    if engine not in plain_engines():
        raise OptionError(
            "unknown engine", got=repr(engine), expected=", ".join(plain_engines()), fix="--engine auto"
        )


@contextmanager
def opened(
    bundle: str, engine: str, threads: int | None, engine_pairs: tuple[str, ...], quiet: bool
) -> Iterator[Pipeline]:
    """Open a bundle, with warnings as one line each."""
    from dpmrt.runtime.loading import load

    options = parse_pairs(engine_pairs, what="an option of the engine")
    if threads is not None:
        options["threads"] = threads
    with notices(quiet), load(bundle, engine, **options) as pipeline:
        if pipeline.bundle.inferred and not quiet:
            click.echo(UNCHECKED, err=True)
        yield pipeline


class Calls:
    """A callback that counts network calls and moves a progress bar."""

    def __init__(self, advance: Callable[[int], None] | None) -> None:
        self.made = 0
        self._advance = advance

    def __call__(self, _: StepEvent) -> None:
        """Count one."""
        self.made += 1
        if self._advance is not None:
            self._advance(self.made)


@contextmanager
def watched(label: str, total: int | None, progress: bool | None, quiet: bool) -> Iterator[Calls]:
    """Show a progress bar where it is wanted, and count network calls."""
    with progress_bar(label, total, progress, quiet) as advance:
        yield Calls(advance)


def say(out: Path, what: str, calls: int, seconds: float, quiet: bool, *more: str) -> None:
    """Say what was written."""
    if not quiet:
        said = ", ".join([what, counted(calls, "network call"), *more, f"{seconds:.2f} s"])
        click.echo(f"wrote {out}: {said}")


def parse_pair(flag: str, text: str, expected: str) -> tuple[int, int]:
    """Return two whole numbers that a comma parts.

    >>> parse_pair("--repaint", "5,10", "JUMP,TIMES")
    (5, 10)
    """
    try:
        first, second = (int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"{flag} is not understood", got=repr(text), expected=expected) from None
    return first, second
