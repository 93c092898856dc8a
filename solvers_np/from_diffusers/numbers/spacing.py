"""diffusers' three spacings of training times."""

from __future__ import annotations

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.levels import Floats

SPACINGS = ("linspace", "leading", "trailing")


def spaced_times(config: SchedulerConfig, steps: int) -> Floats:
    """Return the whole times of DDPM, DDIM and PNDM, last first."""
    total = config.whole("num_train_timesteps", 2)
    if steps > total:
        raise OptionError("more steps than training times", got=f"steps={steps}", expected=f"1 to {total}")
    times = unbounded_times(config, steps).round()
    return inside(config, times[times >= 0], total)


def unbounded_times(config: SchedulerConfig, steps: int) -> Floats:
    """Return the times of Euler and its kin, last first, "linspace" not rounded.

    They may leave the training times: "trailing" may end at -1, "leading" with an offset may start too late.
    """
    total = config.whole("num_train_timesteps", 2)
    spacing = config.choice("timestep_spacing", *SPACINGS)
    if spacing != "linspace" and steps > total:
        raise OptionError(f"more steps than {spacing!r} has times", got=f"steps={steps}", expected=f"1 to {total}")
    times: Floats
    if spacing == "linspace":
        times = np.linspace(0, total - 1, steps)[::-1]
    elif spacing == "leading":
        offset = config.whole("steps_offset", 0, total)
        times = (np.arange(steps)[::-1] * (total // steps) + offset).astype(np.float64)
    else:
        times = np.round(np.arange(total, 0, -total / steps)) - 1
    return np.ascontiguousarray(times, dtype=np.float64)


def solver_times(config: SchedulerConfig, steps: int, last: int, *, encoding: bool = False) -> Floats:
    """Return the whole times of DPM-Solver and its kin, last first: `steps` of steps + 1, up to below `last`.

    They are all but the first; for `encoding`, first first, all but the last.
    """
    total = config.whole("num_train_timesteps", 2)
    spacing = config.choice("timestep_spacing", *SPACINGS) if "timestep_spacing" in config else "linspace"
    most = total if spacing == "trailing" else last - 1
    if steps > most:
        raise OptionError(f"more steps than {spacing!r} has times", got=f"steps={steps}", expected=f"1 to {most}")
    kept = slice(None, -1) if encoding else slice(None, 0, -1)
    times: Floats
    if spacing == "linspace":
        times = np.linspace(0, last - 1, steps + 1).round()[kept]
    elif spacing == "leading":
        offset = config.whole("steps_offset", 0, total)
        times = (np.arange(steps + 1)[kept] * (last // (steps + 1)) + offset).astype(np.float64)
    else:
        times = counted_back(last, total / steps)[:: -1 if encoding else 1]
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
