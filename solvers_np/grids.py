"""Time grids: where the network is called, and between which noise levels each step goes.

GRIDS lists the named ones: functions of (schedule, steps) and their options. A Grid is a list of intervals;
the end of one is as a rule, but not always, the start of the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.options import call_with_options, choose, one_of, whole
from dpmrt.solvers_np.schedule import DiscreteVP, Floats, NoiseSchedule

#: an interval whose noise falls by less than this part has no length: what is left is rounding
NO_LENGTH = 1e-10


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """`len(grid)` intervals: called at time t with weights (alpha, sigma), each ends at (alpha_next, sigma_next).

    The noise falls in each; only the last may have no length, as it has where diffusers repeats its lowest sigma.
    `t_end` is the time of the last end, or NaN where it is none of the schedule's (no noise left).
    """

    t: Floats
    alpha: Floats
    sigma: Floats
    alpha_next: Floats
    sigma_next: Floats
    t_end: float = float("nan")

    def __post_init__(self) -> None:
        least = np.full(len(self), 1 + NO_LENGTH)
        least[-1] = 1 - NO_LENGTH
        falls = self.sigma * self.alpha_next > self.sigma_next * self.alpha * least
        if not falls.all():
            step = int(np.flatnonzero(~falls)[0])
            raise OptionError(
                "the noise does not fall from step to step, so the grid has a step of no length",
                got=f"step {step} of {len(self)} at t = {self.t[step]:g}",
                expected="each noise level below the one before",
                fix="ask for fewer steps, or for another spacing",
            )

    def __len__(self) -> int:
        return len(self.t)

    def __iter__(self) -> Iterator[tuple[float, float, float, float, float]]:
        """Give (t, alpha, sigma, alpha_next, sigma_next) of each interval as plain floats."""
        columns = (self.t, self.alpha, self.sigma, self.alpha_next, self.sigma_next)
        return zip(*(column.tolist() for column in columns))

    @property
    def lambda_(self) -> Floats:
        """Return log(alpha / sigma) at the start of each interval."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.alpha) - np.log(self.sigma))

    @property
    def lambda_next(self) -> Floats:
        """Return log(alpha / sigma) at the end of each interval; infinite where no noise is left."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.alpha_next) - np.log(self.sigma_next))

    @staticmethod
    def at_times(schedule: NoiseSchedule, times: Floats, final: str = "zero") -> Grid:
        """Start intervals at `times`; the last ends without noise ("zero") or at t_min ("sigma_min")."""
        t_end = float("nan") if final == "zero" else schedule.t_min
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        last = (1.0, 0.0) if final == "zero" else (float(schedule.alpha(t_end)), float(schedule.sigma(t_end)))
        return Grid(times, alpha, sigma, np.append(alpha[1:], last[0]), np.append(sigma[1:], last[1]), t_end)

    @staticmethod
    def through_times(schedule: NoiseSchedule, times: Floats) -> Grid:
        """Make intervals between consecutive `times`."""
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        return Grid(times[:-1], alpha[:-1], sigma[:-1], alpha[1:], sigma[1:], float(times[-1]))

    @staticmethod
    def at_sigmas(ratios: Floats, times: Floats, last: float) -> Grid:
        """Make variance-preserving intervals from noise-to-signal ratios, the last ending at ratio `last`."""
        ends = np.append(ratios[1:], last)
        alpha, alpha_next = 1 / np.hypot(1, ratios), 1 / np.hypot(1, ends)
        return Grid(times, alpha, ratios * alpha, alpha_next, ends * alpha_next)


def uniform(schedule: NoiseSchedule, steps: int, *, t_start: float | None = None, t_end: float | None = None) -> Grid:
    """Evenly spaced in time (DPM-Solver's `time_uniform`)."""
    start, end = _ends(schedule, t_start, t_end)
    return Grid.through_times(schedule, np.linspace(start, end, steps + 1))


def quadratic(
    schedule: NoiseSchedule, steps: int, *, t_start: float | None = None, t_end: float | None = None
) -> Grid:
    """Evenly spaced in the square root of time (DPM-Solver's `time_quadratic`)."""
    start, end = _ends(schedule, t_start, t_end)
    return Grid.through_times(
        schedule, _pinned(np.linspace(np.sqrt(start), np.sqrt(end), steps + 1) ** 2, start, end)
    )


def logsnr(schedule: NoiseSchedule, steps: int, *, t_start: float | None = None, t_end: float | None = None) -> Grid:
    """Evenly spaced in lambda (DPM-Solver's `logSNR`)."""
    start, end = _ends(schedule, t_start, t_end)
    high, low = float(schedule.lambda_(end)), float(schedule.lambda_(start))
    if not np.isfinite([high, low]).all():
        raise OptionError(
            "grid 'logsnr' needs a finite lambda at both ends",
            got=f"lambda {low} at t = {start:g}, {high} at t = {end:g}",
            expected="a schedule that keeps some signal",
            fix="pass t_start below the last training time",
        )
    times = schedule.t_of_lambda(np.linspace(low, high, steps + 1))
    return Grid.through_times(schedule, _pinned(times, start, end))


def _pinned(times: Floats, start: float, end: float) -> Floats:
    times[0], times[-1] = start, end
    return times


def _ends(schedule: NoiseSchedule, t_start: float | None, t_end: float | None) -> tuple[float, float]:
    start = schedule.t_max if t_start is None else float(t_start)
    end = schedule.t_min if t_end is None else float(t_end)
    if not schedule.t_min <= end < start <= schedule.t_max:
        raise OptionError(
            "t_start and t_end do not bound a part of the schedule",
            got=f"t_start={start:g}, t_end={end:g}",
            expected=f"{schedule.t_min:g} <= t_end < t_start <= {schedule.t_max:g}",
        )
    return start, end


def _train_steps(schedule: NoiseSchedule, grid: str) -> int:
    if not isinstance(schedule, DiscreteVP):
        raise OptionError(
            f"grid {grid!r} needs a schedule with training steps",
            got=type(schedule).__name__,
            expected="a discrete schedule, or one of the grids uniform, quadratic, logsnr",
        )
    return schedule.train_steps


def linspace(schedule: NoiseSchedule, steps: int, *, final: str = "zero") -> Grid:
    """Whole training times, evenly spaced from the last one down (diffusers' "linspace" for DPM-Solver)."""
    last = _train_steps(schedule, "linspace") - 1
    return _spaced(schedule, np.linspace(0, last, steps + 1).round()[:0:-1], final)


def leading(schedule: NoiseSchedule, steps: int, *, steps_offset: int = 0, final: str = "zero") -> Grid:
    """Multiples of a whole stride, plus an offset (diffusers' "leading" for DPM-Solver)."""
    stride = _train_steps(schedule, "leading") // (steps + 1)
    offset = whole("steps_offset", steps_offset, 0)
    return _spaced(schedule, (np.arange(0, steps + 1) * stride)[:0:-1].astype(np.float64) + offset, final)


def trailing(schedule: NoiseSchedule, steps: int, *, final: str = "zero") -> Grid:
    """Counted back from the last training time (Lin et al. 2024, table 2)."""
    return _spaced(schedule, trailing_times(_train_steps(schedule, "trailing"), steps), final)


def trailing_times(train_steps: int, steps: int) -> Floats:
    """Return the times of "trailing" spacing, last first."""
    return np.asarray(np.maximum(np.round(train_steps - np.arange(steps) * (train_steps / steps)) - 1, 0))


def karras(
    schedule: NoiseSchedule,
    steps: int,
    *,
    rho: float = 7.0,
    round_times: bool = False,
    final: str = "zero",
) -> Grid:
    """Noise levels evenly spaced in their rho-th root (Karras et al. 2022, eq. 5).

    With final="zero" the levels end at the schedule's lowest and one step more removes the rest of the noise.
    """
    one_of("final", final, ("zero", "sigma_min"))
    ends = np.array([schedule.t_max, schedule.t_min])
    with np.errstate(divide="ignore"):
        high, low = schedule.sigma(ends) / schedule.alpha(ends)
    if not np.isfinite(high):
        raise OptionError("grid 'karras' needs some signal at the last training time", got="alpha = 0 there")
    if not rho > 0:
        raise OptionError("rho must be positive", got=rho)
    ramp = np.linspace(0, 1, steps if final == "zero" else steps + 1)
    ratios = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    times = np.clip(schedule.t_of_lambda(-np.log(np.clip(ratios, low, high))), schedule.t_min, schedule.t_max)
    times = times.round() if round_times else times
    if final == "zero":
        return Grid.at_sigmas(ratios, times, 0.0)
    return dataclasses.replace(Grid.at_sigmas(ratios[:-1], times[:-1], float(low)), t_end=schedule.t_min)


def _spaced(schedule: NoiseSchedule, times: Floats, final: str) -> Grid:
    one_of("final", final, ("zero", "sigma_min"))
    return Grid.at_times(schedule, times, final)


GRIDS: Mapping[str, Callable[..., Grid]] = MappingProxyType(
    {
        "uniform": uniform,
        "logsnr": logsnr,
        "quadratic": quadratic,
        "linspace": linspace,
        "leading": leading,
        "trailing": trailing,
        "karras": karras,
    }
)


def make_grid(name: str, schedule: NoiseSchedule, steps: int, **options: Any) -> Grid:
    """Make a grid of `steps` intervals by name.

    >>> from dpmrt.solvers_np import make_schedule
    >>> make_grid("trailing", make_schedule("linear"), 4).t.tolist()
    [999.0, 749.0, 499.0, 249.0]
    """
    factory = choose("grid", name, GRIDS)
    return call_with_options(f"grid {name!r}", factory, options, schedule, whole("steps", steps, 1))
