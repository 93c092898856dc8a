"""HeunDiscreteScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.k_grids import k_grid
from dpmrt.solvers_np.from_diffusers.numbers import sigmas
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.heun import heun


def plan_heun(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return Heun's plan, which has no churn in diffusers."""
    keys = SchedulerConfig("HeunDiscreteScheduler", config, sigmas.HEUN_KEYS)
    prediction = str(keys.choice("prediction_type", "epsilon", "sample", "v_prediction"))
    plan = heun(k_grid(sigmas.heun(keys, steps)), prediction, **keys.limits())
    return described(plan, keys, "heun", steps, prediction)
