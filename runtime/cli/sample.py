"""`dpmrt sample`: pictures or numbers out of a bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

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
from dpmrt.runtime.cli.running import check_engine, opened, say, watched
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
@click.option("--report", type=FILE, help="Write what a solver without a grid did, .json, .png.")
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
    report: Path | None,
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
      dpmrt sample digits -o a.png --solver dpm-solver-23 --option rtol=0.01 --report a.json
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
    for path in (out, save_plan, report, frames):
        if path is not None:
            check_writable(path)

    from dpmrt.runtime.bundle import find_bundle
    from dpmrt.runtime.cli.report import check_report, reporting
    from dpmrt.runtime.drivers import find_driver, refuse_given
    from dpmrt.runtime.images import check_layout
    from dpmrt.runtime.request import check_batch
    from dpmrt.solvers_np import StepPlan

    check_layout(grid, scale)
    check_engine(engine)
    driven = find_driver(solver) is not None
    check_report(report, solver, driven)
    read: dict[str, Path | None] = {"--plan": plan_file, "--noise": noise}
    read |= {f"{flag} {name}": path for flag, named in files.items() for name, path in named.items()}
    written = {"--out": out, "--save-plan": save_plan, "--report": report, "--frames": frames}
    check_places(written, read, find_bundle(bundle))
    x_T = None if noise is None else read_noise(noise)
    given, away = (read_arrays(flag, named) for flag, named in files.items())
    with opened(bundle, engine, threads, engine_pairs, quiet) as pipeline:
        sizes = pipeline.sample_shape(x_T, sizes)
        labels = parse_labels(label, pipeline.bundle.classes)
        batch = check_batch(settle_batch(batch, labels, x_T, given), sizes)
        check_samples(pipeline, out, batch, sizes, grid, scale)
        plan: StepPlan | None = None
        if driven:
            refuse_given(steps=steps, plan=plan_file, save_plan=save_plan, frames=frames, smooth=smooth)
        elif plan_file is None:
            plan, chosen = pipeline.plan(steps, solver, **chosen), {}
        else:
            plan, chosen = StepPlan.load(plan_file), {"steps": steps, "solver": solver, **chosen}
        x_T = clip.noise(pipeline, x_T, batch, sizes, seed)
        hooks = [*clip.hooks(pipeline, sizes), *course.hooks(pipeline, plan, batch, sizes, grid, scale)]
        started = time.perf_counter()
        with watched("sampling", None if plan is None else plan.calls, progress, quiet) as calls:
            request: dict[str, Any] = {
                "seed": seed,
                "guidance": guidance,
                "x_T": x_T,
                "shape": sizes,
                "conditions": given,
                "negative": away,
                "callback": calls,
                "label": cycled(labels, batch),
                **chosen,
            }
            if solver is not None and driven:
                with reporting(report) as found:
                    done = pipeline.drive(batch, solver=solver, **request)
                    found.append(done.report)
                samples = done.samples
            else:
                samples = pipeline.sample(batch, plan=plan, hooks=hooks, **request)
        seconds = time.perf_counter() - started
        write_samples(pipeline, out, samples, grid, scale, fps)
        course.write(pipeline, grid, scale)
    if plan is not None and save_plan is not None:
        plan.save(save_plan)
    say(out, counted(batch, "sample"), calls.made, seconds, quiet)
