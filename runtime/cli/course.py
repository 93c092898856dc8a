"""--frames, --frame-noise and --smooth: the course of a run written down, and clips whose frames belong together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.options import FILE, FPS, gathered
from dpmrt.runtime.cli.outputs import Sheet, check_frames, check_kind, frames_axis, write_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dpmrt.runtime.editing.recorder import Recorder
    from dpmrt.runtime.pipeline import Pipeline
    from dpmrt.solvers_np import Hook, StepPlan

#: samples with an axis of frames: (channels, frames, ...)
_WITH_FRAMES = (2, 4)


class Course:
    """What --frames asks for."""

    def __init__(self, frames: Path | None, frames_every: int, frames_show: str, fps: float) -> None:
        from dpmrt.runtime.animation import check_fps

        check_fps(fps)
        if frames is not None:
            check_kind(frames, Sheet(), what="the file of --frames", flag="--frames", name="frames")
        self.frames, self.fps = frames, fps
        self._every, self._show = frames_every, frames_show
        self._recorder: Recorder | None = None

    def hooks(
        self,
        pipeline: Pipeline,
        plan: StepPlan | None,
        batch: int,
        shape: tuple[int, ...],
        sheet: Sheet,
    ) -> list[Hook]:
        """Return the hook that records the run, if it is to be written; raises where it could not be shown."""
        if self.frames is None:
            return []
        from dpmrt.runtime.editing.recorder import Recorder

        self._recorder = Recorder(pipeline.manifest.prediction, every=self._every, keep=(self._show,))
        if plan is not None:
            check_frames(self.frames, -(-plan.calls // self._every) + 1, batch, shape, sheet)
        return [self._recorder]

    def write(self, pipeline: Pipeline, sheet: Sheet) -> None:
        """Write what was recorded."""
        if self.frames is not None and self._recorder is not None:
            kept = self._recorder.x if self._show == "x" else self._recorder.x0
            write_frames(pipeline, self.frames, kept, sheet, self.fps)


FRAMES = gathered(
    "course",
    Course,
    click.option("--frames", type=FILE, help="Write the course of the run: .png (a strip), .apng or .npy."),
    click.option("--frames-every", type=int, default=1, show_default=True, help="Keep every so many-th step."),
    click.option(
        "--frames-show",
        type=click.Choice(["x0", "x"]),
        default="x0",
        show_default=True,
        help="Show what the network predicts, or the noisy state.",
    ),
    FPS,
)


class Clip:
    """What --frame-noise and --smooth ask for."""

    def __init__(self, frame_noise: str | None, smooth: str | None) -> None:
        self.smooth = smooth
        self._noise = None if frame_noise is None else _parse("--frame-noise", frame_noise, "SHARE[,MODEL], as 0.5")
        self._smooth = None if smooth is None else _parse("--smooth", smooth, "STRENGTH[,WIDTH], as 0.5,1.5")

    def noise(
        self, pipeline: Pipeline, x_T: NDArray[Any] | None, batch: int, shape: tuple[int, ...], seed: int
    ) -> NDArray[Any] | None:
        """Return the initial noise whose frames share a part, or what was given."""
        if self._noise is None:
            return x_T
        _check_frames_axis("--frame-noise", shape)
        if x_T is not None:
            raise OptionError("the initial noise is given twice", got="--noise and --frame-noise", expected="one")
        from dpmrt.runtime.editing.video import consistent_noise

        share, model = self._noise
        axis = frames_axis(pipeline, shape)
        return consistent_noise((batch, *shape), seed, share, model=model or "mixed", axis=axis)

    def hooks(self, pipeline: Pipeline, shape: tuple[int, ...]) -> list[Hook]:
        """Return the hook that smooths, if it was asked for."""
        if self._smooth is None:
            return []
        _check_frames_axis("--smooth", shape)
        from dpmrt.runtime.editing.video import TemporalSmoothing

        strength, text = self._smooth
        try:
            width = float(text or 1)
        except ValueError:
            raise OptionError(
                "--smooth is not understood", got=repr(text), expected="STRENGTH[,WIDTH], as 0.5,1.5"
            ) from None
        return [
            TemporalSmoothing(pipeline.manifest.prediction, strength, width=width, axis=frames_axis(pipeline, shape))
        ]


CLIP = gathered(
    "clip",
    Clip,
    click.option(
        "--frame-noise",
        metavar="SHARE[,MODEL]",
        help="Noise that the frames of a clip share, 0 to 1; mixed or progressive.",
    ),
    click.option(
        "--smooth", metavar="STRENGTH[,WIDTH]", help="Smooth predictions along frames, 0 to 1, over a width."
    ),
)


def _parse(flag: str, text: str, expected: str) -> tuple[float, str]:
    first, _, second = text.partition(",")
    try:
        return float(first), second.strip()
    except ValueError:
        raise OptionError(f"{flag} is not understood", got=repr(text), expected=expected) from None


def _check_frames_axis(flag: str, shape: tuple[int, ...]) -> None:
    if len(shape) not in _WITH_FRAMES:
        raise OptionError(
            f"{flag} is for samples with frames",
            got=f"samples of shape {shape}",
            expected="(channels, frames, height, width) or (channels, length)",
            fix=f"leave out {flag}",
        )
