"""`dpmrt invert`: the noise from which a solver leads to a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.arrays import parse_files, read_arrays, write_array
from dpmrt.runtime.cli.options import (
    CONDITIONS,
    ENGINE,
    FILE,
    GUIDANCE,
    LABEL,
    SHEET,
    SOLVER_OPTION,
    counted,
    cycled,
    parse_labels,
    parse_options,
    settle_batch,
)
from dpmrt.runtime.cli.outputs import check_kind, check_places, check_samples, write_samples
from dpmrt.runtime.cli.running import check_engine, opened, say, watched

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
@GUIDANCE
@LABEL
@CONDITIONS
@SOLVER_OPTION
@SHEET
@ENGINE
def command(
    bundle: str,
    images: tuple[Path, ...],
    out: Path,
    reconstruct: Path | None,
    steps: int | None,
    solver: str,
    iterations: int,
    guidance: float | None,
    label: str | None,
    conditions: tuple[str, ...],
    negative: tuple[str, ...],
    options: tuple[str, ...],
    grid: int | None,
    scale: int | None,
    engine: str,
    threads: int | None,
    engine_pairs: tuple[str, ...],
    progress: bool | None,
    quiet: bool,
) -> None:
    """Invert pictures with BUNDLE's network: write the noise from which the same solver and steps lead back to them.

    `dpmrt sample --noise` starts from it, with the same --solver, --steps, --label and --guidance.

    \b
    Examples:
      dpmrt sample digits -o five.png --label 5 --seed 2
      dpmrt invert digits --image five.png --label 5 --guidance 1 --steps 50 -o noise.npy --reconstruct again.png
      dpmrt invert digits --image five.png --label 5 --guidance 1 --steps 20 --iterations 8 -o noise.npy
      dpmrt sample digits --noise noise.npy --solver ddim --steps 20 --label 5 --guidance 1 -o five-again.png
    """
    from dpmrt.files import check_writable

    if out.suffix.lower() != ".npy":
        raise OptionError(
            "noise is written as numbers",
            got=f"-o {out}",
            expected="the name of a file that ends in .npy",
            fix=f"-o {out.with_suffix('.npy')}" if out.stem.strip(".-") else "-o noise.npy",
        )
    if reconstruct is not None:
        check_kind(reconstruct, grid, scale, what="the file of --reconstruct", flag="--reconstruct")
    elif grid is not None or scale is not None:
        raise OptionError(
            "--grid and --scale are for pictures", got="no --reconstruct", expected="--reconstruct FILE"
        )
    chosen = parse_options(options, iterations="--iterations")
    files = {"--condition": parse_files("--condition", conditions), "--negative": parse_files("--negative", negative)}
    for path in (out, reconstruct):
        if path is not None:
            check_writable(path)

    from dpmrt.runtime.bundle import find_bundle
    from dpmrt.runtime.editing import inversion
    from dpmrt.runtime.editing.arrays import check_images
    from dpmrt.runtime.editing.files import read_images
    from dpmrt.runtime.images import check_layout

    check_layout(grid, scale)
    check_engine(engine)
    read: dict[str, Path | None] = {f"--image {path}": path for path in images}
    read |= {f"{flag} {name}": path for flag, named in files.items() for name, path in named.items()}
    check_places({"--out": out, "--reconstruct": reconstruct}, read, find_bundle(bundle))
    given, away = (read_arrays(flag, named) for flag, named in files.items())
    with opened(bundle, engine, threads, engine_pairs, quiet) as pipeline:
        x0 = check_images(pipeline, read_images(pipeline, images))
        labels = parse_labels(label, pipeline.bundle.classes)
        count = settle_batch(None, labels, x0, given)
        if reconstruct is not None:
            check_samples(pipeline, reconstruct, count, x0.shape[1:], grid, scale)
        request: dict[str, Any] = {
            "steps": steps,
            "solver": solver,
            "iterations": iterations,
            "guidance": guidance,
            "label": cycled(labels, count),
            "conditions": given,
            "negative": away,
            **chosen,
        }
        started, error = time.perf_counter(), []
        with watched("inverting", None, progress, quiet) as calls:
            noise: NDArray[Any]
            if reconstruct is None:
                noise = inversion.invert(pipeline, x0, callback=calls, **request)
            else:
                found = inversion.reconstruct(pipeline, x0, callback=calls, **request)
                noise, error = found.noise, [f"root mean square error {found.error.max():.2g}"]
        seconds = time.perf_counter() - started
        write_array(out, noise)
        if reconstruct is not None:
            write_samples(pipeline, reconstruct, found.images, grid, scale)
    say(out, counted(count, "noise"), calls.made, seconds, quiet, *error)
