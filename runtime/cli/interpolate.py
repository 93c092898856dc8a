"""`dpmrt interpolate`: the way from one sample to another, frame by frame."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.arrays import parse_files, read_arrays
from dpmrt.runtime.cli.options import (
    CONDITIONS,
    ENGINE,
    FILE,
    FPS,
    GUIDANCE,
    SAMPLER,
    SHEET,
    SOLVER_OPTION,
    counted,
    cycled,
    parse_labels,
    parse_options,
    settle_batch,
)
from dpmrt.runtime.cli.outputs import (
    check_frames,
    check_kind,
    check_places,
    check_samples,
    write_frames,
    write_samples,
)
from dpmrt.runtime.cli.running import check_engine, opened, say, watched
from dpmrt.runtime.cli.values import parse_shape


@click.command("interpolate", short_help="Sample the way from one seed to another.")
@click.argument("bundle")
@click.option("--seeds", required=True, metavar="A,B[,...]", help="Seeds of the noises to go through.")
@click.option("-o", "--out", required=True, type=FILE, help="File to write: .png (a strip), .apng or .npy.")
@click.option("-f", "--frames", type=int, default=9, show_default=True, help="How many samples on the way.")
@click.option(
    "--mode",
    type=click.Choice(["slerp", "lerp"]),
    default="slerp",
    show_default=True,
    help="Along a great circle, or a straight line.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the fresh noise of a stochastic solver."
)
@SAMPLER
@GUIDANCE
@click.option("--label", help="A class for all frames, or a list as 0,1,2 that is cycled.")
@CONDITIONS
@click.option("--shape", metavar="SIZES", help="Shape of one sample, as 4,64,96.  [default: the bundle's]")
@SOLVER_OPTION
@SHEET
@FPS
@ENGINE
def command(
    bundle: str,
    seeds: str,
    out: Path,
    frames: int,
    mode: str,
    seed: int,
    steps: int | None,
    solver: str | None,
    guidance: float | None,
    label: str | None,
    conditions: tuple[str, ...],
    negative: tuple[str, ...],
    shape: str | None,
    options: tuple[str, ...],
    grid: int | None,
    scale: int | None,
    fps: float,
    engine: str,
    threads: int | None,
    engine_pairs: tuple[str, ...],
    progress: bool | None,
    quiet: bool,
) -> None:
    """Sample from BUNDLE at noises on the way from one seed to the next.

    A condition with a row for each seed is interpolated, too.

    \b
    Examples:
      dpmrt interpolate digits --seeds 1,2 --label 3 -o way.png
      dpmrt interpolate digits --seeds 1,2,1 --frames 24 --label 3 -o loop.apng --fps 12
    """
    from dpmrt.files import check_writable

    check_kind(out, grid, scale)
    chosen = parse_options(options, mode="--mode", frames="--frames", seeds="--seeds")
    try:
        keys = [int(part) for part in seeds.split(",")]
    except ValueError:
        raise OptionError("--seeds is no list of seeds", got=repr(seeds), expected="whole numbers, as 1,2") from None
    sizes = parse_shape(shape)
    files = {"--condition": parse_files("--condition", conditions), "--negative": parse_files("--negative", negative)}
    check_writable(out)

    from dpmrt.runtime.animation import check_fps
    from dpmrt.runtime.bundle import find_bundle
    from dpmrt.runtime.editing import interpolation
    from dpmrt.runtime.images import check_layout
    from dpmrt.runtime.request import check_whole

    check_layout(grid, scale)
    check_fps(fps)
    check_engine(engine)
    check_whole("frames", frames, 2)
    read: dict[str, Path | None] = {
        f"{flag} {name}": path for flag, named in files.items() for name, path in named.items()
    }
    check_places({"--out": out}, read, find_bundle(bundle))
    given, away = (read_arrays(flag, named) for flag, named in files.items())
    with opened(bundle, engine, threads, engine_pairs, quiet) as pipeline:
        sizes = pipeline.sample_shape(shape=sizes)
        labels = parse_labels(label, pipeline.bundle.classes)
        settle_batch(frames, labels, None, {})
        if out.suffix.lower() == ".apng":
            check_frames(out, frames, 1, sizes, grid, scale)
        else:
            check_samples(pipeline, out, frames, sizes, frames if grid is None else grid, scale)
        plan = pipeline.plan(steps, solver, **chosen)
        started = time.perf_counter()
        with watched("interpolating", plan.calls, progress, quiet) as calls:
            way = interpolation.interpolate(
                pipeline,
                keys,
                frames,
                mode=mode,
                conditions=given,
                negative=away,
                shape=sizes,
                seed=seed,
                steps=steps,
                solver=solver,
                guidance=guidance,
                label=cycled(labels, frames),
                callback=calls,
                **chosen,
            )
        seconds = time.perf_counter() - started
        if out.suffix.lower() == ".apng":
            write_frames(pipeline, out, way[:, None], grid, scale, fps)
        else:
            write_samples(pipeline, out, way, frames if grid is None else grid, scale)
    say(out, counted(frames, "frame"), calls.made, seconds, quiet)
