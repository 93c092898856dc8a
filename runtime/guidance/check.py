"""Guidance that a caller asks for, held against the bundle and the batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import Manifest
from dpmrt.errors import OptionError
from dpmrt.runtime.guidance.asked import Asked, Guidance
from dpmrt.runtime.guidance.scales import NAMED, Scales
from dpmrt.runtime.request import brief, check_array

UNITS = ("progress", "time", "sigma")


def check_guidance(manifest: Manifest, guidance: Asked, batch: int, *, labelled: bool, negative: bool) -> Scales:
    """Return the scales of guidance that apply.

    `labelled` and `negative` say whether the caller gives a label, and something to guide away from.
    """
    setup = manifest.guidance
    asked = guidance if isinstance(guidance, Guidance) else Guidance(guidance)
    absolute = asked.schedule is not None and not isinstance(asked.schedule, str)
    scale = asked.scale
    if scale is None and not absolute:
        if setup is not None and labelled:
            scale = setup.scale
        elif negative:
            raise OptionError(
                "there is something to guide away from, and no scale of guidance",
                got="negative, and guidance=None",
                expected="a scale, as the bundle has none for this request",
                fix="guidance=5 (--guidance 5), or leave out the negative",
            )
        elif guidance is None:
            return Scales.same(batch, 1.0)
    if absolute and scale is not None:
        raise OptionError(
            "a schedule says the scale of guidance, which is given beside it",
            got=f"scale={brief(scale)}, schedule={brief(asked.schedule)}",
            expected="one of them",
            fix="leave out the scale, or take schedule='linear'",
        )
    base = np.ones(batch) if scale is None else check_scale("guidance", scale, batch)
    checked = Scales(base, _check_form(asked, batch))
    if guidance is not None:
        _check_trained(manifest, guidance, labelled, negative)
    if scale is None and not absolute:
        raise OptionError(
            "guidance has no scale, and the bundle has no usual one",
            got="scale=None",
            expected="a finite number",
            fix="Guidance(scale=5.0)",
        )
    if manifest.unet.folded_guidance:
        _check_folded(manifest, checked)
    return checked


def check_scale(name: str, value: object, batch: int) -> NDArray[np.float64]:
    """Return one scale for each sample, given as one for all or one for each."""
    array = check_array(name, value)
    if array.dtype.kind not in "fiu" or array.ndim > 1 or not np.isfinite(array).all():
        raise OptionError(
            f"{name} is not a scale",
            got=brief(value),
            expected="a finite number, or one for each sample",
            fix=f"{name}=2.0",
        )
    if array.ndim == 1 and len(array) != batch:
        raise OptionError(
            f"there must be one scale of {name} for each sample",
            got=f"{len(array)} scales",
            expected=f"{batch}, as batch={batch}",
            fix="give one for all, or one for each sample",
        )
    return np.array(np.broadcast_to(array, (batch,)), np.float64)


def _check_form(asked: Guidance, batch: int) -> Guidance:
    """Check all of it but the scale; a schedule of numbers becomes an array."""
    rescale, unit = asked.rescale, asked.unit
    if not _is_number(rescale) or not 0 <= rescale <= 1:
        raise OptionError(
            "guidance rescale is out of range", got=brief(rescale), expected="0 (none) to 1", fix="rescale=0.7"
        )
    if unit not in UNITS:
        raise OptionError("guidance goes by no such unit", got=repr(unit), expected=", ".join(UNITS))
    interval = None if asked.interval is None else _check_interval(asked.interval, unit)
    return Guidance(asked.scale, interval, _check_schedule(asked, batch), float(rescale), unit)


def _check_interval(interval: object, unit: str) -> tuple[float, float]:
    bounds = interval if isinstance(interval, (tuple, list, np.ndarray)) else ()
    numbers = [float(v) for v in bounds if _is_number(v) and not math.isnan(v)]
    if len(bounds) != 2 or len(numbers) != 2 or numbers[0] > numbers[1]:
        example = {"progress": "(0.2, 0.8)", "time": "(200, 800)", "sigma": "(0.3, 3.0)"}[unit]
        raise OptionError(
            "guidance has no such interval",
            got=brief(interval),
            expected=f"two numbers of unit {unit!r}, the lower first",
            fix=f"interval={example}",
        )
    return numbers[0], numbers[1]


def _check_schedule(asked: Guidance, batch: int) -> Any:
    schedule = asked.schedule
    if isinstance(schedule, str):
        if schedule not in NAMED or asked.unit != "progress":
            raise OptionError(
                "guidance has no such schedule",
                got=f"schedule={schedule!r}, unit={asked.unit!r}",
                expected=", ".join(NAMED) + " of unit 'progress', an array, or a function",
            )
        return schedule
    if schedule is None or callable(schedule):
        return schedule
    array = check_array("the schedule of guidance", schedule)
    fits = array.dtype.kind in "fiu" and array.shape[1:] in ((), (batch,)) and array.ndim > 0
    if not fits or not np.isfinite(array).all():
        raise OptionError(
            "the schedule of guidance is no table of scales",
            got=f"{array.dtype}{array.shape}" if array.ndim else brief(schedule),
            expected=f"finite numbers, one for each network call, (calls,) or (calls, {batch})",
        )
    return array.astype(np.float64)


def _check_trained(manifest: Manifest, guidance: object, labelled: bool, negative: bool) -> None:
    setup = manifest.guidance
    if setup is None and not negative and not manifest.unet.folded_guidance:
        raise OptionError(
            "the network was not trained for guidance, or the bundle does not say so",
            got=f"guidance={brief(guidance)}",
            expected="guidance=None",
            fix="leave out guidance, give what to guide away from with `negative`, or pick a bundle whose manifest "
            "has `guidance`",
        )
    if setup is not None and not labelled and not negative:
        raise OptionError(
            "guidance has nothing to guide to without a label",
            got=f"guidance={brief(guidance)} and label=None",
            expected=f"a label from 0 to {setup.classes - 1}",
            fix="pass label=0, or leave out guidance",
        )


def _check_folded(manifest: Manifest, scales: Scales) -> None:
    """Refuse what a graph that guides by itself cannot do."""
    if scales.rescale:
        raise OptionError(
            "guidance that is a part of the graph cannot be rescaled, as it gives no unguided output",
            got=f"rescale={scales.rescale:g}",
            expected="rescale=0",
            fix="export the network without --fold-guidance",
        )
    spec = manifest.unet.input("guidance_scale")
    schedule = scales.asked.schedule
    each = (scales.base != scales.base[0]).any() or (isinstance(schedule, np.ndarray) and schedule.ndim == 2)
    if spec is not None and not spec.shape and each:
        raise OptionError(
            "the graph takes one scale of guidance for all samples",
            got=f"{len(scales.base)} scales",
            expected="one number, as the graph's guidance_scale has no batch",
            fix="sample one scale after another, or export the network without --fold-guidance",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
