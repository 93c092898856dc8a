"""FlowMatchEulerDiscreteScheduler and FlowMatchHeunDiscreteScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.flow_sigmas import (
    FLOW_MATCH_EULER_KEYS,
    FLOW_MATCH_HEUN_KEYS,
    flow_match_euler,
    flow_match_heun,
)
from dpmrt.solvers_np.from_diffusers.solver_grids import flow_grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.flow import flow_euler, flow_heun


def plan_flow_match_euler(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of FlowMatchEulerDiscreteScheduler.

    `mu` and `sigmas`, which diffusers takes in set_timesteps, are keys. With `invert_sigmas` the noise rises by the
    plan's columns; a network that takes its time from the other end, as Mochi's, samples by the same numbers.
    """
    keys = SchedulerConfig("FlowMatchEulerDiscreteScheduler", config, FLOW_MATCH_EULER_KEYS)
    found = flow_match_euler(keys, steps)
    grid = flow_grid(found.sigmas, found.timesteps)
    plan = flow_euler(grid, "flow", stochastic=keys.flag("stochastic_sampling"))
    return described(plan, keys, "flow-euler", steps, "flow")


def plan_flow_match_heun(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of FlowMatchHeunDiscreteScheduler, without the churn of its `step`, which leaves the flow."""
    keys = SchedulerConfig("FlowMatchHeunDiscreteScheduler", config, FLOW_MATCH_HEUN_KEYS)
    found = flow_match_heun(keys, steps)
    return described(flow_heun(flow_grid(found.levels, found.times), "flow"), keys, "flow-heun", steps, "flow")
