"""`dpmrt edit`: pictures varied, or painted anew in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.conditioned import CONDITIONED, Conditioned
from dpmrt.runtime.cli.course import FRAMES, Course
from dpmrt.runtime.cli.options import FILE, SAMPLER, SOLVER_OPTION, counted, parse_options
from dpmrt.runtime.cli.outputs import SHEET, Sheet, check_kind, check_samples, write_samples
from dpmrt.runtime.cli.running import RUNNER, Runner
from dpmrt.runtime.cli.values import parse_pair

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
@click.option("-n", "--batch", type=int, help="How many results of a picture.  [default: as labels and scales]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise, as torch's CPU generator.")
@SAMPLER
@CONDITIONED
@SOLVER_OPTION
@SHEET
@FRAMES
@RUNNER
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
    options: tuple[str, ...],
    given: Conditioned,
    sheet: Sheet,
    course: Course,
    runner: Runner,
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
      dpmrt edit digits --image three.png --label 8 --guidance 1,2,4 --guidance-rescale 0.7 -o stronger.png
    """
    check_kind(out, sheet)
    chosen = parse_options(options, strength="--strength", repaint="--repaint", known_noise="--known-noise")
    jumps = None if repaint is None else parse_pair("--repaint", repaint, "JUMP,TIMES, as 5,5")
    for flag, value in (("--repaint", repaint), ("--known-noise", known_noise)):
        if mask is None and value is not None:
            raise OptionError(f"{flag} is for painting", got=f"{flag} without --mask", expected="--mask FILE")

    from dpmrt.runtime.editing.arrays import check_images
    from dpmrt.runtime.editing.files import read_images, read_mask
    from dpmrt.runtime.editing.image_to_image import image_to_image
    from dpmrt.runtime.editing.inpainting import inpaint, inpainting_plan

    written = {"--out": out, "--frames": course.frames}
    read = {"--mask": mask, **{f"--image {path}": path for path in images}}
    strength = (_STRENGTH if mask is None else 1.0) if strength is None else strength
    runner.prepare(bundle, given, written=written, read=read)
    with runner.opened(bundle) as pipeline:
        pictures = read_images(pipeline, images)
        count = given.settle(pipeline, batch, pictures if len(pictures) > 1 else None)
        x0 = check_images(pipeline, pictures, count)
        painted = None if mask is None else read_mask(pipeline, mask)
        check_samples(pipeline, out, count, x0.shape[1:], sheet)
        plan = inpainting_plan(pipeline, strength, jumps, steps, solver, chosen)
        request: dict[str, Any] = {
            "strength": strength,
            "seed": seed,
            "steps": steps,
            "solver": solver,
            "hooks": course.hooks(pipeline, plan, count, x0.shape[1:], sheet),
            **given.arguments(count),
            **chosen,
        }
        with runner.watched("editing", plan.calls) as watch:
            if painted is None:
                edited = image_to_image(pipeline, x0, callback=watch, **request)
            else:
                how: dict[str, Any] = {"repaint": jumps, "known_noise": known_noise}
                edited = inpaint(pipeline, x0, painted, callback=watch, **how, **request)
        write_samples(pipeline, out, edited, sheet, course.fps)
        course.write(pipeline, sheet)
    runner.say(out, counted(count, "sample"), watch)
