"""The phases of TensorRT's builder on the terminal, as nested bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dpmrt.export.tensorrt.messages import Event, Finished, Started

if TYPE_CHECKING:
    from rich.console import Console

#: deeper phases come and go faster than they can be read
_DEEPEST = 3


@contextmanager
def builder_bars(console: Console) -> Iterator[Callable[[Event], None]]:
    """Yield what to call with the builder's events: every phase that is under way has a bar, below its parent's.

    Where nothing can be redrawn, as in a file, each of the outer phases is a line.
    """
    if not console.is_terminal:
        yield lambda event: _print(console, event)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        depths: dict[str, int] = {}
        bars: dict[str, object] = {}

        def tell(event: Event) -> None:
            if isinstance(event, Started):
                depth = depths.get(event.parent or "", -1) + 1
                if depth < _DEEPEST and event.phase not in bars:
                    depths[event.phase] = depth
                    bars[event.phase] = progress.add_task("  " * depth + event.phase, total=event.steps)
                elif depth >= _DEEPEST:
                    depths.setdefault(event.phase, depth)
            elif isinstance(event, Finished):
                depths.pop(event.phase, None)
                if (bar := bars.pop(event.phase, None)) is not None:
                    progress.remove_task(bar)  # type: ignore[arg-type]
            elif event.phase in bars:
                progress.update(bars[event.phase], completed=event.done)  # type: ignore[arg-type]

        yield tell


def _print(console: Console, event: Event) -> None:
    if isinstance(event, Started) and event.parent is None:
        console.print(event.phase)
