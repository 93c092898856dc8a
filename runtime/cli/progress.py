"""A progress bar on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    label: str, total: int | None, wanted: bool | None, quiet: bool
) -> Iterator[Callable[[float], None] | None]:
    """Show a bar, on a terminal or where asked for; gives what to call with the number of parts done, or None."""
    shown = sys.stderr.isatty() if wanted is None else wanted
    if quiet or not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)
