"""LCMScheduler, and what it shares with TCDScheduler: the times of a distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.given_times import given_times
from dpmrt.solvers_np.from_diffusers.numbers.schedule import read_schedule
from dpmrt.solvers_np.from_diffusers.numbers.times import LCM_KEYS
from dpmrt.solvers_np.from_diffusers.numbers.times import lcm as spaced_times
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.prediction import PREDICTIONS
from dpmrt.solvers_np.schedules.schedule import Floats
from dpmrt.solvers_np.solvers.lcm import lcm

_KEYS: dict[str, Any] = {**LCM_KEYS, "timesteps": None}


def plan_lcm(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of LCMScheduler.

    `set_alpha_to_one`, `steps_offset` and `timestep_spacing` are read and change nothing, as in diffusers;
    `original_inference_steps`, `strength` and `timesteps`, which it takes in set_timesteps, are keys.
    """
    keys = SchedulerConfig("LCMScheduler", config, _KEYS)
    grid = Grid.at_times(read_schedule(keys), distilled_times(keys, steps))
    prediction = keys.choice("prediction_type", *PREDICTIONS)
    plan = lcm(grid, prediction, timestep_scaling=keys.number("timestep_scaling"), **keys.limits())
    return described(plan, keys, "lcm", steps, prediction)


def distilled_times(keys: SchedulerConfig, steps: int) -> Floats:
    """Return the times that the config lists, or else those chosen from the times of the distillation."""
    given = given_times(keys, steps)
    if given is None:
        return spaced_times(keys, steps)
    if keys.number("strength") != 1:
        raise OptionError(
            f"{keys.name}: timesteps and strength exclude each other",
            got=f"strength = {keys['strength']!r}",
            expected="1.0",
            fix="list the times of the part that is wanted",
        )
    return given
