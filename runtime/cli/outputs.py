"""What the commands write: samples and frames as pictures, animations or numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpmrt.errors import ArrayError, OptionError
from dpmrt.files import check_writable
from dpmrt.runtime.cli.arrays import write_array
from dpmrt.runtime.cli.options import gathered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dpmrt.runtime.pipeline import Pipeline

#: so many axes has one sample of video
_CLIP = 4
KINDS = (".png", ".npy", ".apng")


@dataclass(frozen=True)
class Sheet:
    """How pictures are laid out: in so many columns, with pixels of this size."""

    grid: int | None = None
    scale: int | None = None

    @property
    def asked(self) -> bool:
        """Return whether anything is asked for."""
        return self.grid is not None or self.scale is not None

    def row(self, pictures: int) -> Sheet:
        """Return the sheet with so many columns, unless their number is asked for."""
        return Sheet(pictures if self.grid is None else self.grid, self.scale)


SHEET = gathered(
    "sheet",
    Sheet,
    click.option("--grid", type=int, metavar="COLUMNS", help="Pictures in a row.  [default: near to a square]"),
    click.option("--scale", type=int, help="Size of a pixel.  [default: makes a picture at least 64 wide]"),
)


def is_picture(out: Path) -> bool:
    """Return whether a file shows something, still or moving."""
    return out.suffix.lower() in (".png", ".apng")


def check_kind(
    out: Path,
    sheet: Sheet,
    *,
    what: str = "the output",
    flag: str = "-o",
    name: str = "samples",
) -> None:
    """Refuse names of files that cannot be written, a layout for numbers, and one that cannot be."""
    from dpmrt.runtime.images import check_layout

    if out.suffix.lower() not in KINDS:
        named = out.name.strip(".-") and not out.name.startswith(".")
        raise OptionError(
            f"{what} is of an unknown kind" if named else f"{what} has no file name",
            got=str(out),
            expected=f"the name of a file that ends in .png or .npy, or .apng for what moves; {name} do not go to "
            "stdout",
            fix=f"{flag} {out.with_suffix('.png')}" if named else f"{flag} {name}.png",
        )
    if not is_picture(out) and sheet.asked:
        raise OptionError(
            "--grid and --scale are for pictures",
            got=f"{flag} {out}",
            expected="an output that ends in .png",
            fix="leave them out, or write a .png",
        )
    check_layout(sheet.grid, sheet.scale)


def check_places(written: dict[str, Path | None], read: dict[str, Path | None], bundle: Path) -> None:
    """Refuse to write where nothing can be, into the bundle, or over a file that the command reads or writes."""
    for path in written.values():
        if path is not None:
            check_writable(path)
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


def check_samples(pipeline: Pipeline, out: Path, batch: int, shape: tuple[int, ...], sheet: Sheet) -> None:
    """Refuse samples that cannot be shown in a file of this kind, before they are drawn."""
    if not is_picture(out):
        return
    from dpmrt.runtime.images import plan_sheet

    if len(shape) == _CLIP:
        axis = frames_axis(pipeline, shape) - 1
        check_frames(out, shape[axis], batch, (*shape[:axis], *shape[axis + 1 :]), sheet)
        return
    if out.suffix.lower() == ".apng":
        raise ArrayError(
            "these samples do not move",
            got=f"{out}, of samples {shape}",
            expected="an .apng of video, of --frames, or of `dpmrt interpolate`",
            fix=f"-o {out.with_suffix('.png')}",
        )
    plan_sheet(batch, shape, columns=sheet.grid, scale=sheet.scale)


def check_frames(out: Path, count: int, batch: int, shape: tuple[int, ...], sheet: Sheet) -> None:
    """Refuse frames that cannot be shown in a file of this kind."""
    from dpmrt.runtime import animation, images

    if out.suffix.lower() == ".apng":
        animation.check_frames(count, batch, shape, columns=sheet.grid, scale=sheet.scale)
    elif is_picture(out):
        images.plan_sheet(batch * count, shape, columns=count, scale=sheet.scale)


def frames_axis(pipeline: Pipeline, shape: tuple[int, ...]) -> int:
    """Return the axis of the frames, the batch counted: behind the channels, or before them."""
    return 1 if len(shape) == _CLIP and pipeline.manifest.unet.channel_axis == 2 else 2


def write_samples(pipeline: Pipeline, out: Path, samples: NDArray[Any], sheet: Sheet, fps: float = 10.0) -> None:
    """Write samples: a sheet of them, a strip or an animation of clips, or their numbers."""
    if not is_picture(out):
        write_array(out, samples)
        return
    from dpmrt.files import atomic_write
    from dpmrt.runtime.images import layout, to_uint8, write_png

    if samples.ndim == _CLIP + 1:
        import numpy as np

        frames = np.moveaxis(samples, frames_axis(pipeline, samples.shape[1:]), 0)
        write_frames(pipeline, out, frames, sheet, fps)
        return
    image = layout(to_uint8(samples, pipeline.manifest.data_range), columns=sheet.grid, scale=sheet.scale)
    with atomic_write(out) as stream:
        write_png(stream, image)


def write_frames(pipeline: Pipeline, out: Path, frames: NDArray[Any], sheet: Sheet, fps: float = 10.0) -> None:
    """Write frames (count, batch, *shape): a strip with a row a sample, an animation of sheets, or the numbers."""
    if not is_picture(out):
        write_array(out, frames)
        return
    from dpmrt.files import atomic_write
    from dpmrt.runtime.animation import sheets, strip, write_apng
    from dpmrt.runtime.images import write_png

    data_range = pipeline.manifest.data_range
    if out.suffix.lower() == ".png":
        image = strip(frames, data_range, scale=sheet.scale)
        with atomic_write(out) as stream:
            write_png(stream, image)
        return
    moving = sheets(frames, data_range, columns=sheet.grid, scale=sheet.scale)
    with atomic_write(out) as stream:
        write_apng(stream, moving, fps=fps)
