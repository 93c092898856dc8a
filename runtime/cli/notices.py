"""Warnings as one line each on stderr, without the file names and source lines that Python adds."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import click


@contextlib.contextmanager
def notices(quiet: bool) -> Iterator[None]:
    """Print each warning as `note: ...`, or none at all."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if not quiet:
            click.echo(f"note: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield
