"""DDPMScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.schedule import SCHEDULE_KEYS, read_schedule
from dpmrt.solvers_np.from_diffusers.spacing import spaced_times
from dpmrt.solvers_np.grids import Grid
from dpmrt.solvers_np.plan import StepPlan
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
}
# fixed_small_log is fixed_small by another road; fixed_large_log is read as Glide means it, exp(log(beta) / 2),
# where diffusers takes the root of a logarithm and returns NaN.
_VARIANCE = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",
    "fixed_large": "fixed_large",
    "fixed_large_log": "fixed_large",
}


def plan_ddpm(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return DDPM's plan: no noise in a step that starts at time 0, noise in every other, as diffusers does."""
    keys = SchedulerConfig("DDPMScheduler", config, _KEYS)
    variance = keys["variance_type"]
    if variance in ("learned", "learned_range"):
        raise OptionError(
            "DDPMScheduler: a learned variance is not supported yet",
            got=f"variance_type = {variance!r}",
            expected=", ".join(_VARIANCE),
            fix="pass variance_type='fixed_small' to use the mean alone",
        )
    schedule = read_schedule(keys)
    grid = Grid.at_times(schedule, spaced_times(keys, steps))
    prediction = keys.choice("prediction_type", *PREDICTIONS)
    plan = ddpm(
        grid,
        prediction,
        variance=_VARIANCE[keys.choice("variance_type", *_VARIANCE)],
        noise_at_end=bool(grid.t[-1] > 0),
        **keys.limits(),
    )
    meta = {**plan.meta, "scheduler": keys.name, "solver": "ddpm", "steps": steps, "prediction": prediction}
    return dataclasses.replace(plan, meta=meta)
