"""DDIM, Song, Meng and Ermon 2021."""

from __future__ import annotations

import math

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids import Grid
from dpmrt.solvers_np.plan import StepPlan
from dpmrt.solvers_np.prediction import to_eps, to_x0, x0_to_eps
from dpmrt.solvers_np.rows import RowList
from dpmrt.solvers_np.solvers.limits import limit_x0


def ddim(
    grid: Grid,
    prediction: str,
    *,
    eta: float = 0.0,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
    eps_from_limited_x0: bool = False,
) -> StepPlan:
    """Eq. 12 with the noise of eq. 16, scaled by eta: 0 is the ODE, 1 is DDPM's variance.

    With clip or threshold, eps comes from the unlimited output unless `eps_from_limited_x0`.
    """
    if not 0 <= eta <= 1:
        raise OptionError("eta is out of range", got=eta, expected="0 (no noise) to 1 (as much as DDPM)")
    limit = limit_x0(clip, threshold, threshold_max)
    rows = RowList(slots=1 if limit is None or eps_from_limited_x0 else 2)
    for t, a, s, a_next, s_next in grid:
        std = eta * (s_next / s) * math.sqrt(max(1.0 - (a / a_next) ** 2, 0.0))
        direction = math.sqrt(max(s_next**2 - std**2, 0.0))
        x0, eps = to_x0(prediction, a, s), to_eps(prediction, a, s)
        if limit is None:
            state, raw = (a_next * p + direction * q for p, q in zip(x0, eps))
            rows.call(t, 0, level=(a, s), state=state, history={0: raw}, noise=std)
        elif eps_from_limited_x0:
            from_state, from_x0 = x0_to_eps(a, s)
            history = {0: a_next + direction * from_x0}
            rows.call(
                t,
                0,
                level=(a, s),
                convert=x0,
                instruction=limit,
                state=direction * from_state,
                history=history,
                noise=std,
            )
        else:
            history = {0: direction * eps[1], 1: a_next}
            rows.call(
                t,
                1,
                out=0,
                level=(a, s),
                convert=x0,
                instruction=limit,
                state=direction * eps[0],
                history=history,
                noise=std,
            )
    return rows.plan(order=1)
