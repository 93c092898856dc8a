"""DDPM's ancestral sampling, Ho, Jain and Abbeel 2020, also over a part of the training times."""

from __future__ import annotations

import math

from dpmrt.solvers_np.grids import Grid
from dpmrt.solvers_np.options import one_of
from dpmrt.solvers_np.plan import StepPlan
from dpmrt.solvers_np.prediction import to_x0
from dpmrt.solvers_np.rows import RowList
from dpmrt.solvers_np.solvers.limits import limit_x0


def ddpm(
    grid: Grid,
    prediction: str,
    *,
    variance: str = "fixed_small",
    noise_at_end: bool = False,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Eq. 7 for the mean; the variance is beta-tilde of eq. 7 ("fixed_small") or beta ("fixed_large").

    The last step adds no noise (algorithm 2, line 3) unless `noise_at_end`.
    """
    one_of("variance", variance, ("fixed_small", "fixed_large"))
    limit = limit_x0(clip, threshold, threshold_max)
    rows = RowList(slots=1)
    for i, (t, a, s, a_next, s_next) in enumerate(grid):
        ratio = a / a_next
        beta = 1.0 - ratio**2
        var = beta * (s_next / s) ** 2 if variance == "fixed_small" else beta
        std = math.sqrt(var) if i < len(grid) - 1 or noise_at_end else 0.0
        rows.call(
            t,
            0,
            level=(a, s),
            convert=to_x0(prediction, a, s),
            instruction=limit,
            state=ratio * (s_next / s) ** 2,
            history={0: a_next * beta / s**2},
            noise=std,
        )
    return rows.plan(order=1)
