"""DDPMScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.given_times import given_times
from dpmrt.solvers_np.from_diffusers.numbers.schedule import SCHEDULE_KEYS, read_schedule
from dpmrt.solvers_np.from_diffusers.numbers.spacing import spaced_times
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.prediction import PREDICTIONS
from dpmrt.solvers_np.solvers.ddpm import ddpm

_KEYS: dict[str, Any] = {
    **SCHEDULE_KEYS,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "timesteps": None,
}
# fixed_small_log is fixed_small by another road; fixed_large_log is read as Glide means it, exp(log(beta) / 2),
# where diffusers takes the root of a logarithm and returns NaN.
_VARIANCE = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",
    "fixed_large": "fixed_large",
    "fixed_large_log": "fixed_large",
    "learned": "learned",
    "learned_range": "learned_range",
}


def plan_ddpm(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return DDPM's plan: no noise in a step that starts at time 0, noise in every other, as diffusers does.

    `timesteps`, which diffusers takes in set_timesteps, is read in place of the spacing.
    """
    keys = SchedulerConfig("DDPMScheduler", config, _KEYS)
    variance = _VARIANCE[keys.choice("variance_type", *_VARIANCE)]
    schedule = read_schedule(keys, also=("sigmoid", "laplace"))
    given = given_times(keys, steps)
    grid = Grid.at_times(schedule, spaced_times(keys, steps) if given is None else given)
    prediction = keys.choice("prediction_type", *PREDICTIONS)
    plan = ddpm(grid, prediction, variance=variance, noise_at_end=bool(grid.t[-1] > 0), **keys.limits())
    return described(plan, keys, "ddpm", steps, prediction)
