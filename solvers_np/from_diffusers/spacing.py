"""diffusers' three spacings of whole training times."""

from __future__ import annotations

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.schedule import Floats

SPACINGS = ("linspace", "leading", "trailing")


def spaced_times(config: SchedulerConfig, steps: int) -> Floats:
    """Return the times of DDPM and DDIM, last first."""
    total = config.whole("num_train_timesteps", 2)
    if steps > total:
        raise OptionError("more steps than training times", got=f"steps={steps}", expected=f"1 to {total}")
    spacing = config.choice("timestep_spacing", *SPACINGS)
    times: Floats
    if spacing == "linspace":
        times = np.linspace(0, total - 1, steps).round()[::-1].astype(np.float64)
    elif spacing == "leading":
        times = (np.arange(steps)[::-1] * (total // steps) + config.whole("steps_offset", 0)).astype(np.float64)
    else:
        times = counted_back(total, total / steps)
    return inside(config, times, total)


def counted_back(last: int, stride: float) -> Floats:
    """Return last - 1, last - 1 - stride, ... rounded, without the time -1 that diffusers may add."""
    times = np.round(np.arange(last, 0, -stride)) - 1
    return np.asarray(times[times >= 0])


def inside(config: SchedulerConfig, times: Floats, total: int) -> Floats:
    """Refuse times that the schedule does not have."""
    if times.max() > total - 1:
        raise OptionError(
            f"{config.name}: the spacing leaves the training times",
            got=f"t = {times.max():g}",
            expected=f"0 to {total - 1}",
            fix="lower steps_offset or the number of steps, or use another spacing",
        )
    return np.ascontiguousarray(times, dtype=np.float64)
