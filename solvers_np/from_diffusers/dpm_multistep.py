"""DPMSolverMultistepScheduler."""

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
    refuse_end_at_zero,
    refuse_order_3,
)
from dpmrt.solvers_np.from_diffusers.numbers.solver_sigmas import DPM_MULTISTEP_KEYS, dpm_multistep
from dpmrt.solvers_np.from_diffusers.part_way import STRENGTH
from dpmrt.solvers_np.from_diffusers.solver_grids import solver_grid
from dpmrt.solvers_np.from_diffusers.solver_prediction import read_parts, solver_prediction
from dpmrt.solvers_np.plans.plan import StepPlan

_KEYS: dict[str, Any] = {**DPM_MULTISTEP_KEYS, **SOLVER_KEYS, **FINAL_KEYS, **STRENGTH, "variance_type": None}


def plan_dpm_multistep(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of DPM-Solver's multistep family."""
    keys = SchedulerConfig("DPMSolverMultistepScheduler", config, _KEYS)
    algorithm = str(keys.choice("algorithm_type", *ALGORITHMS))
    refuse_end_at_zero(keys)
    refuse_order_3(keys, "sde-dpmsolver")
    prediction = solver_prediction(keys, flow=integrates_x0(keys))
    grid = solver_grid(keys, dpm_multistep(keys, steps))
    plan = multistep_plan(keys, grid, prediction)
    return described(plan, keys, algorithm, steps, prediction, read_parts(keys, prediction))
