"""`dpmrt sample`: pictures or numbers out of a bundle."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli import UNCHECKED
from dpmrt.runtime.cli.arrays import parse_files, read_arrays, read_noise, write_array
from dpmrt.runtime.cli.notices import notices
from dpmrt.runtime.cli.progress import progress_bar
from dpmrt.runtime.cli.values import parse_pairs, parse_shape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: what `Pipeline.sample` takes beside the options of a solver, and how it is said here
_OWN = {name: f"--{name}" for name in ("batch", "seed", "steps", "solver", "guidance", "label", "noise", "plan")} | {
    "x_T": "--noise",
    "shape": "--shape",
    "conditions": "--condition",
    "negative": "--negative",
    "callback": "--progress",
    "encoder_hidden_states": "--condition encoder_hidden_states=FILE.npy",
    "negative_hidden_states": "--negative encoder_hidden_states=FILE.npy",
}


@click.command("sample", short_help="Sample from a bundle to .png or .npy.")
@click.argument("bundle")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="File to write, .png or .npy.")
@click.option("-n", "--batch", type=int, help="How many samples.  [default: as many as labels, noises or conditions]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise, as torch's CPU generator.")
@click.option("--steps", type=int, help="How many steps.  [default: the bundle's]")
@click.option("--solver", help="Name of a solver.  [default: the bundle's scheduler]")
@click.option("--guidance", type=float, help="Scale of classifier-free guidance.  [default: the bundle's]")
@click.option("--label", help="A class, a list as 0,1,2 or `all`; a list is cycled to fill the batch.")
@click.option("--condition", "conditions", multiple=True, metavar="NAME=FILE", help="A condition (.npy); repeatable.")
@click.option("--negative", multiple=True, metavar="NAME=FILE", help="What guidance moves away from; repeatable.")
@click.option("--shape", metavar="SIZES", help="Shape of one sample, as 4,64,96.  [default: the bundle's]")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the solver; repeatable.")
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="Follow the plan that --save-plan wrote.")
@click.option("--noise", type=click.Path(path_type=Path), help="Start from this array (.npy) instead of the seed.")
@click.option("--save-plan", type=click.Path(path_type=Path), help="Write the plan that was followed to this file.")
@click.option(
    "--report", type=click.Path(path_type=Path), help="Write what a solver without a grid did, .json, .png."
)
@click.option("--grid", type=int, metavar="COLUMNS", help="Pictures in a row.  [default: near to a square]")
@click.option("--scale", type=int, help="Size of a pixel.  [default: makes a picture at least 64 wide]")
@click.option("--engine", default="auto", show_default=True, help="What runs the network.")
@click.option("--threads", type=int, help="Threads of the engine.  [default: the engine's choice]")
@click.option("--engine-option", "engine_pairs", multiple=True, metavar="KEY=VALUE", help="An option of the engine.")
@click.option("--progress/--no-progress", default=None, help="Show a progress bar.  [default: on a terminal]")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
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
      dpmrt sample bundles/sdxl -o latents.npy --shape 4,64,96 --condition encoder_hidden_states=text.npy \\
        --condition text_embeds=pooled.npy --condition time_ids=sizes.npy \\
        --negative encoder_hidden_states=empty.npy --guidance 5
    """
    from dpmrt.files import check_writable

    _check_kind(out, grid, scale)
    chosen = _parse_options(options)
    sizes = parse_shape(shape)
    files = {"--condition": parse_files("--condition", conditions), "--negative": parse_files("--negative", negative)}
    for path in (out, save_plan, report):
        if path is not None:
            check_writable(path)

    from dpmrt.runtime.bundle import find_bundle
    from dpmrt.runtime.cli.report import check_report, reporting
    from dpmrt.runtime.drivers import find_driver, refuse_given
    from dpmrt.runtime.images import check_layout, plan_sheet
    from dpmrt.runtime.pipeline import load
    from dpmrt.runtime.request import check_batch
    from dpmrt.solvers_np import StepEvent, StepPlan

    check_layout(grid, scale)
    _check_engine(engine)
    driven = find_driver(solver) is not None
    check_report(report, solver, driven)
    read: dict[str, Path | None] = {"--plan": plan_file, "--noise": noise}
    read |= {f"{flag} {name}": path for flag, named in files.items() for name, path in named.items()}
    _check_places({"--out": out, "--save-plan": save_plan, "--report": report}, read, find_bundle(bundle))
    x_T = None if noise is None else read_noise(noise)
    given, away = (read_arrays(flag, named) for flag, named in files.items())
    engine_options = parse_pairs(engine_pairs, what="an option of the engine")
    if threads is not None:
        engine_options["threads"] = threads
    with notices(quiet), load(bundle, engine, **engine_options) as pipeline:
        if pipeline.bundle.inferred and not quiet:
            click.echo(UNCHECKED, err=True)
        sizes = pipeline.sample_shape(x_T, sizes)
        labels = _parse_labels(label, pipeline.bundle.classes)
        batch = check_batch(_settle_batch(batch, labels, x_T, given), sizes)
        if _is_png(out):
            plan_sheet(batch, sizes, columns=grid, scale=scale)
        plan: StepPlan | None = None
        if driven:
            refuse_given(steps=steps, plan=plan_file, save_plan=save_plan)
        elif plan_file is None:
            plan, chosen = pipeline.plan(steps, solver, **chosen), {}
        else:
            plan, chosen = StepPlan.load(plan_file), {"steps": steps, "solver": solver, **chosen}
        calls = 0

        def count(event: StepEvent) -> None:
            nonlocal calls
            calls = event.index + 1
            if advance is not None:
                advance(calls)

        started = time.perf_counter()
        with progress_bar("sampling", None if plan is None else plan.calls, progress, quiet) as advance:
            request: dict[str, Any] = {
                "seed": seed,
                "guidance": guidance,
                "x_T": x_T,
                "shape": sizes,
                "conditions": given,
                "negative": away,
                "callback": None if advance is None and not driven else count,
                "label": None if labels is None else [labels[i % len(labels)] for i in range(batch)],
                **chosen,
            }
            if solver is not None and driven:
                with reporting(report) as found:
                    done = pipeline.drive(batch, solver=solver, **request)
                    found.append(done.report)
                samples = done.samples
            else:
                samples = pipeline.sample(batch, plan=plan, **request)
        seconds = time.perf_counter() - started
        _write(out, samples, pipeline.manifest.data_range, grid, scale)
    if plan is not None:
        calls = plan.calls
        if save_plan is not None:
            plan.save(save_plan)
    if not quiet:
        click.echo(f"wrote {out}: {_count(batch, 'sample')}, {_count(calls, 'network call')}, {seconds:.2f} s")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _is_png(out: Path) -> bool:
    return out.suffix.lower() == ".png"


