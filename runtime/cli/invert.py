"""`dpmrt invert`: the noise from which a solver leads to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.arrays import write_array
from dpmrt.runtime.cli.conditioned import CONDITIONED, Conditioned
from dpmrt.runtime.cli.options import FILE, SOLVER_OPTION, counted, parse_options
from dpmrt.runtime.cli.outputs import SHEET, Sheet, check_kind, check_samples, write_samples
from dpmrt.runtime.cli.running import RUNNER, Runner

if TYPE_CHECKING:
    from numpy.typing import NDArray


@click.command("invert", short_help="Find the noise that leads to a picture.")
@click.argument("bundle")
@click.option(
    "--image", "images", multiple=True, required=True, type=FILE, help="A .png, or a .npy of one or many; repeatable."
)
@click.option("-o", "--out", required=True, type=FILE, help="File for the noise, .npy.")
@click.option("--reconstruct", type=FILE, help="Sample from the noise again and write this .png or .npy.")
@click.option("--steps", type=int, help="How many steps.  [default: the bundle's]")
@click.option("--solver", default="ddim", show_default=True, help="Name of a solver without noise.")
@click.option(
    "--iterations",
    type=int,
    default=0,
    show_default=True,
    help="Fixed-point iterations a step; 0 takes the step once.",
)
@CONDITIONED
@SOLVER_OPTION
@SHEET
@RUNNER
def command(
    bundle: str,
    images: tuple[Path, ...],
    out: Path,
    reconstruct: Path | None,
    steps: int | None,
    solver: str,
    iterations: int,
    options: tuple[str, ...],
    given: Conditioned,
    sheet: Sheet,
    runner: Runner,
) -> None:
    """Invert pictures with BUNDLE's network: write the noise from which the same solver and steps lead back to them.

    `dpmrt sample --noise` starts from it, with the same --solver, --steps, --label and flags of guidance, which mean
    what they mean there. A classifier guides without --iterations only, and not in the mode mean.

    \b
    Examples:
      dpmrt sample digits -o five.png --label 5 --seed 2
      dpmrt invert digits --image five.png --label 5 --guidance 1 --steps 50 -o noise.npy --reconstruct again.png
      dpmrt invert digits --image five.png --label 5 --guidance 1 --steps 20 --iterations 8 -o noise.npy
      dpmrt sample digits --noise noise.npy --solver ddim --steps 20 --label 5 --guidance 1 -o five-again.png
    """
    if out.suffix.lower() != ".npy":
        raise OptionError(
            "noise is written as numbers",
            got=f"-o {out}",
            expected="the name of a file that ends in .npy",
            fix=f"-o {out.with_suffix('.npy')}" if out.stem.strip(".-") else "-o noise.npy",
        )
    if reconstruct is not None:
        check_kind(reconstruct, sheet, what="the file of --reconstruct", flag="--reconstruct")
    elif sheet.asked:
        raise OptionError(
            "--grid and --scale are for pictures", got="no --reconstruct", expected="--reconstruct FILE"
        )
    chosen = parse_options(options, iterations="--iterations")

    from dpmrt.runtime.editing import inversion
    from dpmrt.runtime.editing.arrays import check_images
    from dpmrt.runtime.editing.files import read_images

    written = {"--out": out, "--reconstruct": reconstruct}
    read: dict[str, Path | None] = {f"--image {path}": path for path in images}
    runner.prepare(bundle, given, written=written, read=read)
    with runner.opened(bundle) as pipeline:
        x0 = check_images(pipeline, read_images(pipeline, images))
        count = given.settle(pipeline, None, x0)
        if reconstruct is not None:
            check_samples(pipeline, reconstruct, count, x0.shape[1:], sheet)
        request: dict[str, Any] = {
            "steps": steps,
            "solver": solver,
            "iterations": iterations,
            **given.arguments(count),
            **chosen,
        }
        error: list[str] = []
        with runner.watched("inverting", None) as watch:
            noise: NDArray[Any]
            if reconstruct is None:
                noise = inversion.invert(pipeline, x0, callback=watch, **request)
            else:
                found = inversion.reconstruct(pipeline, x0, callback=watch, **request)
                noise, error = found.noise, [f"root mean square error {found.error.max():.2g}"]
        write_array(out, noise)
        if reconstruct is not None:
            write_samples(pipeline, reconstruct, found.images, sheet)
    runner.say(out, counted(count, "noise"), watch, *error)
