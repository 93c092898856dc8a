"""A progress bar on stderr for work in phases that are not known beforehand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def phase_bar(wanted: bool | None) -> Iterator[Callable[[str, float], None] | None]:
    """Show the phase at hand, on a terminal or where asked for; gives what to call with it and its part done."""
    shown = sys.stderr.isatty() if wanted is None else wanted
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=console.is_terminal) as bars:
        task = bars.add_task("loading", total=1.0)
        yield lambda phase, part: bars.update(task, description=phase, completed=part)
