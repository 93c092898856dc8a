"""`dpmrt interpolate`: the way from one sample to another, frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.conditioned import CONDITIONED, Conditioned
from dpmrt.runtime.cli.options import FILE, FPS, SAMPLER, SOLVER_OPTION, counted, parse_options
from dpmrt.runtime.cli.outputs import (
    SHEET,
    Sheet,
    check_frames,
    check_kind,
    check_samples,
    write_frames,
    write_samples,
)
from dpmrt.runtime.cli.running import RUNNER, Runner
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
@CONDITIONED
@click.option("--shape", metavar="SIZES", help="Shape of one sample, as 4,64,96.  [default: the bundle's]")
@SOLVER_OPTION
@SHEET
@FPS
@RUNNER
def command(
    bundle: str,
    seeds: str,
    out: Path,
    frames: int,
    mode: str,
    seed: int,
    steps: int | None,
    solver: str | None,
    shape: str | None,
    options: tuple[str, ...],
    fps: float,
    given: Conditioned,
    sheet: Sheet,
    runner: Runner,
) -> None:
    """Sample from BUNDLE at noises on the way from one seed to the next.

    A condition with a row for each seed is interpolated, too; lists of labels and of scales go over the frames.

    \b
    Examples:
      dpmrt interpolate digits --seeds 1,2 --label 3 -o way.png
      dpmrt interpolate digits --seeds 1,2,1 --frames 24 --label 3 -o loop.apng --fps 12
      dpmrt interpolate digits --seeds 1,1 --frames 5 --label 3 --guidance 1,2,3,4,5 -o stronger.png
    """
    check_kind(out, sheet)
    chosen = parse_options(options, mode="--mode", frames="--frames", seeds="--seeds")
    try:
        keys = [int(part) for part in seeds.split(",")]
    except ValueError:
        raise OptionError("--seeds is no list of seeds", got=repr(seeds), expected="whole numbers, as 1,2") from None
    sizes = parse_shape(shape)

    from dpmrt.runtime.animation import check_fps
    from dpmrt.runtime.editing import interpolation
    from dpmrt.runtime.request import check_whole

    check_fps(fps)
    check_whole("frames", frames, 2)
    moving = out.suffix.lower() == ".apng"
    runner.prepare(bundle, given, written={"--out": out}, read={})
    with runner.opened(bundle) as pipeline:
        sizes = pipeline.sample_shape(shape=sizes)
        given.settle(pipeline, frames)
        if moving:
            check_frames(out, frames, 1, sizes, sheet)
        else:
            check_samples(pipeline, out, frames, sizes, sheet.row(frames))
        plan = pipeline.plan(steps, solver, **chosen)
        request: dict[str, Any] = {
            "mode": mode,
            "shape": sizes,
            "seed": seed,
            "steps": steps,
            "solver": solver,
            **given.arguments(frames),
            **chosen,
        }
        with runner.watched("interpolating", plan.calls) as watch:
            way = interpolation.interpolate(pipeline, keys, frames, callback=watch, **request)
        if moving:
            write_frames(pipeline, out, way[:, None], sheet, fps)
        else:
            write_samples(pipeline, out, way, sheet.row(frames))
    runner.say(out, counted(frames, "frame"), watch)
