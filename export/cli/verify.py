"""`dpmrt verify`: a bundle beside its torch network, call by call and step by step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.values import parse_shape

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@click.command("verify", short_help="Compare a bundle with its torch network: single calls and whole trajectories.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Folder of the torch network, or a factory.  [default: where it came from]",
)
@click.option("--spec", help="Spec of the network of a factory.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights of the network of a factory.")
@click.option("--classifier", help="Folder of the torch classifier, or a factory.  [default: where it came from]")
@click.option("--no-classifier", is_flag=True, help="Leave the gradient of the bundle's classifier out.")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    help="What runs the bundle's network; repeatable.  [default: all that can]",
)
@click.option("--steps", type=int, help="Sampling steps.  [default: the bundle's]")
@click.option("--batch", default=2, show_default=True, help="Samples at a time.")
@click.option("--seed", default=0, show_default=True, help="Seed of inputs and noise.")
@click.option("--shape", metavar="SIZES", help="Shape of one sample, as 4,64,96.  [default: the bundle's]")
@click.option("--guidance", type=float, help="Guidance scale.  [default: the bundle's]")
@click.option(
    "--tolerance", type=float, help="Largest relative drift at the end that passes.  [default: 1e-4 in fp32]"
)
@click.option(
    "--write/--no-write",
    default=None,
    help="Keep parity.json and drift.png in the bundle.  [default: unless the bundle ships with dpmrt]",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Write the drift as a picture to this file, .png.")
@click.option("--no-plot", is_flag=True, help="Draw no picture.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    bundle: Path,
    against: Path | None,
    spec: str | None,
    weights: Path | None,
    classifier: str | None,
    no_classifier: bool,
    backends: tuple[str, ...],
    steps: int | None,
    batch: int,
    seed: int,
    shape: str | None,
    guidance: float | None,
    tolerance: float | None,
    write: bool | None,
    plot: Path | None,
    no_plot: bool,
    as_json: bool,
) -> None:
    """Compare BUNDLE with the torch network it came from, on every backend that runs it here.

    First single calls, over shapes, times and random inputs; then whole trajectories with the same noise; then the
    gradient of its classifier and the product with its Jacobian, if the bundle has them. The report is written to
    parity.json in the bundle and drawn in drift.png beside it, unless the bundle ships with dpmrt. The exit code
    is 1 when one of the numbers is beyond its limit.

    \b
    Examples:
      dpmrt verify engines/digits
      dpmrt verify engines/digits --steps 50 --guidance 4 --plot drift.png
      dpmrt verify bundles/cifar --against ddpm-cifar10-32 --no-write
      dpmrt verify bundles/sd-fp16 --backend emulated --json
      dpmrt verify bundles/guided --classifier my.package:judge
    """
    from dpmrt.export.extras import require_export

    require_export()

    import msgspec

    from dpmrt.export.certificate import verify, writes_parity
    from dpmrt.export.cli.report import print_report
    from dpmrt.runtime.bundle import find_bundle

    with _bars() as bars:
        report = verify(
            bundle,
            against=against,
            spec=spec,
            weights=weights,
            classifier=_classifier(classifier, no_classifier),
            backends=backends,
            steps=steps,
            batch=batch,
            seed=seed,
            shape=parse_shape(shape),
            guidance=guidance,
            tolerance=tolerance,
            write=write,
            plot=_picture(plot, no_plot),
            progress=_progress(bars),
        )
    root = find_bundle(bundle)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        print_report(str(bundle), report)
        if write is None and not writes_parity(root, write):
            click.echo("\nThe bundle ships with dpmrt; its parity.json was left as it is. --write replaces it.")
    if not report.passed:
        raise SystemExit(1)


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(file=sys.stderr), transient=True)


def _progress(bars: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, TaskID] = {}

    def tell(phase: str, done: int, total: int) -> None:
        if phase not in tasks:
            tasks[phase] = bars.add_task(phase, total=None, start=False)
        if total:
            bars.start_task(tasks[phase])
            bars.update(tasks[phase], completed=done, total=total)

    return tell


def _classifier(classifier: str | None, left_out: bool) -> str | bool | None:
    if classifier is not None and left_out:
        raise OptionError("--classifier and --no-classifier contradict each other", expected="one of them")
    return False if left_out else classifier


def _picture(plot: Path | None, no_plot: bool) -> Path | bool:
    if plot is not None and no_plot:
        raise OptionError("--plot and --no-plot contradict each other", expected="one of them")
    if plot is not None and plot.suffix.lower() != ".png":
        raise OptionError("the picture is a PNG", got=plot.name, expected="a name ending in .png")
    return plot if plot is not None else not no_plot
