"""`dpmrt calibrate`: what the analytic variance needs to know, measured over data and stored in the bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.arrays import parse_files, read_arrays
from dpmrt.runtime.cli.notices import notices
from dpmrt.runtime.cli.progress import progress_bar
from dpmrt.runtime.cli.values import parse_pairs
from dpmrt.runtime.npy import read_array

if TYPE_CHECKING:
    from dpmrt.engines import EpsPower


@click.command("calibrate", short_help="Measure what the analytic variance needs, over data.")
@click.argument("bundle")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="An array (n, *shape) in a .npy, or a folder of .npy and .png files.",
)
@click.option("--samples", type=int, default=256, show_default=True, help="How many of the data are taken.")
@click.option("-n", "--batch", type=int, default=64, show_default=True, help="Samples in a network call.")
@click.option("--steps", type=int, help="At how many training times.  [default: all]")
@click.option("--times", help="At which training times, a list as 0,10,20.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the choice and of the noise.")
@click.option("--label", help="A class for all, or one for each datum (.npy).  [default: no class]")
@click.option("--condition", "conditions", multiple=True, metavar="NAME=FILE", help="A condition (.npy); repeatable.")
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="Where to keep what is known.  [default: beside it]"
)
@click.option("--restart", is_flag=True, help="Begin anew, whatever a checkpoint knows.")
@click.option("--engine", default="auto", show_default=True, help="What runs the network.")
@click.option("--threads", type=int, help="Threads of the engine.  [default: the engine's choice]")
@click.option("--engine-option", "engine_pairs", multiple=True, metavar="KEY=VALUE", help="An option of the engine.")
@click.option("--progress/--no-progress", default=None, help="Show a progress bar.  [default: on a terminal]")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    bundle: str,
    data: Path,
    samples: int,
    batch: int,
    steps: int | None,
    times: str | None,
    seed: int,
    label: str | None,
    conditions: tuple[str, ...],
    checkpoint: Path | None,
    restart: bool,
    engine: str,
    threads: int | None,
    engine_pairs: tuple[str, ...],
    progress: bool | None,
    quiet: bool,
) -> None:
    """Measure the mean of eps(x_t, t)^2 of BUNDLE's network over data, and store it in the bundle.

    `dpmrt sample BUNDLE --solver ddpm --option variance=analytic` then uses the optimal variance of Analytic-DPM. A
    run that was stopped, be it by force, goes on where it was when the same is asked again, and comes to the same
    numbers; the bundle is as it was until the end.

    \b
    Examples:
      dpmrt calibrate bundles/digits --data digits.npy
      dpmrt calibrate bundles/cifar --data pictures/ --samples 1000 --batch 100 --steps 100
      dpmrt calibrate bundles/digits --data digits.npy --label labels.npy
    """
    from dpmrt.runtime.calibration.calibrate import calibrate

    options = parse_pairs(engine_pairs, what="an option of the engine")
    if threads is not None:
        options["threads"] = threads
    given = read_arrays("--condition", parse_files("--condition", conditions))
    started = time.perf_counter()
    with notices(quiet), progress_bar("calibrating", 1, progress, quiet) as advance:
        found = calibrate(
            bundle,
            data,
            samples=samples,
            batch=batch,
            steps=steps,
            times=_parse_times(times),
            seed=seed,
            label=_parse_label(label),
            conditions=given,
            engine=engine,
            checkpoint=checkpoint,
            restart=restart,
            callback=None if advance is None else lambda done, total: advance(done / total),
            **options,
        )
    if not quiet:
        click.echo(_summary(bundle, found, time.perf_counter() - started))


def _summary(bundle: str, found: EpsPower, seconds: float) -> str:
    first, last = found.power[0], found.power[-1]
    return (
        f"{bundle}: measured at {len(found.times)} times over {found.samples} samples, {seconds:.2f} s\n"
        f"mean of eps^2 from {first:.4f} at t = {found.times[0]:g} to {last:.4f} at t = {found.times[-1]:g}, "
        f"each within {max(found.error):.2g}"
    )


def _parse_times(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise OptionError("--times is no list of times", got=repr(text), expected="as --times 0,10,20") from None


def _parse_label(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        return read_array("--label", Path(text))
