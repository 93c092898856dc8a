"""The reverse-diffusion predictor of score SDEs, Song et al. 2021 (arXiv 2011.13456), appendix E."""

from __future__ import annotations

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.asking import eps_at
from dpmrt.solvers_np.solvers.rising import refuse_encoding


def reverse_diffusion(grid: Grid, prediction: str, *, noise_at_end: bool = False) -> StepPlan:
    """Undo the forward chain x' = r x + g z by x = x' + (1 - r) x' + g^2 score + g z, whichever SDE it belongs to.

    Where the variance explodes r is 1 and g^2 = sigma^2 - sigma_next^2; where it is preserved r = sqrt(1 - beta) and
    g^2 = beta. The last step adds no noise unless `noise_at_end`. The Langevin corrector that the paper runs between
    these steps measures norms, so it is not linear and is not part of the plan.

    >>> from dpmrt.solvers_np import compile_plan
    >>> compile_plan("reverse-diffusion", "ve", 5, grid="uniform", prediction="score").draws
    4
    """
    refuse_encoding(grid, "reverse-diffusion")
    rows = PlanWriter(grid)
    for i, (here, there) in enumerate(grid):
        r = here.alpha / there.alpha
        variance = here.sigma**2 - (r * there.sigma) ** 2
        eps = eps_at(rows, prediction, here)
        rows.move(
            (2.0 - r) * rows.x - variance / here.sigma * eps,
            noise=variance**0.5 if i < len(grid) - 1 or noise_at_end else 0.0,
            over=(here, there),
        )
    return rows.plan(order=1)


# Only where the variance explodes is x0 left as it is: elsewhere 2 - r stands for 1 / r.
REVERSE_DIFFUSION = Solver(
    reverse_diffusion,
    paper="Song et al. 2021 (score SDE), appendix E",
    cases=(Case({}, 1.0),),
    noise="yes",
    diffusers=("ScoreSdeVeScheduler",),
    exact=False,
)
