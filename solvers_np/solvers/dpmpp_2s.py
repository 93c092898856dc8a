"""k-diffusion's two-call samplers around DPM-Solver++ (Lu et al. 2022b): 2S ancestral and DPM++ SDE.

Both hold x0 over a step in lambda, first to a stage inside the step and then, with what was found there, across it.
"""

from __future__ import annotations

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.asking import x0_at
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.ratio import ancestral, check_ends, check_noise, middle, towards


def dpmpp_2s_ancestral(
    grid: Grid,
    prediction: str,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Take the step of DPM-Solver++(2S), r = 1/2, to below the next level, and add the noise that leads back up.

    Onto no noise it is the step of order 1.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("dpmsolver++2s-ancestral", "scaled_linear", 20, grid="karras")
    >>> plan.calls, plan.draws
    (39, 19)
    """
    check_ends(grid, "dpmsolver++2s-ancestral")
    check_noise(grid, "dpmsolver++2s-ancestral", eta=eta, s_noise=s_noise)
    limit = limit_x0(clip, threshold, threshold_max)
    rows = PlanWriter(grid)
    for here, there in grid:
        down, up = ancestral(here, there, eta)
        x, x0 = rows.x, x0_at(rows, prediction, here, limit)
        if down.sigma:
            mid = middle(grid, here, down)
            rows.move(towards(x, x0, here, mid))
            x0 = x0_at(rows, prediction, mid, limit)
        rows.move(towards(x, x0, here, down), noise=s_noise * up, over=(here, there))
    return rows.plan(order=2)


def dpmpp_sde(
    grid: Grid,
    prediction: str,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Step with noise to a stage at r in lambda, and, from the same start, with its x0 and noise again, across.

    The noise of the stage and that of the step act over intervals that begin together, so that a Brownian path gives
    both of them the same noise there; a plain source draws two.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("dpmsolver++sde", "scaled_linear", 20, grid="karras")
    >>> plan.calls, plan.draws
    (39, 38)
    """
    check_ends(grid, "dpmsolver++sde")
    check_noise(grid, "dpmsolver++sde", eta=eta, s_noise=s_noise)
    if not 0 < r <= 1:
        raise OptionError("r is no way along the step", got=r, expected="0 < r <= 1")
    limit = limit_x0(clip, threshold, threshold_max)
    rows = PlanWriter(grid)
    for here, there in grid:
        x, x0 = rows.x, x0_at(rows, prediction, here, limit)
        if there.sigma:
            mid = grid.level(here.lambda_ + r * (there.lambda_ - here.lambda_))
            down, up = ancestral(here, mid, eta)
            rows.move(towards(x, x0, here, down), noise=s_noise * up, over=(here, mid))
            x0 = (1 - 1 / (2 * r)) * x0 + 1 / (2 * r) * x0_at(rows, prediction, mid, limit)
        down, up = ancestral(here, there, eta)
        rows.move(towards(x, x0, here, down), noise=s_noise * up, over=(here, there))
    return rows.plan(order=2)


DPM_SOLVER_PP_2S_ANCESTRAL = Solver(
    dpmpp_2s_ancestral,
    paper="k-diffusion, after Lu et al. 2022b (DPM-Solver++(2S))",
    cases=(Case({}, 2.0), Case({"eta": 0.0}, 2.0)),
    calls="2",
    noise="with eta",
)
DPM_SOLVER_PP_SDE = Solver(
    dpmpp_sde,
    paper="k-diffusion's DPM++ SDE, after Lu et al. 2022b (DPM-Solver++)",
    cases=(Case({}, 1.0), Case({"eta": 0.0}, 2.0), Case({"eta": 0.0, "r": 0.75}, 2.0)),
    calls="2",
    noise="with eta",
    diffusers=("DPMSolverSDEScheduler",),
)
