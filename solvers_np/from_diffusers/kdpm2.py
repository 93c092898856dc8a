"""KDPM2DiscreteScheduler and KDPM2AncestralDiscreteScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.k_grids import staged_grid
from dpmrt.solvers_np.from_diffusers.numbers import sigmas
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.kdpm2 import kdpm2, kdpm2_ancestral


def plan_kdpm2(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of KDPM2."""
    keys = SchedulerConfig("KDPM2DiscreteScheduler", config, sigmas.KDPM2_KEYS)
    prediction = str(keys.choice("prediction_type", "epsilon", "v_prediction"))
    plan = kdpm2(staged_grid(sigmas.kdpm2(keys, steps)), prediction)
    return described(plan, keys, "kdpm2", steps, prediction)


def plan_kdpm2_ancestral(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of KDPM2's ancestral form."""
    keys = SchedulerConfig("KDPM2AncestralDiscreteScheduler", config, sigmas.KDPM2_KEYS)
    prediction = str(keys.choice("prediction_type", "epsilon", "v_prediction"))
    plan = kdpm2_ancestral(staged_grid(sigmas.kdpm2_ancestral(keys, steps)), prediction)
    return described(plan, keys, "kdpm2-ancestral", steps, prediction)
