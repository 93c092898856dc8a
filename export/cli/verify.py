"""`dpmrt verify`: a bundle beside its torch network, step by step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from dpmrt.engines.parity import ParityReport


@click.command("verify", short_help="Compare a bundle with its torch network over a whole trajectory.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--against", type=click.Path(path_type=Path), help="Folder of the torch network.  [default: where it came from]"
)
@click.option("--steps", type=int, help="Sampling steps.  [default: the bundle's]")
@click.option("--batch", default=2, show_default=True, help="Samples at a time.")
@click.option("--seed", default=0, show_default=True, help="Seed of the noise.")
@click.option("--guidance", type=float, help="Guidance scale.  [default: the bundle's]")
@click.option("--tolerance", default=1e-4, show_default=True, help="Largest relative drift at the end that passes.")
@click.option("--backend", default="onnxruntime", show_default=True, help="What runs the bundle's network.")
@click.option(
    "--write/--no-write",
    default=None,
    help="Keep the result in the bundle's parity.json.  [default: unless the bundle ships with dpmrt]",
)
def command(
    bundle: Path,
    against: Path | None,
    steps: int | None,
    batch: int,
    seed: int,
    guidance: float | None,
    tolerance: float,
    backend: str,
    write: bool | None,
) -> None:
    """Sample from BUNDLE and from the torch network it came from, with the same noise, and compare every step.

    The result is written to parity.json in the bundle, unless the bundle ships with dpmrt.
    The exit code is 1 when the two have drifted apart.

    \b
    Examples:
      dpmrt verify engines/digits
      dpmrt verify engines/digits --steps 50 --guidance 4
      dpmrt verify bundles/cifar --against ddpm-cifar10-32 --no-write
    """
    from rich.console import Console
    from rich.progress import Progress

    from dpmrt.export.extras import require_export

    require_export()

    from dpmrt.export.parity import verify, writes_parity
    from dpmrt.runtime.bundle import find_bundle

    with Progress(console=Console(file=sys.stderr), transient=True) as bars:
        tasks = {side: bars.add_task(f"Sampling with {side}", total=None) for side in ("torch", "bundle")}
        report = verify(
            bundle,
            against=against,
            steps=steps,
            batch=batch,
            seed=seed,
            guidance=guidance,
            tolerance=tolerance,
            backend=backend,
            write=write,
            progress=lambda side, done, total: bars.update(tasks[side], completed=done, total=total),
        )
    _print_report(Console(), report)
    if write is None and not writes_parity(find_bundle(bundle), write):
        click.echo("The bundle ships with dpmrt; its parity.json was left as it is. --write replaces it.")
    if not report.passed:
        raise SystemExit(1)


def _print_report(console: Console, report: ParityReport) -> None:
    from rich.table import Table

    options = ", ".join(f"{name} {value:g}" for name, value in report.options.items() if value is not None)
    table = Table(title=f"{report.backend} beside torch: {report.scheduler}, {options}", title_justify="left")
    for heading in ("step", "t", "rms", "max difference", "relative drift"):
        table.add_column(heading, justify="right")
    for index, row in enumerate(report.steps, start=1):
        table.add_row(str(index), f"{row.t:g}", f"{row.rms:.4f}", f"{row.max_abs:.2e}", f"{row.drift:.2e}")
    console.print(table)
    verdict = "[green]PASS[/green]" if report.passed else "[red]FAIL[/red]"
    console.print(f"{verdict}: relative drift {report.drift:.2e} at the end, tolerance {report.tolerance:.0e}")
