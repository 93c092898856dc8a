"""Grids made of times: evenly spaced ones, diffusers' three spacings of training times, and the user's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.finals import FINALS, level_count
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.grids.part_way import part_way
from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.options import one_of, whole
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule


def uniform(
    schedule: NoiseSchedule,
    steps: int,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    final: str = "sigma_min",
    strength: float = 1.0,
) -> Grid:
    """Space times evenly (DPM-Solver's `time_uniform`); those of rectified flow before their shift.

    With final="zero" the times end at t_end and one step more removes the rest of the noise, as flow models sample.
    """
    start, end = _ends(schedule, t_start, t_end)
    times = schedule.spaced(start, end, level_count(steps, final))
    return _crossed(schedule, _pinned(times, start, end), final, strength)


def quadratic(
    schedule: NoiseSchedule,
    steps: int,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    final: str = "sigma_min",
    strength: float = 1.0,
) -> Grid:
    """Space times evenly in their square root (DPM-Solver's `time_quadratic`)."""
    start, end = _ends(schedule, t_start, t_end)
    if end < 0:
        raise OptionError("grid 'quadratic' needs times that are not negative", got=f"t_end={end:g}")
    times = np.linspace(np.sqrt(start), np.sqrt(end), level_count(steps, final)) ** 2
    return _crossed(schedule, _pinned(times, start, end), final, strength)


def logsnr(
    schedule: NoiseSchedule,
    steps: int,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    final: str = "sigma_min",
    strength: float = 1.0,
) -> Grid:
    """Space lambda evenly (DPM-Solver's `logSNR`)."""
    start, end = _ends(schedule, t_start, t_end)
    high, low = float(schedule.lambda_(end)), float(schedule.lambda_(start))
    if not np.isfinite([high, low]).all():
        raise OptionError(
            "grid 'logsnr' needs a finite lambda at both ends",
            got=f"lambda {low} at t = {start:g}, {high} at t = {end:g}",
            expected="a schedule that keeps some signal",
            fix="pass t_start below the last training time",
        )
    times = schedule.t_of_lambda(np.linspace(low, high, level_count(steps, final)))
    return _crossed(schedule, _pinned(times, start, end), final, strength)


def linspace(schedule: NoiseSchedule, steps: int, *, final: str = "zero", strength: float = 1.0) -> Grid:
    """Space whole training times evenly from the last one down (diffusers' "linspace" for DPM-Solver)."""
    last = _train_steps(schedule, "linspace") - 1
    return _started(schedule, schedule.counted(np.linspace(0, last, steps + 1).round()[:0:-1]), final, strength)


def leading(
    schedule: NoiseSchedule, steps: int, *, steps_offset: int = 0, final: str = "zero", strength: float = 1.0
) -> Grid:
    """Take multiples of a whole stride, plus an offset (diffusers' "leading" for DPM-Solver)."""
    stride = _train_steps(schedule, "leading") // (steps + 1)
    offset = whole("steps_offset", steps_offset, 0)
    spaced = (np.arange(0, steps + 1) * stride)[:0:-1].astype(np.float64) + offset
    return _started(schedule, schedule.counted(spaced), final, strength)


def trailing(schedule: NoiseSchedule, steps: int, *, final: str = "zero", strength: float = 1.0) -> Grid:
    """Count back from the last training time (Lin et al. 2024, table 2)."""
    places = trailing_times(_train_steps(schedule, "trailing"), steps)
    return _started(schedule, schedule.counted(places), final, strength)


def trailing_times(train_steps: int, steps: int) -> Floats:
    """Return the times of "trailing" spacing, last first."""
    return np.asarray(np.maximum(np.round(train_steps - np.arange(steps) * (train_steps / steps)) - 1, 0))


def times(
    schedule: NoiseSchedule, steps: int, *, times: Sequence[float] = (), final: str = "zero", strength: float = 1.0
) -> Grid:
    """Start the steps at the user's own times, falling."""
    if len(times) != steps:
        raise OptionError("steps and times disagree", got=f"steps={steps}, {len(times)} times", expected="one a step")
    return _started(schedule, np.array(times, np.float64), final, strength)


def _started(schedule: NoiseSchedule, starts: Floats, final: str, strength: float) -> Grid:
    one_of("final", final, FINALS)
    return part_way(Grid.at_times(schedule, starts, final), strength)


def _crossed(schedule: NoiseSchedule, ends: Floats, final: str, strength: float) -> Grid:
    grid = Grid.at_times(schedule, ends, final) if final == "zero" else Grid.through_times(schedule, ends)
    return part_way(grid, strength)


def _pinned(spaced: Floats, start: float, end: float) -> Floats:
    """Put the ends where they were asked for, which rounding has moved."""
    spaced[-1], spaced[0] = end, start
    return spaced


def _ends(schedule: NoiseSchedule, t_start: float | None, t_end: float | None) -> tuple[float, float]:
    start = schedule.t_max if t_start is None else float(t_start)
    end = schedule.t_min if t_end is None else float(t_end)
    against = schedule.t_max < schedule.t_min
    low, high = (start, end) if against else (end, start)
    first, last = schedule.t_range if against else (schedule.t_min, schedule.t_max)
    if not first <= low < high <= last:
        order = "t_start < t_end" if against else "t_end < t_start"
        raise OptionError(
            "t_start and t_end do not bound a part of the schedule",
            got=f"t_start={start:g}, t_end={end:g}",
            expected=f"{first:g} <= {order} <= {last:g}",
        )
    return start, end


def _train_steps(schedule: NoiseSchedule, grid: str) -> int:
    if schedule.train_steps is None:
        raise OptionError(
            f"grid {grid!r} needs a schedule with training steps",
            got=f"{schedule.name!r}, a {type(schedule).__name__}",
            expected="a discrete schedule, or one of the grids uniform, quadratic, logsnr",
        )
    return schedule.train_steps
