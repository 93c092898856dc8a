"""iPNDM, Zhang and Chen 2023: PNDM's multistep without its Runge-Kutta start, the order rising from 1."""

from __future__ import annotations

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.instructions import Instruction
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.prediction import to_x0
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.asking import eps_at
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.orders import order_within
from dpmrt.solvers_np.solvers.pndm import MOST_PAST, multistep
from dpmrt.solvers_np.solvers.ratio import along, check_ends


def ipndm(
    grid: Grid,
    prediction: str,
    *,
    order: int | None = None,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Move as DDIM does along the last `order` values of eps, 1 to 4 (4 unless given), weighed as if at even steps.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("ipndm", "linear", 20)
    >>> plan.calls, plan.slots
    (20, 4)
    """
    check_ends(grid, "ipndm")
    order = order_within(order, len(grid), usual=MOST_PAST, most=MOST_PAST)
    return improved_pndm(grid, prediction, order=order, limit=limit_x0(clip, threshold, threshold_max))


def improved_pndm(
    grid: Grid, prediction: str, *, order: int, limit: Instruction | None = None, blind_start: bool = False
) -> StepPlan:
    """Write the plan, which may start where no signal is left; with `blind_start` x0 is taken as zero there."""
    rows, past = PlanWriter(grid), list[Mix]()
    for here, there in grid:
        x = rows.x
        past = [eps_at(rows, prediction, here, limit), *past][:order]
        if here.alpha:
            rows.move(along(x, multistep(past), here, there))
            continue
        p, q = (0.0, 0.0) if blind_start else to_x0(prediction, here)
        rows.move(there.alpha * (p * x + q * rows.raw) + there.sigma * past[0])
    return rows.plan(order=order)


IPNDM = Solver(
    ipndm,
    paper="Zhang and Chen 2023 (DEIS), iPNDM",
    cases=(Case({"order": 1}, 1.0), *(Case({"order": order}, 2.0) for order in (2, 3, 4))),
    diffusers=("IPNDMScheduler",),
)
