"""DDIM, Song, Meng and Ermon 2021."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.options import one_of, within
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.prediction import to_eps, x0_to_eps
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.analytic import analytic_for
from dpmrt.solvers_np.solvers.asking import x0_and_eps_at, x0_at
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.rising import refuse_rising


def ddim(
    grid: Grid,
    prediction: str,
    *,
    eta: float = 0.0,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
    eps_from_limited_x0: bool = False,
    variance: str = "given_x0",
    gamma: Sequence[float] | None = None,
    gamma_times: Sequence[float] | None = None,
    radius: float | None = 1.0,
    clip_pixel: float | None = 2.0,
    clip_steps: int | None = None,
) -> StepPlan:
    """Eq. 12 with the noise of eq. 16, scaled by eta: 0 is the ODE, 1 is DDPM's variance.

    That noise is right where x0 is known ("given_x0"); "analytic" adds what the uncertainty of x0 asks for, of
    `gamma` and the options after it (`Analytic`), in every step but one onto no noise.

    With clip or threshold, eps comes from the unlimited output unless `eps_from_limited_x0`. On a grid whose noise
    rises the same step encodes.
    """
    within("eta", eta, 0, 1, "0 (no noise) to 1 (as much as DDPM)")
    one_of("variance", variance, ("given_x0", "analytic"))
    if eta:
        refuse_rising(grid, "eta", got=f"eta={eta}", expected="eta=0")
    limit = limit_x0(clip, threshold, threshold_max)
    best = analytic_for(
        grid, variance, gamma, gamma_times, radius=radius, clip_pixel=clip_pixel, clip_steps=clip_steps
    )
    rows, last = PlanWriter(grid), len(grid) - (1 if grid.last.sigma else 2)
    for i, (here, there) in enumerate(grid):
        shrink = (there.sigma / there.alpha) / here.ratio if eta else 0.0
        std = eta * there.sigma * math.sqrt(max(1.0 - shrink**2, 0.0))
        direction = math.sqrt(max(there.sigma**2 - std**2, 0.0))
        x = rows.x
        if limit is None:
            x0, eps = x0_and_eps_at(rows, prediction, here)
        else:
            x0 = x0_at(rows, prediction, here, limit)
            p, q = x0_to_eps(here) if eps_from_limited_x0 else to_eps(prediction, here)
            eps = p * x + q * (x0 if eps_from_limited_x0 else rows.raw)
        if best is not None and i <= last:
            weight = there.alpha - direction * here.alpha / here.sigma
            std = best.deviation(std**2, weight, step=i, left=last - i)
        rows.move(there.alpha * x0 + direction * eps, noise=std, over=(here, there))
    return rows.plan(order=1)


DDIM = Solver(
    ddim,
    paper="Song et al. 2021 (DDIM), eq. 12 and 16",
    cases=(Case({}, 1.0),),
    noise="with eta",
    diffusers=("DDIMScheduler", "DDIMInverseScheduler"),
)
