"""`dpmrt edit`: pictures varied, or painted anew in part."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.arrays import parse_files, read_arrays
from dpmrt.runtime.cli.course import Course
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
from dpmrt.runtime.cli.running import check_engine, opened, parse_pair, say, watched

_STRENGTH = 0.6


@click.command("edit", short_help="Vary a picture, or paint a part of it anew.")
@click.argument("bundle")
@click.option(
    "--image", "images", multiple=True, required=True, type=FILE, help="A .png, or a .npy of one or many; repeatable."
)
@click.option("--mask", type=FILE, help="Where to paint: a .png, white where to paint, or a .npy of 0 to 1.")
@click.option("-o", "--out", required=True, type=FILE, help="File to write, .png or .npy.")
@click.option("--strength", type=float, help="How much is noised away, 0 to 1.  [default: 0.6; with a mask 1]")
@click.option("--repaint", metavar="JUMP,TIMES", help="RePaint: take every JUMP steps TIMES times.")
@click.option(
    "--known-noise",
    type=click.Choice(["fixed", "fresh"]),
    help="Noise of what is known.  [default: fixed; with --repaint fresh]",
)
@click.option("-n", "--batch", type=int, help="How many results of one picture.  [default: one a picture]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise, as torch's CPU generator.")
@SAMPLER
@GUIDANCE
@LABEL
@CONDITIONS
@SOLVER_OPTION
@SHEET
@FRAMES
@ENGINE
def command(
    bundle: str,
    images: tuple[Path, ...],
    mask: Path | None,
    out: Path,
    strength: float | None,
    repaint: str | None,
    known_noise: str | None,
    batch: int | None,
    seed: int,
    steps: int | None,
    solver: str | None,
    guidance: float | None,
    label: str | None,
    conditions: tuple[str, ...],
    negative: tuple[str, ...],
    options: tuple[str, ...],
    grid: int | None,
    scale: int | None,
    frames: Path | None,
    frames_every: int,
    frames_show: str,
    fps: float,
    engine: str,
    threads: int | None,
    engine_pairs: tuple[str, ...],
    progress: bool | None,
    quiet: bool,
) -> None:
    """Sample from BUNDLE starting from pictures: variations of them, or, with a mask, a part painted anew.

    Without a mask the picture is noised by --strength and sampled from there. With one, what is black in it is kept
    exactly. Pixels are mapped to the bundle's data range; an enlarged picture, as `dpmrt sample` writes, is read at
    its own size.

    \b
    Examples:
      dpmrt sample digits -o three.png --label 3 --seed 1
      dpmrt edit digits --image three.png --label 8 --strength 0.5 -n 9 -o eights.png
      dpmrt edit digits --image three.png --mask half.png --label 3 -o half-new.png
      dpmrt edit digits --image three.png --mask half.png --label 3 --steps 50 --repaint 5,5 -o agreed.png
    """
    from dpmrt.files import check_writable

    check_kind(out, grid, scale)
    course = Course(frames, frames_every, frames_show, fps)
    chosen = parse_options(options, strength="--strength", repaint="--repaint", known_noise="--known-noise")
    jumps = None if repaint is None else parse_pair("--repaint", repaint, "JUMP,TIMES, as 5,5")
    for flag, value in (("--repaint", repaint), ("--known-noise", known_noise)):
        if mask is None and value is not None:
            raise OptionError(f"{flag} is for painting", got=f"{flag} without --mask", expected="--mask FILE")
    files = {"--condition": parse_files("--condition", conditions), "--negative": parse_files("--negative", negative)}
    for path in (out, frames):
        if path is not None:
            check_writable(path)

    from dpmrt.runtime.bundle import find_bundle
    from dpmrt.runtime.editing.arrays import check_images
    from dpmrt.runtime.editing.files import read_images, read_mask
    from dpmrt.runtime.editing.image_to_image import image_to_image
    from dpmrt.runtime.editing.inpainting import inpaint, inpainting_plan
    from dpmrt.runtime.images import check_layout

    check_layout(grid, scale)
    check_engine(engine)
    read: dict[str, Path | None] = {"--mask": mask, **{f"--image {path}": path for path in images}}
    read |= {f"{flag} {name}": path for flag, named in files.items() for name, path in named.items()}
    check_places({"--out": out, "--frames": frames}, read, find_bundle(bundle))
    given, away = (read_arrays(flag, named) for flag, named in files.items())
    strength = (_STRENGTH if mask is None else 1.0) if strength is None else strength
    with opened(bundle, engine, threads, engine_pairs, quiet) as pipeline:
        pictures = read_images(pipeline, images)
        labels = parse_labels(label, pipeline.bundle.classes)
        count = settle_batch(batch, labels, pictures if len(pictures) > 1 else None, given)
        x0 = check_images(pipeline, pictures, count)
        painted = None if mask is None else read_mask(pipeline, mask)
        check_samples(pipeline, out, count, x0.shape[1:], grid, scale)
        plan = inpainting_plan(pipeline, strength, jumps, steps, solver, chosen)
        request = {
            "seed": seed,
            "steps": steps,
            "solver": solver,
            "guidance": guidance,
            "label": cycled(labels, count),
            "conditions": given,
            "negative": away,
            "hooks": course.hooks(pipeline, plan, count, x0.shape[1:], grid, scale),
            **chosen,
        }
        started = time.perf_counter()
        with watched("editing", plan.calls, progress, quiet) as calls:
            if painted is None:
                edited = image_to_image(pipeline, x0, strength, callback=calls, **request)
            else:
                edited = inpaint(
                    pipeline,
                    x0,
                    painted,
                    strength=strength,
                    repaint=jumps,
                    known_noise=known_noise,
                    callback=calls,
                    **request,
                )
        seconds = time.perf_counter() - started
        write_samples(pipeline, out, edited, grid, scale, fps)
        course.write(pipeline, grid, scale)
    say(out, counted(count, "sample"), calls.made, seconds, quiet)
