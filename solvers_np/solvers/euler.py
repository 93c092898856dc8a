"""Euler's method over the noise-to-signal ratio: Karras et al. 2022, algorithm 2 without its second call."""

from __future__ import annotations

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.asking import eps_at
from dpmrt.solvers_np.solvers.churn import Churn
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.ratio import along, check_ends


def euler(
    grid: Grid,
    prediction: str,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float | None = None,
    s_noise: float = 1.0,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Step along the slope found where the step starts: DDIM, by another name. Churn, if any, comes before the call.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("euler", "scaled_linear", 20, grid="karras", s_churn=5.0)
    >>> plan.calls, plan.draws
    (20, 19)
    """
    check_ends(grid, "euler")
    churn, limit, rows = (
        Churn(s_churn, s_tmin, s_tmax, s_noise),
        limit_x0(clip, threshold, threshold_max),
        PlanWriter(grid),
    )
    churn.check(grid)
    for here, there in grid:
        hat = churn.add(rows, grid, here)
        rows.move(along(rows.x, eps_at(rows, prediction, hat, limit), hat, there))
    return rows.plan(order=1)


EULER = Solver(
    euler,
    paper="Karras et al. 2022 (EDM), algorithm 2 with Euler's steps",
    cases=(Case({}, 1.0), Case({"s_churn": 5.0}, 1.0)),
    noise="with s_churn",
    diffusers=("EulerDiscreteScheduler", "EDMEulerScheduler"),
)
