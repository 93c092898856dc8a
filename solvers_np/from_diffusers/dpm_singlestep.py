"""DPMSolverSinglestepScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.dpm_options import (
    SOLVER_KEYS,
    integrates_x0,
    refuse_end_at_zero,
    solver_options,
)
from dpmrt.solvers_np.from_diffusers.numbers.solver_sigmas import DPM_SINGLESTEP_KEYS, dpm_singlestep
from dpmrt.solvers_np.from_diffusers.solver_grids import solver_grid
from dpmrt.solvers_np.from_diffusers.solver_prediction import read_parts, solver_prediction
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers import SOLVERS

_KEYS: dict[str, Any] = {**DPM_SINGLESTEP_KEYS, **SOLVER_KEYS, "lower_order_final": False, "variance_type": None}
_SOLVERS = {
    "dpmsolver": "dpmsolver-singlestep-grid",
    "dpmsolver++": "dpmsolver++singlestep-grid",
    "sde-dpmsolver++": "sde-dpmsolver++singlestep-grid",
}


def plan_dpm_singlestep(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of DPM-Solver's singlestep family, whose inner points are those of the grid."""
    keys = SchedulerConfig("DPMSolverSinglestepScheduler", config, _KEYS)
    solver = _SOLVERS[keys.choice("algorithm_type", *_SOLVERS)]
    refuse_end_at_zero(keys)
    keys.choice("third_order", "diffusers", "taylor")
    prediction = solver_prediction(keys, flow=integrates_x0(keys))
    grid = solver_grid(keys, dpm_singlestep(keys, steps))
    plan = SOLVERS[solver](
        grid,
        prediction,
        # diffusers lowers the last of an order's own steps, and too few steps are none of its own
        lower_order_final=keys.flag("lower_order_final") and len(grid) >= keys.whole("solver_order", 1, 3),
        **solver_options(keys, len(grid)),
    )
    return described(plan, keys, solver, steps, prediction, read_parts(keys, prediction))
