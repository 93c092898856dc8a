"""`dpmrt sample`: pictures or numbers out of a bundle."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.arrays import parse_files, read_arrays, read_noise
from dpmrt.runtime.cli.course import CLIP, Clip, Course
from dpmrt.runtime.cli.options import (
    CONDITIONS,
    ENGINE,
    FILE,
    FRAMES,
    GUIDANCE,
    LABEL,
    SAMPLER,
    SHEET,
    SOLVER_OPTION,
    counted,
    cycled,
    parse_labels,
    parse_options,
    settle_batch,
)
from dpmrt.runtime.cli.outputs import check_kind, check_places, check_samples, write_samples
from dpmrt.runtime.cli.running import check_engine, opened, report, watched
from dpmrt.runtime.cli.values import parse_shape


@click.command("sample", short_help="Sample from a bundle to .png or .npy.")
@click.argument("bundle")
@click.option("-o", "--out", required=True, type=FILE, help="File to write, .png or .npy; or .apng for video.")
@click.option("-n", "--batch", type=int, help="How many samples.  [default: as many as labels, noises or conditions]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise, as torch's CPU generator.")
@SAMPLER
@GUIDANCE
@LABEL
@CONDITIONS
@click.option("--shape", metavar="SIZES", help="Shape of one sample, as 4,64,96.  [default: the bundle's]")
@SOLVER_OPTION
@click.option("--plan", "plan_file", type=FILE, help="Follow the plan that --save-plan wrote.")
@click.option("--noise", type=FILE, help="Start from this array (.npy) instead of the seed.")
@click.option("--save-plan", type=FILE, help="Write the plan that was followed to this file.")
@SHEET
@FRAMES
@CLIP
@ENGINE
def command(
    bundle: str,
    out: Path,
    batch: int | None,
    seed: int,
    steps: int | None,
    solver: str | None,
    guidance: float | None,
    label: str | None,
    conditions: tuple[str, ...],
    negative: tuple[str, ...],
    shape: str | None,
    options: tuple[str, ...],
    plan_file: Path | None,
    noise: Path | None,
    save_plan: Path | None,
    grid: int | None,
    scale: int | None,
    frames: Path | None,
    frames_every: int,
    frames_show: str,
    fps: float,
    frame_noise: str | None,
    smooth: str | None,
    engine: str,
    threads: int | None,
    engine_pairs: tuple[str, ...],
    progress: bool | None,
    quiet: bool,
) -> None:
    """Sample from BUNDLE, a folder or the name of a bundle that ships with dpmrt.

    \b
    Examples:
      dpmrt sample digits -o digits.png --batch 16
      dpmrt sample digits -o classes.png --label all --guidance 2 --seed 1
      dpmrt sample digits -o samples.npy --batch 64 --steps 10 --solver dpmsolver++ --option grid=karras
      dpmrt sample bundles/cifar -o cifar.png --steps 20 --option eta=1
      dpmrt sample digits -o a.png --steps 12 --save-plan a.plan
      dpmrt sample digits -o a.png --label 3 --frames course.apng
      dpmrt sample bundles/sdxl -o latents.npy --shape 4,64,96 --condition encoder_hidden_states=text.npy \\
        --condition text_embeds=pooled.npy --condition time_ids=sizes.npy \\
        --negative encoder_hidden_states=empty.npy --guidance 5
    """
    from dpmrt.files import check_writable

    check_kind(out, grid, scale)
    course, clip = Course(frames, frames_every, frames_show, fps), Clip(frame_noise, smooth)
    chosen = parse_options(options)
    sizes = parse_shape(shape)
    files = {"--condition": parse_files("--condition", conditions), "--negative": parse_files("--negative", negative)}
    for path in (out, save_plan, frames):
        if path is not None:
            check_writable(path)

    from dpmrt.runtime.bundle import find_bundle
    from dpmrt.runtime.drivers import find_driver
    from dpmrt.runtime.images import check_layout
    from dpmrt.runtime.request import check_batch
    from dpmrt.solvers_np import StepPlan

    check_layout(grid, scale)
    check_engine(engine)
    read: dict[str, Path | None] = {"--plan": plan_file, "--noise": noise}
    read |= {f"{flag} {name}": path for flag, named in files.items() for name, path in named.items()}
    check_places({"--out": out, "--save-plan": save_plan, "--frames": frames}, read, find_bundle(bundle))
    x_T = None if noise is None else read_noise(noise)
    given, away = (read_arrays(flag, named) for flag, named in files.items())
    with opened(bundle, engine, threads, engine_pairs, quiet) as pipeline:
        sizes = pipeline.sample_shape(x_T, sizes)
        labels = parse_labels(label, pipeline.bundle.classes)
        batch = check_batch(settle_batch(batch, labels, x_T, given), sizes)
        check_samples(pipeline, out, batch, sizes, grid, scale)
        driven = solver is not None and find_driver(solver) is not None
        plan: StepPlan | None = None
        if plan_file is None and not driven:
            plan, chosen = pipeline.plan(steps, solver, **chosen), {}
        else:
            plan = None if plan_file is None else StepPlan.load(plan_file)
            chosen = {"steps": steps, "solver": solver, **chosen}
        if driven and save_plan is not None:
            raise OptionError(
                f"{solver} follows no plan that could be saved", got="--save-plan", fix="leave out --save-plan"
            )
        x_T = clip.noise(pipeline, x_T, batch, sizes, seed)
        hooks = [*clip.hooks(pipeline, sizes), *course.hooks(pipeline, plan, batch, sizes, grid, scale)]
        started = time.perf_counter()
        with watched("sampling", None if plan is None else plan.calls, progress, quiet) as calls:
            samples = pipeline.sample(
                batch,
                seed=seed,
                guidance=guidance,
                plan=plan,
                x_T=x_T,
                shape=sizes,
                conditions=given,
                negative=away,
                callback=calls,
                hooks=hooks,
                label=cycled(labels, batch),
                **chosen,
            )
        seconds = time.perf_counter() - started
        write_samples(pipeline, out, samples, grid, scale, fps)
        course.write(pipeline, grid, scale)
    if plan is not None and save_plan is not None:
        plan.save(save_plan)
    report(out, counted(batch, "sample"), calls.made, seconds, quiet)
