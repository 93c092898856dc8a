"""Where an adaptive run starts and ends: two levels with some signal and some noise."""

from __future__ import annotations

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.adaptive.options import AdaptiveOptions
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule


def end_levels(schedule: NoiseSchedule, options: AdaptiveOptions) -> tuple[Level, Level]:
    """Return the levels at `t_start` and `t_end`, which are the schedule's own ends unless given."""
    start = schedule.t_max if options.t_start is None else options.t_start
    end = schedule.t_min if options.t_end is None else options.t_end
    first, last = _end_level(schedule, start, "t_start"), _end_level(schedule, end, "t_end")
    if first.lambda_ == last.lambda_:
        raise OptionError("t_start and t_end are one noise level", got=f"{start:g} and {end:g}", expected="two")
    return first, last


def start_scale(schedule: NoiseSchedule, options: AdaptiveOptions) -> float:
    """Return what unit noise is multiplied by to be the state that sampling from nothing starts with."""
    times = [level.t for level in end_levels(schedule, options)]
    return Grid.through_times(schedule, np.array(times)).init_scale


def _end_level(schedule: NoiseSchedule, t: float, name: str) -> Level:
    level = Level(float(t), *(float(f(t)) for f in (schedule.alpha, schedule.sigma, schedule.in_scale)))
    if not (level.alpha > 0 and level.sigma > 0):
        raise OptionError(
            "adaptive steps are steps in log(alpha / sigma), which is infinite at an end",
            got=f"{'alpha' if level.alpha == 0 else 'sigma'} = 0 at {name} = {t:g}",
            expected="some signal and some noise at both ends",
            fix=f"pass another {name}, as {_beside(schedule, level):g}",
        )
    return level


def _beside(schedule: NoiseSchedule, level: Level) -> float:
    """Return a time that is a thousandth of the schedule away from its end."""
    step = (schedule.t_max - schedule.t_min) / 1000
    return level.t - step if level.alpha == 0 else level.t + step
