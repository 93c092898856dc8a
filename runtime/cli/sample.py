"""`dpmrt sample`: pictures or numbers out of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dpmrt.runtime.cli.arrays import read_noise
from dpmrt.runtime.cli.conditioned import CONDITIONED, Conditioned
from dpmrt.runtime.cli.course import CLIP, FRAMES, Clip, Course
from dpmrt.runtime.cli.options import FILE, SAMPLER, SOLVER_OPTION, counted, parse_options
from dpmrt.runtime.cli.outputs import SHEET, Sheet, check_kind, check_samples, write_samples
from dpmrt.runtime.cli.running import RUNNER, Runner
from dpmrt.runtime.cli.values import parse_shape


@click.command("sample", short_help="Sample from a bundle to .png or .npy.")
@click.argument("bundle")
@click.option("-o", "--out", required=True, type=FILE, help="File to write, .png or .npy; or .apng for video.")
@click.option("-n", "--batch", type=int, help="How many samples.  [default: as many as labels, noises or conditions]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise, as torch's CPU generator.")
@SAMPLER
@CONDITIONED
@click.option("--shape", metavar="SIZES", help="Shape of one sample, as 4,64,96.  [default: the bundle's]")
@SOLVER_OPTION
@click.option("--plan", "plan_file", type=FILE, help="Follow the plan that --save-plan wrote.")
@click.option("--noise", type=FILE, help="Start from this array (.npy) instead of the seed.")
@click.option("--save-plan", type=FILE, help="Write the plan that was followed to this file.")
@click.option("--report", type=FILE, help="Write what a solver without a grid did, .json, .png.")
@SHEET
@FRAMES
@CLIP
@RUNNER
def command(
    bundle: str,
    out: Path,
    batch: int | None,
    seed: int,
    steps: int | None,
    solver: str | None,
    shape: str | None,
    options: tuple[str, ...],
    plan_file: Path | None,
    noise: Path | None,
    save_plan: Path | None,
    report: Path | None,
    given: Conditioned,
    sheet: Sheet,
    course: Course,
    clip: Clip,
    runner: Runner,
) -> None:
    """Sample from BUNDLE, a folder or the name of a bundle that ships with dpmrt.

    \b
    Examples:
      dpmrt sample digits -o digits.png --batch 16
      dpmrt sample digits -o classes.png --label all --guidance 2 --seed 1
      dpmrt sample digits -o scales.png --label 5 --guidance 1,2,4 --guidance-interval 0.2,0.8
      dpmrt sample digits -o samples.npy --batch 64 --steps 10 --solver dpmsolver++ --option grid=karras
      dpmrt sample bundles/cifar -o cifar.png --steps 20 --option eta=1
      dpmrt sample digits -o a.png --steps 12 --save-plan a.plan
      dpmrt sample digits -o a.png --solver dpm-solver-23 --option rtol=0.01 --report a.json
      dpmrt sample digits -o a.png --label 3 --frames course.apng
      dpmrt sample bundles/sdxl -o latents.npy --shape 4,64,96 --condition encoder_hidden_states=text.npy \\
        --condition text_embeds=pooled.npy --condition time_ids=sizes.npy \\
        --negative encoder_hidden_states=empty.npy --guidance 5
    """
    check_kind(out, sheet)
    chosen, sizes = parse_options(options), parse_shape(shape)

    from dpmrt.runtime.cli.report import check_report, reporting
    from dpmrt.runtime.drivers import check_sampler, find_driver, refuse_given
    from dpmrt.runtime.request import check_batch
    from dpmrt.solvers_np import StepPlan

    check_sampler(solver)
    driven = find_driver(solver) is not None
    check_report(report, solver, driven)
    written = {"--out": out, "--save-plan": save_plan, "--report": report, "--frames": course.frames}
    runner.prepare(bundle, given, written=written, read={"--plan": plan_file, "--noise": noise})
    x_T = None if noise is None else read_noise(noise)
    with runner.opened(bundle) as pipeline:
        sizes = pipeline.sample_shape(x_T, sizes)
        batch = check_batch(given.settle(pipeline, batch, x_T), sizes)
        check_samples(pipeline, out, batch, sizes, sheet)
        plan: StepPlan | None = None
        if driven:
            asked = {"steps": steps, "plan": plan_file, "save_plan": save_plan, "frames": course.frames}
            refuse_given(**asked, smooth=clip.smooth, **given.judged)
        elif plan_file is None:
            plan, chosen = pipeline.plan(steps, solver, **chosen), {}
        else:
            plan, chosen = StepPlan.load(plan_file), {"steps": steps, "solver": solver, **chosen}
        request: dict[str, Any] = {
            "seed": seed,
            "x_T": clip.noise(pipeline, x_T, batch, sizes, seed),
            "shape": sizes,
            **given.arguments(batch),
            **chosen,
        }
        hooks = [*clip.hooks(pipeline, sizes), *course.hooks(pipeline, plan, batch, sizes, sheet)]
        with runner.watched("sampling", None if plan is None else plan.calls) as watch:
            if solver is not None and driven:
                with reporting(report, out) as found:
                    done = pipeline.drive(batch, solver=solver, callback=watch, **request)
                    found.append(done.report)
                samples = done.samples
            else:
                samples = pipeline.sample(batch, plan=plan, hooks=hooks, callback=watch, **request)
        write_samples(pipeline, out, samples, sheet, course.fps)
        course.write(pipeline, sheet)
    if plan is not None and save_plan is not None:
        plan.save(save_plan)
    runner.say(out, counted(batch, "sample"), watch)
