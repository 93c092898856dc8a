"""KDPM2, k-diffusion's DPM2: the midpoint method of DPM-Solver-2, its middle taken in lambda, and its ancestral form.

The half steps are Euler's over the noise-to-signal ratio, which DPM-Solver-1 is too.
"""

from __future__ import annotations

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.instructions import Instruction
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.asking import eps_at
from dpmrt.solvers_np.solvers.churn import Churn
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.ratio import along, ancestral, check_ends, check_noise, middle


def kdpm2(
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
    """Cross each step along the slope at its middle, found by Euler's step; onto no noise, take Euler's.

    Churn, if any, comes before both calls, as in EDM's algorithm 2.

    >>> from dpmrt.solvers_np import compile_plan
    >>> compile_plan("kdpm2", "scaled_linear", 20, grid="karras").calls
    39
    """
    check_ends(grid, "kdpm2")
    churn, limit = Churn(s_churn, s_tmin, s_tmax, s_noise), limit_x0(clip, threshold, threshold_max)
    churn.check(grid)
    rows = PlanWriter(grid)
    for here, there in grid:
        hat = churn.add(rows, grid, here)
        x = rows.x
        rows.move(along(x, _slope(rows, grid, prediction, hat, there, limit), hat, there))
    return rows.plan(order=2)


def kdpm2_ancestral(
    grid: Grid,
    prediction: str,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Take KDPM2's step to below the next level, and add the noise that leads back up.

    With eta = 1 the middle of that longer step is the next level itself.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("kdpm2-ancestral", "scaled_linear", 20, grid="karras")
    >>> plan.calls, plan.draws
    (39, 19)
    """
    check_ends(grid, "kdpm2-ancestral")
    check_noise(grid, "kdpm2-ancestral", eta=eta, s_noise=s_noise)
    limit = limit_x0(clip, threshold, threshold_max)
    rows = PlanWriter(grid)
    for here, there in grid:
        down, up = ancestral(here, there, eta)
        x = rows.x
        slope = _slope(rows, grid, prediction, here, down, limit)
        rows.move(along(x, slope, here, down), noise=s_noise * up, over=(here, there))
    return rows.plan(order=2)


def _slope(
    rows: PlanWriter, grid: Grid, prediction: str, here: Level, there: Level, limit: Instruction | None
) -> Mix:
    """Return the slope at the middle of a step, or, where that would be without noise, where it starts."""
    x, slope = rows.x, eps_at(rows, prediction, here, limit)
    if not there.sigma:
        return slope
    mid = middle(grid, here, there)
    rows.move(along(x, slope, here, mid))
    return eps_at(rows, prediction, mid, limit)


KDPM2 = Solver(
    kdpm2,
    paper="k-diffusion's DPM2, after Lu et al. 2022a (DPM-Solver), algorithm 1",
    cases=(Case({}, 2.0), Case({"s_churn": 5.0}, 2.0)),
    calls="2",
    noise="with s_churn",
    diffusers=("KDPM2DiscreteScheduler",),
)
KDPM2_ANCESTRAL = Solver(
    kdpm2_ancestral,
    paper="k-diffusion's DPM2 ancestral, after Lu et al. 2022a (DPM-Solver), algorithm 1",
    cases=(Case({}, 2.0), Case({"eta": 0.0}, 2.0)),
    calls="2",
    noise="with eta",
    diffusers=("KDPM2AncestralDiscreteScheduler",),
)
