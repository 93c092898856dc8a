"""DEIS, Zhang and Chen 2023: its multistep form, the polynomial over log rho as in diffusers."""

from __future__ import annotations

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.adams import Nodes, write_adams
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.orders import order_within
from dpmrt.solvers_np.solvers.ratio import check_ends

#: diffusers lowers the last steps of runs with fewer steps than this
FEW_STEPS = 15


def deis(
    grid: Grid,
    prediction: str,
    *,
    order: int | None = None,
    lower_order_final: bool = True,
    lower_order_below: int = FEW_STEPS,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Integrate over rho the polynomial in log rho through the last `order` values of eps (2 unless given).

    The first steps use fewer values, and so do, with `lower_order_final`, the last two of a run below
    `lower_order_below` steps; a step onto zero noise uses one. With a polynomial in rho itself this method (the
    authors' rho-AB) is solver "lms".

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("deis", "linear", 20, order=3)
    >>> plan.calls, plan.slots
    (20, 3)
    """
    check_ends(grid, "deis")
    n = len(grid)
    order = order_within(order, n)
    few = lower_order_final and n < lower_order_below
    nodes = [Nodes(min(order, i + 1, n - i if few else order)) for i in range(n)]
    limit = limit_x0(clip, threshold, threshold_max)
    return write_adams(grid, prediction, nodes, buffers_x0=False, limit=limit).plan(order=order)


DEIS = Solver(
    deis,
    paper="Zhang and Chen 2023 (DEIS), over log rho as in diffusers",
    cases=(
        Case({"order": 1}, 1.0),
        Case({"order": 2}, 2.0),
        Case({"order": 3}, 3.0, starts_at=1.0),
    ),
    diffusers=("DEISMultistepScheduler",),
)
