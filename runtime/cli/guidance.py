"""The flags of guidance, and what they ask `Pipeline.sample` for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.npy import read_array

#: as `Guidance` names them
_UNITS = ("progress", "time", "sigma")
GUIDANCE = (
    click.option(
        "--guidance", help="Scale of classifier-free guidance, or a list to cycle.  [default: the bundle's]"
    ),
    click.option("--guidance-rescale", type=float, metavar="0…1", help="Bring each sample's deviation back so far."),
    click.option("--guidance-interval", metavar="LOW,HIGH", help="Guide only there; elsewhere the scale is 1."),
    click.option("--guidance-unit", type=click.Choice(_UNITS), help="What the interval counts.  [default: progress]"),
    click.option("--guidance-schedule", metavar="NAME|FILE", help="linear, cosine, or a .npy of a scale a call."),
    click.option("--classifier-scale", help="Guide by the bundle's classifier, so strongly; or a list to cycle."),
    click.option("--classifier-label", help="The class, or a list to cycle.  [default: as --label]"),
    click.option("--classifier-mode", help="auto, mean or noise.  [default: auto]"),
)


class AskedGuidance:
    """The flags, parsed; `wanted` is how many samples their lists are for."""

    def __init__(
        self,
        guidance: str | None = None,
        guidance_rescale: float | None = None,
        guidance_interval: str | None = None,
        guidance_unit: str | None = None,
        guidance_schedule: str | None = None,
        classifier_scale: str | None = None,
        classifier_label: str | None = None,
        classifier_mode: str | None = None,
    ) -> None:
        self._scales = _numbers("--guidance", guidance, float)
        self._judged = _numbers("--classifier-scale", classifier_scale, float)
        self._classes = _numbers("--classifier-label", classifier_label, int)
        interval = _numbers("--guidance-interval", guidance_interval, float)
        form = {
            "interval": interval,
            "schedule": guidance_schedule,
            "rescale": guidance_rescale,
            "unit": guidance_unit,
        }
        self._form: dict[str, Any] = {key: value for key, value in form.items() if value is not None}
        self._mode = classifier_mode
        if guidance_unit is not None and interval is None:
            raise OptionError(
                "--guidance-unit is for an interval", got=f"--guidance-unit {guidance_unit}", fix="leave it out"
            )
        if classifier_scale is None and (classifier_label is not None or classifier_mode is not None):
            raise OptionError(
                "--classifier-label and --classifier-mode need a scale", expected="--classifier-scale 2"
            )
        self.wanted = max(len(numbers or ()) for numbers in (self._scales, self._judged, self._classes))

    @property
    def judged(self) -> dict[str, Any]:
        """Return what asks for the classifier."""
        return {"classifier_scale": self._judged}

    @property
    def files(self) -> dict[str, Path | None]:
        """Return what is read, by its flag."""
        schedule = self._form.get("schedule")
        is_file = isinstance(schedule, str) and schedule.endswith(".npy")
        return {"--guidance-schedule": Path(str(schedule)) if is_file else None}

    def arguments(self, batch: int) -> dict[str, Any]:
        """Return what `Pipeline.sample` is to be given for so many samples."""
        from dpmrt.runtime.guidance.asked import Guidance

        given: dict[str, Any] = {"guidance": _cycled("--guidance", self._scales, batch)}
        if self._form:
            form, file = dict(self._form), self.files["--guidance-schedule"]
            if file is not None:
                form["schedule"] = read_array("the schedule of guidance", file)
            given["guidance"] = Guidance(given["guidance"], **form)
        given["classifier_scale"] = _cycled("--classifier-scale", self._judged, batch)
        given["classifier_label"] = _cycled("--classifier-label", self._classes, batch)
        given["classifier_mode"] = self._mode
        return {key: value for key, value in given.items() if value is not None}


def _numbers(flag: str, text: str | None, kind: type[int] | type[float]) -> list[Any] | None:
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        what = "a class" if kind is int else "a number"
        raise OptionError(
            f"{flag} is not {what}", got=repr(text), expected=f"{what}, or a list with commas between"
        ) from None


def _cycled(flag: str, numbers: Sequence[Any] | None, batch: int) -> Any:
    if numbers is None or len(numbers) == 1:
        return None if numbers is None else numbers[0]
    if len(numbers) > batch:
        raise OptionError(
            f"{flag} lists more than there are samples",
            got=f"{len(numbers)} of them",
            expected=f"{batch} or fewer, as so many samples are asked for",
            fix="list fewer, or leave out what sets the number of samples, as --batch",
        )
    return [numbers[k % len(numbers)] for k in range(batch)]
