"""A bundle opened, run and watched, as every command that samples does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli import UNCHECKED
from dpmrt.runtime.cli.notices import notices
from dpmrt.runtime.cli.options import counted, gathered
from dpmrt.runtime.cli.outputs import check_places
from dpmrt.runtime.cli.progress import progress_bar
from dpmrt.runtime.cli.values import parse_pairs

if TYPE_CHECKING:
    from dpmrt.runtime.cli.conditioned import Conditioned
    from dpmrt.runtime.pipeline import Pipeline
    from dpmrt.solvers_np import StepEvent


class Watch:
    """A callback that counts network calls and moves a progress bar; `seconds` is how long the run took."""

    def __init__(self, advance: Callable[[int], None] | None) -> None:
        self.calls = 0
        self.seconds = 0.0
        self._advance = advance

    def __call__(self, _: StepEvent) -> None:
        """Count one."""
        self.calls += 1
        if self._advance is not None:
            self._advance(self.calls)


@dataclass(frozen=True)
class Runner:
    """What is to run the network, and how much is to be said of it."""

    engine: str
    threads: int | None
    engine_pairs: tuple[str, ...]
    progress: bool | None
    quiet: bool

    def prepare(
        self, bundle: str, given: Conditioned, *, written: dict[str, Path | None], read: dict[str, Path | None]
    ) -> None:
        """Refuse an engine that there is not, and files in each other's way; read what conditions the samples."""
        from dpmrt.runtime.backends import plain_engines
        from dpmrt.runtime.bundle import find_bundle

        if self.engine not in plain_engines():
            raise OptionError(
                "unknown engine", got=repr(self.engine), expected=", ".join(plain_engines()), fix="--engine auto"
            )
        check_places(written, {**read, **given.files}, find_bundle(bundle))
        given.read()

    @contextmanager
    def opened(self, bundle: str) -> Iterator[Pipeline]:
        """Open a bundle, with warnings as one line each."""
        from dpmrt.runtime.loading import load

        options = parse_pairs(self.engine_pairs, what="an option of the engine")
        if self.threads is not None:
            options["threads"] = self.threads
        with notices(self.quiet), load(bundle, self.engine, **options) as pipeline:
            if pipeline.bundle.inferred and not self.quiet:
                click.echo(UNCHECKED, err=True)
            yield pipeline

    @contextmanager
    def watched(self, label: str, total: int | None) -> Iterator[Watch]:
        """Show a progress bar where it is wanted, and give what counts the network calls and the time."""
        started = time.perf_counter()
        with progress_bar(label, total, self.progress, self.quiet) as advance:
            watch = Watch(advance)
            yield watch
        watch.seconds = time.perf_counter() - started

    def say(self, out: Path, what: str, watch: Watch, *more: str) -> None:
        """Say what was written."""
        if not self.quiet:
            said = ", ".join([what, counted(watch.calls, "network call"), *more, f"{watch.seconds:.2f} s"])
            click.echo(f"wrote {out}: {said}")


RUNNER = gathered(
    "runner",
    Runner,
    click.option("--engine", default="auto", show_default=True, help="What runs the network."),
    click.option("--threads", type=int, help="Threads of the engine.  [default: the engine's choice]"),
    click.option(
        "--engine-option", "engine_pairs", multiple=True, metavar="KEY=VALUE", help="An option of the engine."
    ),
    click.option("--progress/--no-progress", default=None, help="Show a progress bar.  [default: on a terminal]"),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
)
