"""DDIMScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.schedule import SCHEDULE_KEYS, read_schedule
from dpmrt.solvers_np.from_diffusers.numbers.spacing import spaced_times
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Levels
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.prediction import PREDICTIONS
from dpmrt.solvers_np.solvers.ddim import ddim

_KEYS: dict[str, Any] = {
    **SCHEDULE_KEYS,
    "clip_sample": True,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "eta": 0.0,
    "use_clipped_model_output": False,
}


def plan_ddim(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return DDIM's plan. Each step aims at t - N // steps, whatever the spacing, as diffusers does."""
    keys = SchedulerConfig("DDIMScheduler", config, _KEYS)
    schedule = read_schedule(keys)
    times = spaced_times(keys, steps)
    bars = schedule.alphas_cumprod
    aims = times.astype(np.int64) - schedule.train_steps // steps
    final = 1.0 if keys.flag("set_alpha_to_one") else bars[0]
    ends = np.where(aims >= 0, bars[np.maximum(aims, 0)], final)
    start = Levels.of(times, schedule.alpha(times), schedule.sigma(times))
    grid = Grid(start, Levels.of(np.where(aims >= 0, aims, np.nan), np.sqrt(ends), np.sqrt(1 - ends)))
    prediction = keys.choice("prediction_type", *PREDICTIONS)
    plan = ddim(
        grid,
        prediction,
        eta=keys.number("eta"),
        eps_from_limited_x0=keys.flag("use_clipped_model_output"),
        **keys.limits(),
    )
    return described(plan, keys, "ddim", steps, prediction)
