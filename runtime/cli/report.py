"""What a sampler without a fixed grid leaves beside its samples: a report, and what it had if it ended early."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from dpmrt.errors import OptionError, PartialError
from dpmrt.files import atomic_write
from dpmrt.runtime.cli.arrays import write_array
from dpmrt.runtime.drivers.base import Report


def check_report(path: Path | None, solver: str | None, driven: bool) -> None:
    """Refuse, before any work, a report that could not be written; None asks for none."""
    if path is None:
        return
    if not driven:
        raise OptionError(
            "--report is for solvers without a fixed grid",
            got=f"--solver {solver}" if solver else "the bundle's own solver",
            expected="a solver such as dpm-solver-23",
            fix="leave out --report; --save-plan writes what other solvers do",
        )
    if path.suffix.lower() not in (".json", ".png"):
        raise OptionError("the report is of an unknown kind", got=str(path), expected="a name in .json or .png")
    if path.suffix.lower() == ".png":
        from dpmrt.runtime.charts import check_drawing

        check_drawing()


@contextmanager
def reporting(path: Path | None, out: Path) -> Iterator[list[Report]]:
    """Write the report that the block puts into the list.

    Of a run that ended early it is the one that its error carries, and the state that it had reached is written too,
    beside `out`, which is not.
    """
    found: list[Report] = []
    try:
        yield found
    except PartialError as error:
        found.append(error.report)
        kept = out.with_suffix(".partial.npy")
        write_array(kept, np.ascontiguousarray(error.samples))
        click.echo(f"kept what was reached, the state at t = {error.t:g}: {kept}", err=True)
        raise
    finally:
        if path is not None and found:
            write_report(path, found[0])


def write_report(path: Path, report: Report) -> None:
    """Write a report by the kind of file that its name asks for."""
    if path.suffix.lower() == ".png":
        report.plot(path)
        return
    with atomic_write(path) as stream:
        stream.write(json.dumps(report.to_json(), indent=1).encode() + b"\n")
