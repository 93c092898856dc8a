"""LMS, k-diffusion's linear multistep: Adams-Bashforth over the noise-to-signal ratio, on its uneven grid."""

from __future__ import annotations

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.adams import adams_bashforth
from dpmrt.solvers_np.solvers.asking import eps_at
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.orders import order_within
from dpmrt.solvers_np.solvers.ratio import check_ends


def lms(
    grid: Grid,
    prediction: str,
    *,
    order: int | None = None,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Integrate the polynomial through the last `order` slopes, 1 to 4 (4 unless given); the first steps use fewer.

    The step onto no noise is of full order, as in k-diffusion.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("lms", "scaled_linear", 20, grid="karras", order=3)
    >>> plan.calls, plan.slots
    (20, 3)
    """
    check_ends(grid, "lms")
    order = order_within(order, len(grid), usual=4, most=4)
    limit = limit_x0(clip, threshold, threshold_max)
    rows, slopes, ratios = PlanWriter(grid), list[Mix](), list[float]()
    for here, there in grid:
        x = rows.x
        slopes = [eps_at(rows, prediction, here, limit), *slopes][:order]
        ratios = [here.ratio, *ratios][:order]
        moved = sum((w * d for w, d in zip(adams_bashforth(ratios, there.ratio), slopes)), Mix())
        rows.move(there.alpha / here.alpha * x + there.alpha * moved)
    return rows.plan(order=order)


LMS = Solver(
    lms,
    paper="k-diffusion (Adams-Bashforth)",
    cases=(
        Case({"order": 1}, 1.0),
        Case({"order": 2}, 2.0),
        Case({"order": 3}, 3.0, starts_at=1.0),
        Case({"order": 4}, 4.0, starts_at=1.0),
    ),
    diffusers=("LMSDiscreteScheduler",),
)
