"""What a caller asks of a pipeline, checked before the network runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.solvers_np import NoiseSchedule, StepPlan
from dpmrt.solvers_np.plans.parts import rises

Labels: TypeAlias = "int | Sequence[int] | NDArray[Any] | None"

_MOST_BYTES = 1 << 40
_LAMBDA_SLACK = 0.05
_NEAR = 1e-3


def check_batch(batch: object, shape: tuple[int, ...] = ()) -> int:
    """Return the batch size, or say what was expected; the samples, of this shape, stay below a terabyte."""
    return check_whole("batch", batch, 1, max(1, _MOST_BYTES // (4 * math.prod(shape))), fix="batch=1")


def check_shape(shape: object) -> tuple[int, ...]:
    """Return the shape of one sample that the caller chose, or say what was expected."""
    if isinstance(shape, (str, bytes)) or not isinstance(shape, (Sequence, np.ndarray)) or len(shape) == 0:
        raise OptionError(
            "shape is no shape of a sample",
            got=brief(shape),
            expected="whole numbers, without the batch, as (4, 64, 96)",
            fix="shape=(4, 64, 96), or leave it out",
        )
    return tuple(check_whole(f"shape[{k}]", size, 1, _MOST_BYTES) for k, size in enumerate(shape))


def check_array(name: str, value: object) -> NDArray[Any]:
    """Return what the caller gave as an array; raises ArrayError for what is none, as ragged lists."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ArrayError(f"{name} is no array", got=error, expected="an array") from None


def check_noise(plan: StepPlan, noise: object) -> None:
    """Refuse fresh noise for a plan that adds none; a recording of no draws holds none."""
    if noise is None or plan.stochastic or (isinstance(noise, np.ndarray) and len(np.atleast_1d(noise)) == 0):
        return
    raise OptionError(
        "noise is given, and the plan adds no noise",
        got=f"noise={type(noise).__name__}",
        expected="noise=None",
        fix="leave out noise, or choose a stochastic solver; x_T is the initial noise",
    )


def check_schedule(plan: StepPlan, schedule: NoiseSchedule, *, fix: str) -> None:
    """Refuse a plan whose times and noise levels are not those of the schedule.

    The level may be off by one training time, as some grids round their times; in continuous time by a thousandth.
    """
    rows = np.flatnonzero(plan.out >= 0)
    t, alpha, sigma = plan.t[rows], plan.alpha[rows], plan.sigma[rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.log(alpha) - np.log(sigma)
    first, last = schedule.t_range
    near = 1.0 if schedule.train_steps is not None else _NEAR * (last - first)
    # SMLD's times run against the noise
    forward = schedule.t_min <= schedule.t_max
    near = near if forward else -near
    # a step that encodes may ask the network at the time where it ends, and the first may start from data
    reached = np.append(first if forward else last, t[:-1]) if rises(plan) else t
    top = schedule.lambda_(np.clip(reached - near, first, last)) + _LAMBDA_SLACK
    bottom = schedule.lambda_(np.clip(t + near, first, last)) - _LAMBDA_SLACK
    known = (t >= first) & (t <= last)
    data = (sigma == 0) & (t <= first + near)
    fits = known & (level >= bottom) & ((level <= top) | data)
    if fits.all():
        return
    k = int(np.flatnonzero(~fits)[0])
    where = f"row {rows[k]}, t = {t[k]:g}"
    raise OptionError(
        "the plan is for another noise schedule than the network's",
        got=f"{where}: log(alpha / sigma) = {level[k]:.4g}" if known[k] else where,
        expected=f"{bottom[k]:.4g} to {top[k]:.4g}" if known[k] else f"{first:g} to {last:g}",
        fix=fix,
    )


def check_x_T(
    x_T: object, batch: int, shape: tuple[int, ...], *, name: str = "the initial noise (x_T, --noise)"
) -> NDArray[Any]:
    """Return the initial noise, or say what is wrong with it."""
    x = check_array(name, x_T)
    if x.dtype.kind != "f":
        raise ArrayError(
            f"{name} has the wrong dtype",
            got=x.dtype,
            expected="a floating-point dtype",
            fix="convert it to float32",
        )
    if x.shape != (batch, *shape):
        only_batch = x.shape[1:] == shape and len(x) > 0
        raise ArrayError(
            f"{name} has the wrong shape",
            got=x.shape,
            expected=(batch, *shape),
            fix=f"ask for a batch of {len(x)}" if only_batch else "draw it with dpmrt.solvers_np.randn",
        )
    bad = np.flatnonzero(~np.isfinite(x))
    if bad.size:
        index = tuple(int(i) for i in np.unravel_index(int(bad[0]), x.shape))
        raise ArrayError(
            f"{name} holds NaN or infinity",
            got=f"{x[index]} at {index}",
            expected="finite numbers",
        )
    return x


def check_whole(
    name: str, value: object, low: int, high: int | None = None, *, also: int | None = None, fix: str | None = None
) -> int:
    """Return a whole number between bounds, or `also`, or say what was expected."""
    index = getattr(value, "__index__", None)
    number = index() if index is not None and not isinstance(value, (bool, np.bool_)) else None
    if number is not None and (number == also or (number >= low and (high is None or number <= high))):
        return int(number)
    bound = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    if also is not None and high is not None and not low <= also <= high:
        bound += f", or {also} for no class"
    raise OptionError(f"{name} is out of range", got=brief(value), expected=bound, fix=fix)


def brief(value: object) -> str:
    """Return a value as text that is short enough for an error."""
    try:
        text = repr(value)
    except ValueError:
        # Python refuses to write out integers of thousands of digits.
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
