"""Euler's ancestral sampler, as k-diffusion has it: DDIM with noise, over the noise-to-signal ratio."""

from __future__ import annotations

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.asking import eps_at
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.ratio import along, ancestral, check_ends, check_noise


def euler_ancestral(
    grid: Grid,
    prediction: str,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Take Euler's step to below the next level, and add the noise that leads back up.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("euler-ancestral", "scaled_linear", 20, grid="karras")
    >>> plan.calls, plan.draws
    (20, 19)
    """
    check_ends(grid, "euler-ancestral")
    check_noise(grid, "euler-ancestral", eta=eta, s_noise=s_noise)
    limit = limit_x0(clip, threshold, threshold_max)
    rows = PlanWriter(grid)
    for here, there in grid:
        down, up = ancestral(here, there, eta)
        eps = eps_at(rows, prediction, here, limit)
        rows.move(along(rows.x, eps, here, down), noise=s_noise * up, over=(here, there))
    return rows.plan(order=1)


EULER_ANCESTRAL = Solver(
    euler_ancestral,
    paper="k-diffusion; Song et al. 2021 (DDIM), eq. 12 and 16, is the same step",
    cases=(Case({}, 1.0), Case({"eta": 0.0}, 1.0)),
    noise="with eta",
    diffusers=("EulerAncestralDiscreteScheduler",),
)
