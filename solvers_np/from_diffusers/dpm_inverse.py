"""DPMSolverMultistepInverseScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.dpm_options import (
    ALGORITHMS,
    FINAL_KEYS,
    SOLVER_KEYS,
    integrates_x0,
    multistep_plan,
    refuse_order_3,
)
from dpmrt.solvers_np.from_diffusers.numbers.solver_sigmas import DPM_INVERSE_KEYS, dpm_multistep_inverse
from dpmrt.solvers_np.from_diffusers.solver_grids import solver_grid
from dpmrt.solvers_np.from_diffusers.solver_prediction import read_parts, solver_prediction
from dpmrt.solvers_np.plans.plan import StepPlan

_KEYS: dict[str, Any] = {**DPM_INVERSE_KEYS, **SOLVER_KEYS, **FINAL_KEYS, "variance_type": None}


def plan_dpm_inverse(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan that encodes: the noise rises, but for a flow's, which falls as diffusers has it."""
    keys = SchedulerConfig("DPMSolverMultistepInverseScheduler", config, _KEYS)
    algorithm = str(keys.choice("algorithm_type", *ALGORITHMS))
    refuse_order_3(keys, "sde-dpmsolver", "sde-dpmsolver++")
    prediction = solver_prediction(keys, flow=integrates_x0(keys))
    grid = solver_grid(keys, dpm_multistep_inverse(keys, steps))
    plan = multistep_plan(keys, grid, prediction)
    return described(plan, keys, algorithm, steps, prediction, read_parts(keys, prediction))
