"""SASolverScheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.solver_sigmas import SA_KEYS
from dpmrt.solvers_np.from_diffusers.numbers.solver_sigmas import sa_solver as sa_sigmas
from dpmrt.solvers_np.from_diffusers.solver_grids import solver_grid
from dpmrt.solvers_np.from_diffusers.solver_prediction import PREDICTION_KEYS, read_parts, solver_prediction
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.sa_solver import stochastic_adams

_KEYS: dict[str, Any] = {
    **SA_KEYS,
    **PREDICTION_KEYS,
    "predictor_order": 2,
    "corrector_order": 2,
    "tau_func": None,
    "algorithm_type": "data_prediction",
    "second_order": "released",
    "lower_order_final": True,
    "variance_type": None,
}
#: where diffusers' own tau_func is 1; elsewhere it is 0
_FIRST, _LAST = 200, 800
_MOST_ORDER = 4


def plan_sa_solver(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return SA-Solver's plan, which ends with the noise of the lowest sigma, as diffusers does.

    `tau_func` is a function of time, or None for diffusers' own: 1 from time 200 to 800, else 0. Noise is drawn in
    every step, also where tau is 0 and it is not used. `second_order`, which is not diffusers', may be "taylor".
    """
    keys = SchedulerConfig("SASolverScheduler", config, _KEYS)
    predict_x0 = keys.choice("algorithm_type", "data_prediction", "noise_prediction") == "data_prediction"
    prediction = solver_prediction(keys, flow=predict_x0)
    grid = solver_grid(keys, sa_sigmas(keys, steps))
    plan = stochastic_adams(
        grid,
        prediction,
        predictor_order=min(keys.whole("predictor_order", 1, _MOST_ORDER), len(grid)),
        corrector_order=keys.whole("corrector_order", 1, _MOST_ORDER),
        tau=_tau(keys),
        predict_x0=predict_x0,
        second_order=keys["second_order"],
        lower_order_final=keys.flag("lower_order_final"),
        limit=limit_x0(**keys.limits()),
        draw_always=True,
    )
    return described(plan, keys, "sa-solver", steps, prediction, read_parts(keys, prediction))


def _tau(keys: SchedulerConfig) -> Callable[[float], float]:
    given = keys["tau_func"]
    if given is None:
        return lambda t: float(_FIRST <= t <= _LAST)
    if not callable(given):
        raise OptionError(
            f"{keys.name}: tau_func must be a function of time",
            got=repr(given),
            expected="null, or as in tau_func=lambda t: 1.0",
        )
    return lambda t: float(given(t))