def _check_engine(engine: str) -> None:
    from dpmrt.runtime.backends import plain_engines

    if engine not in plain_engines():
        raise OptionError(
            "unknown engine", got=repr(engine), expected=", ".join(plain_engines()), fix="--engine auto"
        )


def _check_places(written: dict[str, Path | None], read: dict[str, Path | None], bundle: Path) -> None:
    """Refuse to write into the bundle, or over a file that the same command reads or writes."""
    root = os.path.realpath(bundle)
    seen: dict[str, str] = {os.path.realpath(path): name for name, path in read.items() if path is not None}
    for name, path in written.items():
        if path is None:
            continue
        real = os.path.realpath(path)
        if real in seen:
            raise OptionError(
                f"{name} and {seen[real]} are one file", got=path, expected="two files", fix="rename one of them"
            )
        if Path(real).is_relative_to(root):
            raise OptionError(
                f"{name} lies inside the bundle",
                got=path,
                expected=f"a file outside of {bundle}",
                fix="choose another folder",
            )
        seen[real] = name


def _check_kind(out: Path, grid: int | None, scale: int | None) -> None:
    if out.suffix.lower() not in (".png", ".npy"):
        named = out.name.strip(".-") and not out.name.startswith(".")
        raise OptionError(
            "the output is of an unknown kind" if named else "the output has no file name",
            got=str(out),
            expected="the name of a file that ends in .png or .npy; samples do not go to stdout",
            fix=f"-o {out.with_suffix('.png')}" if named else "-o samples.png",
        )
    if not _is_png(out) and (grid is not None or scale is not None):
        raise OptionError(
            "--grid and --scale are for pictures",
            got=f"-o {out}",
            expected="an output that ends in .png",
            fix="leave them out, or write a .png",
        )


def _parse_options(texts: tuple[str, ...]) -> dict[str, Any]:
    options = parse_pairs(texts)
    for key in options:
        if key in _OWN:
            raise OptionError(
                f"{key} cannot be given as --option", got=f"{key}={options[key]}", fix=f"use {_OWN[key]}"
            )
    return options


def _parse_labels(text: str | None, classes: int | None) -> list[int] | None:
    if text is None:
        return None
    if text == "all":
        if not classes:
            raise OptionError(
                "the bundle does not say which classes it has", got="--label all", expected="a list, as --label 0,1,2"
            )
        return list(range(classes))
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(
            "--label is not a class", got=repr(text), expected="a whole number, a list as 0,1,2, or `all`"
        ) from None


def _settle_batch(
    batch: int | None, labels: list[int] | None, x_T: NDArray[Any] | None, given: dict[str, NDArray[Any]]
) -> int:
    if batch is None:
        rows = max((len(array) for array in given.values() if array.ndim), default=1)
        batch = len(x_T) if x_T is not None else max(rows, 1 if labels is None else len(labels))
    if labels is not None and len(labels) > batch > 0:
        raise OptionError(
            "there are more labels than samples",
            got=f"{_count(len(labels), 'label')}, {_count(batch, 'sample')}",
            expected="no more labels than samples, whose number --batch or --noise sets",
            fix="leave out --batch and --noise for one sample a label",
        )
    return batch


def _write(
    out: Path, samples: NDArray[np.float32], data_range: tuple[float, float], grid: int | None, scale: int | None
) -> None:
    from dpmrt.files import atomic_write

    if _is_png(out):
        from dpmrt.runtime.images import layout, to_uint8, write_png

        image = layout(to_uint8(samples, data_range), columns=grid, scale=scale)
        with atomic_write(out) as stream:
            write_png(stream, image)
        return
    write_array(out, samples)
