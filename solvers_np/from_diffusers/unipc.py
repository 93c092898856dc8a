"""UniPCMultistepScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.solver_sigmas import UNIPC_KEYS
from dpmrt.solvers_np.from_diffusers.numbers.solver_sigmas import unipc as unipc_sigmas
from dpmrt.solvers_np.from_diffusers.part_way import STRENGTH, part_way_grid
from dpmrt.solvers_np.from_diffusers.solver_grids import solver_grid
from dpmrt.solvers_np.from_diffusers.solver_prediction import PREDICTION_KEYS, solver_prediction
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.orders import MOST_ORDER
from dpmrt.solvers_np.solvers.unipc import SOLVER_TYPES, unipc

_KEYS: dict[str, Any] = {
    **UNIPC_KEYS,
    **PREDICTION_KEYS,
    "solver_order": 2,
    "predict_x0": True,
    "solver_type": "bh2",
    "lower_order_final": True,
    "disable_corrector": (),
    **STRENGTH,
    "solver_p": None,
}


def plan_unipc(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return UniPC's plan. Where diffusers divides by a step of no or of infinite length, the step is of order 1."""
    keys = SchedulerConfig("UniPCMultistepScheduler", config, _KEYS)
    if keys["solver_p"] is not None:
        raise OptionError(
            f"{keys.name}: solver_p, another scheduler as the predictor, is not read",
            got=repr(keys["solver_p"]),
            expected="null",
            fix="trace the scheduler object with dpmrt.export.trace_scheduler",
        )
    predict_x0 = keys.flag("predict_x0")
    if keys.flag("thresholding") and not predict_x0:
        raise OptionError(
            f"{keys.name}: diffusers limits x0 with predict_x0 only",
            got="thresholding = true, predict_x0 = false",
            expected="one of them otherwise",
        )
    prediction = solver_prediction(keys, flow=predict_x0)
    grid, skipped = part_way_grid(keys, solver_grid(keys, unipc_sigmas(keys, steps)))
    plan = unipc(
        grid,
        prediction,
        order=min(keys.whole("solver_order", 1, MOST_ORDER), len(grid)),
        solver_type=keys.choice("solver_type", *SOLVER_TYPES),
        predict_x0=predict_x0,
        corrector=True,
        disable_corrector=[step - skipped for step in _listed(keys) if 0 <= step - skipped < len(grid)],
        lower_order_final=keys.flag("lower_order_final"),
        **keys.limits(),
    )
    return described(plan, keys, "unipc", steps, prediction)


def _listed(keys: SchedulerConfig) -> list[int]:
    listed = keys["disable_corrector"]
    if not isinstance(listed, (list, tuple)) or not all(type(step) is int and step >= 0 for step in listed):
        raise OptionError(
            f"{keys.name}: disable_corrector must be a list of steps", got=repr(listed), expected="as [0, 1]"
        )
    return list(listed)
