"""TCDScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.lcm import distilled_times
from dpmrt.solvers_np.from_diffusers.numbers.schedule import read_schedule
from dpmrt.solvers_np.from_diffusers.numbers.times import TCD_KEYS
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Levels
from dpmrt.solvers_np.options import within
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.prediction import PREDICTIONS
from dpmrt.solvers_np.schedules.schedule import DiscreteVP, Floats
from dpmrt.solvers_np.solvers.tcd import with_turns

_KEYS: dict[str, Any] = {**TCD_KEYS, "timesteps": None, "eta": 0.3}


def plan_tcd(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of TCDScheduler, which ends at time 0 and not without noise, as diffusers does.

    `eta`, which it takes in `step`, and `strength` and `timesteps`, which it takes in set_timesteps, are keys.
    Clipping, thresholding, `timestep_scaling` and the spacing are read and change nothing, as in diffusers.
    """
    keys = SchedulerConfig("TCDScheduler", config, _KEYS)
    eta = keys.number("eta")
    within(f"{keys.name}: eta", eta, 0, 1, "0 (no noise) to 1 (all is fresh)")
    schedule = read_schedule(keys)
    times = distilled_times(keys, steps)
    after = np.append(times[1:], 0.0)
    grid = Grid(_levels(schedule, times), _levels(schedule, after))
    prediction = keys.choice("prediction_type", *PREDICTIONS)
    plan = with_turns(grid, prediction, _levels(schedule, np.floor((1 - eta) * after)))
    return described(plan, keys, "tcd", steps, prediction)


def _levels(schedule: DiscreteVP, times: Floats) -> Levels:
    return Levels.of(times, schedule.alpha(times), schedule.sigma(times))
