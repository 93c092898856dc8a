"""DDPM's ancestral sampling, Ho, Jain and Abbeel 2020, also over a part of the training times."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.options import one_of
from dpmrt.solvers_np.plans.instructions import LearnedRange, LearnedVariance, NoiseInstruction
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.analytic import analytic_for
from dpmrt.solvers_np.solvers.asking import x0_at
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.rising import refuse_encoding

VARIANCES = ("fixed_small", "fixed_large", "learned", "learned_range", "analytic")
#: beta-tilde of a step onto no noise is zero and has no logarithm; diffusers takes this in its place
_LEAST_VARIANCE = 1e-20


def ddpm(
    grid: Grid,
    prediction: str,
    *,
    variance: str = "fixed_small",
    noise_at_end: bool = False,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
    gamma: Sequence[float] | None = None,
    gamma_times: Sequence[float] | None = None,
    radius: float | None = 1.0,
    clip_pixel: float | None = 2.0,
    clip_steps: int | None = None,
) -> StepPlan:
    """Eq. 7 for the mean; the variance is beta-tilde of eq. 7 ("fixed_small") or beta ("fixed_large").

    A network whose output has twice the channels of the state says the variance itself ("learned"), or where it lies
    between those two ("learned_range", Nichol and Dhariwal 2021, eq. 15). "analytic" is the optimal one, of `gamma`
    and the options after it (`Analytic`). The last step adds no noise (algorithm 2, line 3) unless `noise_at_end`.

    >>> from dpmrt.solvers_np import compile_plan
    >>> compile_plan("ddpm", "linear", 10, variance="learned_range").parts
    2
    """
    one_of("variance", variance, VARIANCES)
    refuse_encoding(grid, "ddpm")
    limit = limit_x0(clip, threshold, threshold_max)
    best = analytic_for(
        grid, variance, gamma, gamma_times, radius=radius, clip_pixel=clip_pixel, clip_steps=clip_steps
    )
    rows, last = PlanWriter(grid), len(grid) - 1 if noise_at_end else len(grid) - 2
    for i, (here, there) in enumerate(grid):
        ratio = here.alpha / there.alpha
        beta = here.sigma**2 - (there.sigma * ratio) ** 2
        shrink = (there.sigma / here.sigma) ** 2
        weight = there.alpha * beta / here.sigma**2
        std, instruction = _noise(variance, beta, beta * shrink)
        if best is not None:
            std = best.deviation(beta * shrink, weight, step=i, left=last - i)
        noisy = std > 0 and i <= last
        x0 = x0_at(rows, prediction, here, limit)
        rows.move(
            ratio * shrink * rows.x + weight * x0,
            noise=std if noisy else 0.0,
            over=(here, there),
            noise_instruction=instruction if noisy else None,
        )
    return rows.plan(order=1, parts=2 if variance.startswith("learned") else 1)


def _noise(variance: str, large: float, small: float) -> tuple[float, NoiseInstruction | None]:
    """Return the noise's deviation, and what the network's output still makes of it."""
    if variance == "learned":
        return 1.0, LearnedVariance()
    if variance == "learned_range":
        return 1.0, LearnedRange(*(math.log(max(v, _LEAST_VARIANCE)) for v in (small, large)))
    return math.sqrt(max(small if variance == "fixed_small" else large, 0.0)), None


DDPM = Solver(
    ddpm,
    paper="Ho et al. 2020 (DDPM), eq. 7 and algorithm 2",
    cases=(Case({}, 1.0), Case({"variance": "fixed_large"}, 1.0)),
    noise="yes",
    diffusers=("DDPMScheduler",),
)
