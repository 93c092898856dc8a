"""The phases of long work on the terminal: which is under way, how far it is, what it took."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def phase_progress(
    console: Console, titles: Mapping[str, str], phases: Sequence[str]
) -> Iterator[Callable[..., None]]:
    """Yield tell(phase, text): each phase gets a line with its time and the largest memory held until its end."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<22}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[memory]:>12}  {task.fields[text]}"),
    )
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        tasks: dict[str, object] = {}

        def tell(phase: str, text: str = "") -> None:
            if phase not in tasks:
                finish()
                step = f"[{len(tasks) + 1}/{len(phases)}] "
                tasks[phase] = progress.add_task(step + titles[phase], total=1, memory="", text="")
            progress.update(tasks[phase], text=text)  # type: ignore[arg-type]

        def finish() -> None:
            for task in progress.tasks:
                if not task.finished:
                    progress.update(task.id, completed=1, memory=_peak())

        yield tell
        finish()


def _peak() -> str:
    """Return the largest memory that the process has held; nothing where the system does not say."""
    try:
        import resource
    except ImportError:
        return ""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{held / (1e9 if sys.platform == 'darwin' else 1e6):.2f} GB peak"
