"""Multistep sampling of latent consistency models, Luo et al. 2023 (arXiv 2310.04378), algorithm 3."""

from __future__ import annotations

import math

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Solver
from dpmrt.solvers_np.solvers.asking import x0_at
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.rising import refuse_encoding


def lcm(
    grid: Grid,
    prediction: str,
    *,
    sigma_data: float = 0.5,
    timestep_scaling: float = 10.0,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Jump to the data, c_skip x + c_out x0, and add fresh noise up to the next level, again and again.

    c_skip = sigma_data^2 / (s^2 + sigma_data^2) and c_out = s / sqrt(s^2 + sigma_data^2) with s the scaled time,
    which suits a time that counts training steps. It takes a network distilled for it: with any other, more steps
    do not bring the samples nearer to the data.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("lcm", "scaled_linear", 4)
    >>> plan.calls, plan.draws
    (4, 3)
    """
    for name, value in (("sigma_data", sigma_data), ("timestep_scaling", timestep_scaling)):
        if not (math.isfinite(value) and value > 0):
            raise OptionError(f"{name} must be positive", got=value, expected=f"{name} > 0")
    refuse_encoding(grid, "lcm")
    limit = limit_x0(clip, threshold, threshold_max)
    rows = PlanWriter(grid)
    for here, there in grid:
        s = timestep_scaling * here.t
        c_skip, c_out = (sigma_data / math.hypot(s, sigma_data)) ** 2, s / math.hypot(s, sigma_data)
        x0 = x0_at(rows, prediction, here, limit)
        denoised = c_skip * here.in_scale * rows.x + c_out * x0
        rows.move(there.alpha * denoised, noise=there.sigma, over=(here, there))
    return rows.plan(order=0)


LCM = Solver(
    lcm,
    paper="Luo et al. 2023 (LCM), algorithm 3",
    cases=(),
    noise="yes",
    diffusers=("LCMScheduler",),
    exact=False,
)
