"""DPM-Solver and DPM-Solver++, singlestep: each step starts afresh and calls the network inside itself.

Lu et al. 2022a, DPM-Solver-2 (algorithm 1) and -3; Lu et al. 2022b, DPM-Solver++(2S) and its third-order kin. The
"grid" forms, of diffusers' DPMSolverSinglestepScheduler, take two or three intervals of the grid as one step, and its
inner points as the places of the calls inside.
"""

from __future__ import annotations

import math
from functools import partial

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import NO_LENGTH, Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.options import one_of, whole
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.dpm_terms import (
    DPMSOLVER,
    DPMSOLVER_PP,
    SDE_DPMSOLVER_PP,
    SOLVER_TYPES,
    Form,
    as_diffusers,
    ask,
    check_grid,
    finished,
    step_terms,
)
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.orders import order_within
from dpmrt.solvers_np.solvers.singlestep_terms import INNER, moved


def singlestep(
    form: Form,
    grid: Grid,
    prediction: str,
    *,
    order: int = 2,
    solver_type: str = "midpoint",
    r1: float | None = None,
    calls: int | None = None,
    denoise_to_zero: bool = False,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Order 1, 2 or 3, with as many calls in each step: where it starts, and r1 and r2 of its way in lambda.

    r1 is 1/2, or of order 3 1/3, unless given; r2 is 2/3, the only one with which order 3 is reached. `solver_type`
    "midpoint" and "heun" are "dpmsolver" and "taylor" of the authors' code. A last step onto zero noise has order 1.
    `calls` lowers the last steps until the network is called that often: with order 3 and calls // 3 + 1 steps,
    DPM-Solver-fast. `denoise_to_zero` calls the network once more at the end and returns its x0.
    """
    order = whole("order", order, 1, 3)
    one_of("solver_type", solver_type, SOLVER_TYPES)
    inner = _inner(order, r1)
    check_grid(form, grid)
    limit = limit_x0(clip, threshold, threshold_max)
    rows = PlanWriter(grid)
    for (here, there), now in zip(grid, _orders(grid, order, calls)):
        x, asked = rows.x, list[Mix]()
        h = there.lambda_ - here.lambda_
        now = 1 if abs(h) < NO_LENGTH else now
        stages = [here, *(grid.level(here.lambda_ + r * h) for r in (inner if now == order else INNER[2])[: now - 1])]
        for stage, end in zip(stages, [*stages[1:], there]):
            asked.append(ask(rows, form, prediction, stage, limit))
            kind = solver_type if end is there else "heun"
            terms = step_terms(form, here, end)
            rows.move(moved(terms, kind, x, asked, stages, end))
    return finished(rows, grid, prediction, limit, order, denoise_to_zero)


def singlestep_on_grid(
    form: Form,
    grid: Grid,
    prediction: str,
    *,
    order: int | None = None,
    solver_type: str = "midpoint",
    third_order: str = "taylor",
    lower_order_final: bool = False,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Steps of order 2 (unless given) or 3 across as many intervals of the grid, with one call in each.

    Intervals left over at the end make a step of lower order; the last interval is one of order 1 where the grid ends
    without noise, or, with `lower_order_final`, where none is left over. sde-dpmsolver++ adds the noise of the whole
    step again at each of its calls, as diffusers does: mean and variance then tend to the exact ones in order 1.
    `third_order` "diffusers" gives its type "heun" diffusers' weight of the second derivative, which does not vanish
    with the step.
    """
    n = len(grid)
    order = order_within(order, n, most=3)
    one_of("solver_type", solver_type, SOLVER_TYPES)
    one_of("third_order", third_order, ("taylor", "diffusers"))
    check_grid(form, grid)
    limit = limit_x0(clip, threshold, threshold_max)
    rows, x, asked, stages = PlanWriter(grid), Mix(), list[Mix](), list[Level]()
    lower_last = grid.last.sigma == 0 or (lower_order_final and n % order == 0)
    for (here, there), now in zip(grid, _grid_orders(n, order, lower_last)):
        if now == 1:
            x, asked, stages = rows.x, [], []
        asked.append(ask(rows, form, prediction, here, limit))
        stages.append(here)
        terms = step_terms(form, stages[0], there)
        terms = as_diffusers(form, terms, there) if third_order == "diffusers" else terms
        rows.move(moved(terms, solver_type, x, asked, stages, there), noise=terms.noise, over=(stages[0], there))
    return finished(rows, grid, prediction, limit, order, False)


def _inner(order: int, r1: float | None) -> tuple[float, ...]:
    """Return where the inner calls are, as parts of the step in lambda."""
    if r1 is None:
        return INNER[order]
    most = {2: 1.0, 3: 2 / 3}.get(order, 0.0)
    if not 0 < r1 <= most or (order == 3 and math.isclose(r1, most)):
        raise OptionError(
            "r1 is no place for the second call of a step",
            got=f"r1={r1:g} with order={order}",
            expected="0 < r1 <= 1 with order 2, 0 < r1 < 2/3 with order 3",
        )
    return (float(r1), *INNER[3][1 : order - 1])


def _orders(grid: Grid, order: int, calls: int | None) -> list[int]:
    """Return the order of each step: the last are lowered, from the end, to make do with `calls`."""
    n = len(grid)
    least_off = order - 1 if grid.last.sigma == 0 else 0
    off = least_off if calls is None else order * n - whole("calls", calls, n, order * n - least_off)
    orders = [order] * n
    for i in reversed(range(n)):
        lowered = min(off, order - 1)
        orders[i], off = order - lowered, off - lowered
    return orders


def _grid_orders(n: int, order: int, lower_last: bool) -> list[int]:
    """Return 1, 2, ..., order over and over, cut off at n, the last being 1 if `lower_last`."""
    orders = [1 + i % order for i in range(n)]
    return [*orders[:-1], 1] if lower_last else orders


_PAPER_1 = "Lu et al. 2022a (DPM-Solver-2, -3), algorithm 1 for order 2"
_PAPER_2 = "Lu et al. 2022b (DPM-Solver++(2S))"
_PAPER_SDE = "diffusers, after Lu et al. 2022b (DPM-Solver++(2S))"
_ORDERS_1_2 = (
    Case({"order": 1}, 1.0),
    Case({"order": 2, "solver_type": "midpoint"}, 2.0),
    Case({"order": 2, "solver_type": "heun"}, 2.0),
)
_CASES = (
    *_ORDERS_1_2,
    Case({"order": 3, "solver_type": "midpoint"}, 3.0),
    Case({"order": 3, "solver_type": "heun"}, 3.0),
)
_SDE_CASES = tuple(Case(case.options, 1.0) for case in _ORDERS_1_2)
_DIFFUSERS = ("DPMSolverSinglestepScheduler",)

DPM_SOLVER_S = Solver(partial(singlestep, DPMSOLVER), _PAPER_1, _CASES, calls="order")
DPM_SOLVER_PP_S = Solver(partial(singlestep, DPMSOLVER_PP), _PAPER_2, _CASES, calls="order")
DPM_SOLVER_S_GRID = Solver(partial(singlestep_on_grid, DPMSOLVER), _PAPER_1, _CASES, diffusers=_DIFFUSERS)
DPM_SOLVER_PP_S_GRID = Solver(partial(singlestep_on_grid, DPMSOLVER_PP), _PAPER_2, _CASES, diffusers=_DIFFUSERS)
SDE_DPM_SOLVER_PP_S_GRID = Solver(
    partial(singlestep_on_grid, SDE_DPMSOLVER_PP), _PAPER_SDE, _SDE_CASES, noise="yes", diffusers=_DIFFUSERS
)
