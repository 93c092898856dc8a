"""The optimal reverse variance, from a statistic of the network: Bao et al. 2022 (Analytic-DPM).

The statistic is Gamma(t), the mean of eps(x_t, t)^2 over data, noise and dimensions. Averaged over the dimensions, x0
given x_t has the variance (sigma / alpha)^2 (1 - Gamma); a step whose next state holds x0 with the weight w has to
add w^2 times that to the variance that the step has when x0 is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Floats, Level
from dpmrt.solvers_np.options import whole
from dpmrt.solvers_np.solvers.rising import refuse_rising

#: a whole pixel is one of 255 parts of the data's range
_PIXELS = 255.0


class Analytic:
    """The deviations of the noise over the steps of a grid.

    `gamma` is the statistic at the times `gamma_times`, or at 0, 1, 2, ...; between them it is linear in t. `radius`
    is half the width of the data's range, so that x0 has at most the variance radius^2; None knows no bound, and
    counts pixels as for 1. The noise of the last `clip_steps` noisy steps changes a pixel, in the mean, by at most
    `clip_pixel`; unless given, that is one step where the network's last call is at the schedule's first time, and
    else none.
    """

    def __init__(
        self,
        grid: Grid,
        gamma: Sequence[float],
        gamma_times: Sequence[float] | None = None,
        *,
        radius: float | None = 1.0,
        clip_pixel: float | None = 2.0,
        clip_steps: int | None = None,
    ) -> None:
        refuse_rising(grid, "analytic variance", got="variance='analytic'", expected="a variance of zero")
        for name, value in (("radius", radius), ("clip_pixel", clip_pixel)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise OptionError(f"{name} is out of range", got=value, expected="a number above 0, or None")
        known, times = _statistic(gamma, gamma_times)
        self._x0_variance = [_x0_variance(level, known, times, radius) for level in grid.start]
        self._limit = math.inf if clip_pixel is None else clip_pixel * 2 * (radius or 1.0) / _PIXELS
        self._limit *= math.sqrt(math.pi / 2)  # E|N(0, s^2)| is s sqrt(2 / pi)
        if clip_steps is None:
            first = 0.0 if grid.schedule is None else grid.schedule.t_min
            clip_steps = int(grid.t[-1] <= first)
        self._clipped = whole("clip_steps", clip_steps, 0)

    def deviation(self, given: float, weight: float, *, step: int, left: int) -> float:
        """Return the noise of a step that has the variance `given` once x0 is known, and holds x0 with `weight`.

        `left` says how many noisy steps come after it.
        """
        std = math.sqrt(given + weight**2 * self._x0_variance[step])
        return min(std, self._limit) if left < self._clipped else std


def analytic_for(
    grid: Grid,
    variance: str,
    gamma: Sequence[float] | None,
    gamma_times: Sequence[float] | None,
    *,
    radius: float | None,
    clip_pixel: float | None,
    clip_steps: int | None,
) -> Analytic | None:
    """Return what a solver's options ask for: None unless the variance is "analytic", which gamma belongs to."""
    if variance == "analytic" and gamma is not None:
        return Analytic(grid, gamma, gamma_times, radius=radius, clip_pixel=clip_pixel, clip_steps=clip_steps)
    if variance == "analytic":
        raise OptionError(
            "the analytic variance needs a statistic of the network, which is missing",
            got="gamma=None",
            expected="the mean of eps(x_t, t)^2 at each training time",
            fix="`dpmrt calibrate BUNDLE --data DATA` measures it and stores it in the bundle; or pass gamma=...",
        )
    for name, value in (("gamma", gamma), ("gamma_times", gamma_times), ("clip_steps", clip_steps)):
        if value is not None:
            raise OptionError(
                f"{name} is for the analytic variance alone", got=f"variance={variance!r}", fix="variance='analytic'"
            )
    return None


def _statistic(gamma: Sequence[float], gamma_times: Sequence[float] | None) -> tuple[Floats, Floats]:
    known = np.asarray(gamma, np.float64)
    times = np.arange(len(known), dtype=np.float64) if gamma_times is None else np.asarray(gamma_times, np.float64)
    if len(times) != len(known) or not (np.diff(times) > 0).all():
        raise OptionError(
            "gamma_times does not say when each gamma was measured",
            got=f"{len(times)} times for {len(known)} of gamma",
            expected="a time for each, in rising order",
        )
    if (known < 0).any():
        raise OptionError("gamma is a mean of squares", got=known.min(), expected="numbers of at least 0")
    return known, times


def _x0_variance(level: Level, known: Floats, times: Floats, radius: float | None) -> float:
    """Return the variance of x0 given the state, averaged over its entries, within what the data's range allows."""
    if not times[0] <= level.t <= times[-1]:
        raise OptionError(
            "gamma is not known at a time of the plan",
            got=f"t = {level.t:g}",
            expected=f"{times[0]:g} to {times[-1]:g}",
            fix="measure it there, or choose a grid of other times",
        )
    if not level.alpha:
        raise OptionError(
            "gamma says nothing where no signal is left",
            got=f"alpha = 0 at t = {level.t:g}",
            expected="alpha > 0",
            fix="choose a grid that starts later, or variance='fixed_small'",
        )
    variance = level.ratio**2 * (1.0 - float(np.interp(level.t, times, known)))
    return min(max(variance, 0.0), math.inf if radius is None else radius**2)
