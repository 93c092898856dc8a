"""EDMDPMSolverMultistepScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.dpm_options import (
    FINAL_KEYS,
    SOLVER_KEYS,
    multistep_plan,
    refuse_order_3,
)
from dpmrt.solvers_np.from_diffusers.k_grids import edm_grid
from dpmrt.solvers_np.from_diffusers.numbers.edm_sigmas import EDM_KEYS, edm
from dpmrt.solvers_np.from_diffusers.prediction import EDM_PREDICTIONS
from dpmrt.solvers_np.plans.plan import StepPlan

_KEYS: dict[str, Any] = {**SOLVER_KEYS, **EDM_KEYS, **FINAL_KEYS}


def plan_edm_dpm(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of DPM-Solver++ for EDM's networks."""
    keys = SchedulerConfig("EDMDPMSolverMultistepScheduler", config, _KEYS)
    algorithm = str(keys.choice("algorithm_type", "dpmsolver++", "sde-dpmsolver++"))
    refuse_order_3(keys, "sde-dpmsolver++")
    prediction = EDM_PREDICTIONS[keys.choice("prediction_type", *EDM_PREDICTIONS)]
    plan = multistep_plan(keys, edm_grid(keys, edm(keys, steps)), prediction)
    return described(plan, keys, algorithm, steps, prediction)
