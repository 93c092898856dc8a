"""DDIMInverseScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.schedule import read_schedule
from dpmrt.solvers_np.from_diffusers.numbers.times import DDIM_INVERSE_KEYS, ddim_inverse
from dpmrt.solvers_np.grids.grid import NO_LENGTH, Grid
from dpmrt.solvers_np.levels import Levels
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.prediction import PREDICTIONS
from dpmrt.solvers_np.solvers.ddim import ddim


def plan_ddim_inverse(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan that encodes a sample as noise.

    Each step goes from the level of t - N // steps to that of t, and asks the network at t, as diffusers does: with
    the time where the step ends.
    """
    keys = SchedulerConfig("DDIMInverseScheduler", config, DDIM_INVERSE_KEYS)
    schedule = read_schedule(keys)
    times = ddim_inverse(keys, steps)
    bars = schedule.alphas_cumprod
    comes_from = times.astype(np.int64) - schedule.train_steps // steps
    first = 1.0 if keys.flag("set_alpha_to_one") else bars[0]
    starts, ends = np.where(comes_from >= 0, bars[np.maximum(comes_from, 0)], first), bars[times.astype(np.int64)]
    sigma = np.sqrt(1 - starts)
    if starts[0] == ends[0]:
        sigma[0] *= 1 - 2 * NO_LENGTH  # from time 0 to time 0: a first step needs some length
    grid = Grid(Levels.of(times, np.sqrt(starts), sigma), Levels.of(times, np.sqrt(ends), np.sqrt(1 - ends)))
    prediction = keys.choice("prediction_type", *PREDICTIONS)
    plan = ddim(grid, prediction, **keys.limits())
    return described(plan, keys, "ddim", steps, prediction)
