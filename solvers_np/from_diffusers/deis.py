"""DEISMultistepScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.solver_sigmas import DEIS_KEYS
from dpmrt.solvers_np.from_diffusers.numbers.solver_sigmas import deis as deis_sigmas
from dpmrt.solvers_np.from_diffusers.part_way import STRENGTH, part_way_grid
from dpmrt.solvers_np.from_diffusers.solver_grids import solver_grid
from dpmrt.solvers_np.from_diffusers.solver_prediction import PREDICTION_KEYS, solver_prediction
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.deis import FEW_STEPS, deis

_KEYS: dict[str, Any] = {
    **DEIS_KEYS,
    **PREDICTION_KEYS,
    "solver_order": 2,
    "algorithm_type": "deis",
    "solver_type": "logrho",
    "lower_order_final": True,
    **STRENGTH,
}


def plan_deis(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return DEIS's plan, which ends with the noise of the lowest sigma, as diffusers does."""
    keys = SchedulerConfig("DEISMultistepScheduler", config, _KEYS)
    keys.choice("algorithm_type", "deis")
    keys.choice("solver_type", "logrho")
    prediction = solver_prediction(keys)
    grid, skipped = part_way_grid(keys, solver_grid(keys, deis_sigmas(keys, steps)))
    order = min(keys.whole("solver_order", 1, 3), len(grid))
    lowered, below = keys.flag("lower_order_final"), FEW_STEPS - skipped
    plan = deis(grid, prediction, order=order, lower_order_final=lowered, lower_order_below=below, **keys.limits())
    return described(plan, keys, "deis", steps, prediction)
