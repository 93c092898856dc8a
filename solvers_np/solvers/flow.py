"""Euler and Heun along the straight lines of rectified flow, Liu et al. 2022 (arXiv 2209.03003)."""

from __future__ import annotations

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.prediction import Pair, to_eps, to_x0
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.asking import x0_at
from dpmrt.solvers_np.solvers.rising import refuse_rising


def flow_euler(grid: Grid, prediction: str, *, stochastic: bool = False) -> StepPlan:
    """Follow the velocity found where the step starts; `stochastic`, jump to x0 and add fresh noise instead.

    Along x = alpha x0 + sigma eps a step is (alpha_next - alpha) x0 + (sigma_next - sigma) eps, which for a flow,
    alpha = 1 - sigma, is the velocity eps - x0 over sigma. On a grid whose noise rises the same step encodes.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("flow-euler", "flow", 4, grid="uniform", prediction="flow")
    >>> plan.calls, plan.slots
    (4, 1)
    """
    if stochastic:
        refuse_rising(grid, "stochastic steps", got="stochastic=True", expected=False)
    rows = PlanWriter(grid)
    for here, there in grid:
        x = rows.x
        if stochastic:
            x0 = x0_at(rows, prediction, here)
            rows.move(there.alpha * x0, noise=there.sigma, over=(here, there))
        else:
            rows.move(x + rows.call(here, _rise(prediction, here, here, there)))
    return rows.plan(order=1)


def flow_heun(grid: Grid, prediction: str) -> StepPlan:
    """Average the velocities at both ends of a step, the second of them found by Euler's step.

    A step onto no noise is Euler's alone, so that no network is asked where no noise is left.

    >>> from dpmrt.solvers_np import compile_plan
    >>> compile_plan("flow-heun", "flow", 4, grid="uniform", prediction="flow").calls
    8
    """
    rows = PlanWriter(grid)
    for here, there in grid:
        x = rows.x
        first = rows.call(here, _rise(prediction, here, here, there))
        rows.move(x + first)
        if there.sigma > 0:
            second = rows.call(there, _rise(prediction, there, here, there))
            rows.move(x + 0.5 * (first + second))
    return rows.plan(order=2)


def _rise(prediction: str, at: Level, here: Level, there: Level) -> Pair:
    """Return weights of (state, raw output) at a level that make the change of x from `here` to `there`."""
    d_alpha, d_sigma = there.alpha - here.alpha, there.sigma - here.sigma
    if prediction == "flow" and here.alpha + here.sigma == 1 == there.alpha + there.sigma:
        return 0.0, d_sigma  # the general case gives the state what rounding leaves of d_alpha + d_sigma
    (p, q), (r, s) = to_x0(prediction, at), to_eps(prediction, at)
    return d_alpha * p + d_sigma * r, d_alpha * q + d_sigma * s


_PAPER = "Liu et al. 2022 (rectified flow)"

FLOW_EULER = Solver(
    flow_euler,
    _PAPER,
    (Case({}, 1.0),),
    noise="with stochastic",
    diffusers=("FlowMatchEulerDiscreteScheduler",),
)
FLOW_HEUN = Solver(flow_heun, _PAPER, (Case({}, 2.0),), calls="2", diffusers=("FlowMatchHeunDiscreteScheduler",))
