"""`dpmrt compare`: schedules and grids, or solvers on a bundle, as a table and a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.conditioned import CONDITIONED, Conditioned
from dpmrt.runtime.cli.running import RUNNER, Runner
from dpmrt.runtime.cli.tables import print_table
from dpmrt.runtime.cli.values import parse_pairs, parse_shape

if TYPE_CHECKING:
    from dpmrt.runtime.comparison import Curve, Entry
    from dpmrt.solvers_np import Grid, NoiseSchedule

#: of solvers, where nothing says how many
_SAMPLES = 8
_USUAL_SCHEDULES = ("linear", "scaled_linear", "cosine", "sigmoid", "exponential")


@click.group("compare", short_help="Compare schedules and grids, or solvers on a bundle.")
def command() -> None:
    """Compare, in a table and a picture.

    \b
    Examples:
      dpmrt compare schedules -o schedules.png
      dpmrt compare solvers digits -o solvers.png
    """


@command.command("schedules")
@click.argument("names", nargs=-1)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Picture to write, .png.")
@click.option("--grid", "grids", multiple=True, help="A grid to show; repeatable.  [default: all that fit]")
@click.option("--steps", type=int, default=20, show_default=True, help="Steps of the grids.")
@click.option("--bundle", help="Show the schedule that this bundle was trained with, first.")
def schedules(
    names: tuple[str, ...], out: Path | None, grids: tuple[str, ...], steps: int, bundle: str | None
) -> None:
    """Show noise schedules by NAMES, and where each grid calls the network on the first of them.

    \b
    Examples:
      dpmrt compare schedules -o schedules.png
      dpmrt compare schedules linear cosine --steps 10 --grid karras --grid trailing -o two.png
      dpmrt compare schedules --bundle digits
    """
    from dpmrt.solvers_np import make_schedule
    from dpmrt.solvers_np.compile import MAX_STEPS
    from dpmrt.solvers_np.options import whole

    _check_out(out)
    whole("--steps", steps, 1, MAX_STEPS)
    shown: dict[str, NoiseSchedule] = {}
    if bundle is not None:
        from dpmrt.runtime.bundle import open_bundle
        from dpmrt.solvers_np import schedule_from_diffusers

        shown[bundle] = schedule_from_diffusers(open_bundle(bundle).scheduler_config)
    shown |= {name: make_schedule(name) for name in names or (() if bundle else _USUAL_SCHEDULES)}
    made = _grids(next(iter(shown.values())), steps, grids)
    _print_schedules(shown)
    click.echo()
    _print_grids(made)
    if out is not None:
        from dpmrt.runtime.charts import draw_schedules

        title = f"{steps} steps on {next(iter(shown))}"
        _write(out, lambda stream: draw_schedules(stream, shown, made, title))


@command.command("solvers")
@click.argument("bundle")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Picture to write, .png.")
@click.option("--table", type=click.Path(path_type=Path), help="Write the table to this file, .csv.")
@click.option(
    "--solver", "solvers", multiple=True, metavar="NAME[,KEY=VALUE...]", help="A solver to compare; repeatable."
)
@click.option("--calls", default="5,10,20,40", show_default=True, help="Numbers of network calls, as a list.")
@click.option("--reference", type=int, default=400, show_default=True, help="Calls for the exact solution.")
@click.option("-n", "--batch", type=int, help="How many samples.  [default: 8, or as many as labels or conditions]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise.")
@CONDITIONED
@click.option("--shape", metavar="SIZES", help="Shape of one sample, as 4,64,96.  [default: the bundle's]")
@RUNNER
def solvers(
    bundle: str,
    out: Path | None,
    table: Path | None,
    solvers: tuple[str, ...],
    calls: str,
    reference: int,
    batch: int | None,
    seed: int,
    shape: str | None,
    given: Conditioned,
    runner: Runner,
) -> None:
    """Compare solvers on BUNDLE: how far each is from the exact solution after so many network calls.

    All start from the same noise. What adds noise on its way has no one solution: its samples are shown, no error.
    A solver is a name, or a name with options: "dpmsolver++,order=3", "DPM++ 2M Karras", or `scheduler` for the
    bundle's own.

    \b
    Examples:
      dpmrt compare solvers digits -o solvers.png
      dpmrt compare solvers digits --solver ddim --solver "UniPC" --solver "DPM++ 2M Karras" --calls 5,10,20
      dpmrt compare solvers digits --solver dpmsolver++,order=3,grid=logsnr --label 3 --table errors.csv
      dpmrt compare solvers text-bundle --condition encoder_hidden_states=text.npy --shape 4,64,64 --guidance 5
    """
    from dpmrt.runtime.comparison import compare_solvers, total_calls
    from dpmrt.runtime.request import check_batch

    _check_out(out)
    _check_table(table)
    budgets, sizes = _budgets(calls), parse_shape(shape)
    entries = [_entry(text) for text in solvers or _usual()]
    runner.prepare(bundle, given, written={"--out": out, "--table": table}, read={})
    with runner.opened(bundle) as pipeline:
        sizes = pipeline.sample_shape(None, sizes)
        asked = given.settle(pipeline, batch)
        batch = check_batch(given.settle(pipeline, _SAMPLES) if batch is None and asked == 1 else asked, sizes)
        request: dict[str, Any] = {"batch": batch, "seed": seed, "shape": sizes, **given.arguments(batch)}
        total = total_calls(pipeline, entries, budgets, reference)
        with runner.watched("comparing", total) as watch:
            curves = compare_solvers(pipeline, entries, budgets, reference=reference, request=request, callback=watch)
        data_range = pipeline.manifest.data_range
    _print_curves(curves)
    if table is not None:
        _write_table(table, curves)
    if out is not None:
        from dpmrt.runtime.charts import draw_solvers

        title = f"{bundle}: {batch} samples from one noise"
        _write(out, lambda stream: draw_solvers(stream, curves, data_range, title, min(batch, 4)))


def _check_out(out: Path | None) -> None:
    if out is None:
        return
    from dpmrt.files import check_writable
    from dpmrt.runtime.charts import check_drawing

    if out.suffix.lower() != ".png":
        raise OptionError(
            "the picture is of an unknown kind", got=str(out), expected="a file that ends in .png", fix="-o out.png"
        )
    check_drawing()
    check_writable(out)


def _check_table(table: Path | None) -> None:
    if table is None:
        return
    from dpmrt.files import check_writable

    if table.suffix.lower() != ".csv":
        raise OptionError("the table is of an unknown kind", got=str(table), expected="a file that ends in .csv")
    check_writable(table)


def _budgets(text: str) -> list[int]:
    try:
        budgets = sorted({int(part) for part in text.split(",")})
    except ValueError:
        budgets = []
    if not budgets or budgets[0] < 1:
        raise OptionError("--calls is no list of numbers", got=repr(text), expected="whole numbers, as 5,10,20")
    return budgets


def _usual() -> Sequence[str]:
    from dpmrt.runtime.comparison import USUAL

    return USUAL


def _entry(text: str) -> Entry:
    from dpmrt.runtime.comparison import Entry

    name, *pairs = text.split(",")
    return Entry(text, None if name.strip() == "scheduler" else name.strip(), parse_pairs(pairs))


def _grids(schedule: NoiseSchedule, steps: int, names: Sequence[str]) -> dict[str, Grid]:
    from dpmrt.solvers_np import GRIDS, make_grid

    if names:
        return {name: make_grid(name, schedule, steps) for name in names}
    made = {}
    for name in GRIDS:
        try:
            made[name] = make_grid(name, schedule, steps)
        except OptionError:
            continue  # needs numbers of its own, or another kind of schedule
    return made


def _print_schedules(shown: dict[str, NoiseSchedule]) -> None:
    rows = []
    for name, schedule in shown.items():
        ends = [(float(schedule.alpha(t)), float(schedule.sigma(t))) for t in (schedule.t_min, schedule.t_max)]
        lambdas = [math.log(a / s) if a and s else math.inf if a else -math.inf for a, s in ends]
        rows.append(
            [
                name,
                f"{schedule.t_min:g} to {schedule.t_max:g}",
                f"{lambdas[0]:.3f}",
                f"{lambdas[1]:.3f}",
                f"{ends[1][0]:.5f}",
                f"{ends[1][1]:.5f}",
            ]
        )
    print_table(["schedule", "times", "lambda, first", "last", "alpha, last", "sigma, last"], rows)


def _print_grids(made: dict[str, Grid]) -> None:
    rows = []
    for name, grid in made.items():
        times = [f"{t:.4g}" for t in grid.t]
        rows.append([name, f"{len(grid)}", *(times[:4] + [""] * 4)[:4], times[-1], f"{grid.last.sigma:.4g}"])
    print_table(["grid", "steps", "first times", "", "", "", "last", "sigma at the end"], rows)


def _print_curves(curves: Sequence[Curve]) -> None:
    rows = []
    for curve in curves:
        for point in curve.points:
            error = "adds noise" if curve.stochastic else f"{point.error:.3e}"
            rows.append([curve.name, str(point.calls), error, f"{point.seconds:.2f}"])
    print_table(["solver", "calls", "distance from exact", "seconds"], rows)


def _write_table(path: Path, curves: Sequence[Curve]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["solver", "calls", "error", "seconds"])
    for curve in curves:
        writer.writerows(
            [curve.name, p.calls, "" if curve.stochastic else repr(p.error), f"{p.seconds:.4f}"] for p in curve.points
        )
    _write(path, lambda stream: stream.write(text.getvalue().encode()))


def _write(path: Path, draw: Callable[[BinaryIO], object]) -> None:
    from dpmrt.files import atomic_write

    buffer = io.BytesIO()
    draw(buffer)
    with atomic_write(path) as stream:
        stream.write(buffer.getvalue())
    click.echo(f"wrote {path}")
