"""SA-Solver, Xue et al. 2023: stochastic Adams methods, a predictor and a corrector that share one call a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.options import one_of, whole
from dpmrt.solvers_np.plans.instructions import Discard, Instruction
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.adams import Nodes, write_adams
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.orders import MOST_ORDER, order_within
from dpmrt.solvers_np.solvers.ratio import check_ends
from dpmrt.solvers_np.solvers.rising import refuse_rising

SECOND_ORDERS = ("released", "taylor")


def sa_solver(
    grid: Grid,
    prediction: str,
    *,
    predictor_order: int | None = None,
    corrector_order: int = 2,
    tau: float = 1.0,
    tau_between: Sequence[float] | None = None,
    predict_x0: bool = True,
    second_order: str = "released",
    lower_order_final: bool = True,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Follow the SDE that adds tau^2 times the noise of the reverse SDE: 0 is the ODE, 1 the reverse SDE.

    `predictor_order` (2 unless given) and `corrector_order` count the values that a polynomial goes through, the
    corrector's with the new one; 0 switches the corrector off. With `tau_between` tau acts at the times from the one
    to the other, and is 0 elsewhere. `predict_x0` integrates x0, else eps. Where two values of x0 are known,
    `second_order` weighs their slope by h/2, as "released" for few steps, or by its exact "taylor" weight.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("sa-solver", "scaled_linear", 20, tau=0.8, tau_between=(200, 800))
    >>> plan.calls, plan.draws
    (20, 12)
    """
    return stochastic_adams(
        grid,
        prediction,
        predictor_order=predictor_order,
        corrector_order=corrector_order,
        tau=_acting(tau, tau_between),
        predict_x0=predict_x0,
        second_order=second_order,
        lower_order_final=lower_order_final,
        limit=limit_x0(clip, threshold, threshold_max),
    )


def stochastic_adams(
    grid: Grid,
    prediction: str,
    *,
    predictor_order: int | None,
    corrector_order: int,
    tau: Callable[[float], float],
    predict_x0: bool,
    second_order: str,
    lower_order_final: bool,
    limit: Instruction | None,
    draw_always: bool = False,
) -> StepPlan:
    """Write the plan for any function tau of time; `draw_always` draws, and discards, noise where tau is 0 too."""
    check_ends(grid, "sa-solver")
    n = len(grid)
    order = order_within(predictor_order, n, option="predictor_order")
    corrected = whole("corrector_order", corrector_order, 0, MOST_ORDER)
    one_of("second_order", second_order, SECOND_ORDERS)
    taus = [float(tau(t)) for t in grid.t.tolist()]
    wrong = [value for value in taus if not (math.isfinite(value) and value >= 0)]
    if wrong:
        raise OptionError("tau is out of range", got=wrong[0], expected="0 (no noise) or more, 1 for the reverse SDE")
    if any(taus):
        refuse_rising(grid, "steps of 'sa-solver' that add noise", got="tau > 0", expected="tau=0")
    left = [n - i if lower_order_final else n for i in range(n)]
    nodes = [Nodes(min(order, i + 1, left[i]), min(corrected, i + 2, left[i] + 1)) for i in range(n)]
    rows = write_adams(
        grid,
        prediction,
        nodes,
        buffers_x0=predict_x0,
        slope="bh1" if predict_x0 and second_order == "released" else "exact",
        taus=taus,
        idle=Discard() if draw_always else None,
        limit=limit,
    )
    return rows.plan(order=order)


def _acting(tau: float, between: Sequence[float] | None) -> Callable[[float], float]:
    if between is None:
        return lambda t: tau
    if len(between) != 2:
        raise OptionError("tau_between must be two times", got=repr(between), expected="a pair, as (200, 800)")
    low, high = sorted(float(t) for t in between)
    return lambda t: tau if low <= t <= high else 0.0


_ODE = {"tau": 0.0}
SA_SOLVER = Solver(
    sa_solver,
    paper="Xue et al. 2023 (SA-Solver), eq. 15 and 18",
    cases=(
        Case({**_ODE, "predictor_order": 1, "corrector_order": 0}, 1.0),
        Case({**_ODE, "predictor_order": 2, "corrector_order": 0}, 2.0),
        Case({**_ODE, "predictor_order": 3, "corrector_order": 0}, 3.0, starts_at=1.0),
        Case({**_ODE, "predictor_order": 2, "corrector_order": 2}, 2.0),
        Case({**_ODE, "predictor_order": 2, "corrector_order": 2, "predict_x0": False}, 2.0),
        Case({**_ODE, "predictor_order": 2, "corrector_order": 3}, 3.0, starts_at=2.0),
        Case({**_ODE, "predictor_order": 3, "corrector_order": 4}, 4.0, starts_at=2.0),
        Case({"predictor_order": 1, "corrector_order": 0}, 1.0),
        Case({"predictor_order": 2, "corrector_order": 2}, 2.0),
        Case({"predictor_order": 2, "corrector_order": 2, "predict_x0": False}, 2.0),
        Case({"predictor_order": 2, "corrector_order": 2, "tau": 0.4}, 2.0),
    ),
    noise="with tau",
    diffusers=("SASolverScheduler",),
)
