"""EDMEulerScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.churned import CHURN_KEYS, churned_euler
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.k_grids import edm_grid
from dpmrt.solvers_np.from_diffusers.numbers.edm_sigmas import EDM_KEYS, edm
from dpmrt.solvers_np.from_diffusers.prediction import EDM_PREDICTIONS
from dpmrt.solvers_np.plans.plan import StepPlan


def plan_edm_euler(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return Euler's plan for EDM's networks; the churn that diffusers takes in `step` is read from keys."""
    keys = SchedulerConfig("EDMEulerScheduler", config, {**EDM_KEYS, **CHURN_KEYS})
    prediction = EDM_PREDICTIONS[keys.choice("prediction_type", *EDM_PREDICTIONS)]
    grid = edm_grid(keys, edm(keys, steps))
    plan = churned_euler(grid, prediction, keys, lambda here, hat: hat, spread=len(grid))
    return described(plan, keys, "euler", steps, prediction)
