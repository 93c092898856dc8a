"""`dpmrt bench`: how fast a bundle samples, engine by engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.values import parse_shape

if TYPE_CHECKING:
    from dpmrt.runtime.bench.schema import BenchReport

_CANCELLED = 130


@click.command("bench", short_help="Measure how fast a bundle samples, engine by engine.")
@click.argument("bundle")
@click.option("--engine", "engines", multiple=True, help="An engine; repeatable.  [default: all that can]")
@click.option("-n", "--batch", "batches", default="1", show_default=True, help="Batch sizes, as 1,2,4,8.")
@click.option("--steps", type=int, help="How many steps.  [default: the bundle's]")
@click.option("--solver", help="Name of a solver.  [default: the bundle's scheduler]")
@click.option("--shape", metavar="SIZES", help="Shape of one sample, as 4,64,96.  [default: the bundle's]")
@click.option("--guidance", type=float, help="Scale of classifier-free guidance.  [default: the bundle's]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise.")
@click.option("--threads", type=int, help="Threads of the engine, and of torch.  [default: their choice]")
@click.option("--warmUp", "warm_up", type=float, default=200.0, show_default=True, help="Run so long first, in ms.")
@click.option("--duration", type=float, default=3.0, show_default=True, help="Measure at least so long, in s.")
@click.option("--iterations", type=int, default=10, show_default=True, help="Measure at least so many runs.")
@click.option("--avgRuns", "average", type=int, default=1, show_default=True, help="Runs in one measured time.")
@click.option("--fresh/--no-fresh", default=True, show_default=True, help="Time a fresh process's first sample too.")
@click.option("--against", metavar="NAME", help="Time this beside the engines: torch.")
@click.option("--source", type=click.Path(path_type=Path), help="Folder of torch's network.  [default: recorded]")
@click.option("--compile", "compiled", is_flag=True, help="Pass torch's network through torch.compile.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the report to this file, .json.")
@click.option("--progress/--no-progress", default=None, help="Show a progress bar.  [default: on a terminal]")
def command(
    bundle: str,
    engines: tuple[str, ...],
    batches: str,
    steps: int | None,
    solver: str | None,
    shape: str | None,
    guidance: float | None,
    seed: int,
    threads: int | None,
    warm_up: float,
    duration: float,
    iterations: int,
    average: int,
    fresh: bool,
    against: str | None,
    source: Path | None,
    compiled: bool,
    json_file: Path | None,
    progress: bool | None,
) -> None:
    """Measure BUNDLE on each engine: network calls, whole samples, what the loop adds, and the first sample.

    The flags for time are trtexec's. Labels and conditions are made up. The exit code is 1 where an engine failed,
    or where the results of --against differ by more than `dpmrt verify` lets pass.

    \b
    Examples:
      dpmrt bench digits
      dpmrt bench digits --batch 1,2,4,8 --steps 20 --threads 2 --json bench.json
      dpmrt bench digits --warmUp 500 --duration 10 --iterations 100
      dpmrt bench engines/digits --against torch --source engines/checkpoints/digits-unet
    """
    from dpmrt.files import check_writable
    from dpmrt.runtime.bench.timer import Timing

    timing = Timing(warm_up / 1e3, duration, iterations, average)
    sizes, shape_of_one = _batches(batches), parse_shape(shape)
    if json_file is not None:
        check_writable(json_file)

    from dpmrt.runtime.bench.run import bench_bundle
    from dpmrt.runtime.cli.bench_report import print_report
    from dpmrt.runtime.cli.phases import phase_bar

    doing = ""
    try:
        with phase_bar(progress) as advance:

            def tell(engine: str, phase: str, part: float) -> None:
                nonlocal doing
                doing = f"{engine}, {phase}"
                if advance is not None:
                    advance(doing, part)

            report = bench_bundle(
                bundle,
                engines=engines or None,
                batches=sizes,
                steps=steps,
                solver=solver,
                shape=shape_of_one,
                guidance=guidance,
                seed=seed,
                threads=threads,
                timing=timing,
                fresh=fresh,
                against=against,
                source=source,
                compiled=compiled,
                progress=tell,
            )
    except KeyboardInterrupt:
        click.echo(f"cancelled{f' while measuring {doing}' if doing else ''}; no report was written", err=True)
        raise SystemExit(_CANCELLED) from None
    print_report(report)
    if json_file is not None:
        _write(json_file, report)
        click.echo(f"\nwrote {json_file}")
    if not report.sound:
        raise SystemExit(1)


def _write(path: Path, report: BenchReport) -> None:
    from dpmrt.engines.json_file import write_json

    write_json(path, report)


def _batches(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(
            "--batch is no list of batch sizes", got=repr(text), expected="whole numbers, as --batch 1,2,4,8"
        ) from None
