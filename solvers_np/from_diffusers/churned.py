"""Churn as diffusers' Euler classes have it: added to the state after the network was called.

The paper adds it before (Karras et al. 2022, algorithm 2), so that the network sees the noise that the step removes.
Here the answer for the lower noise is taken for that at the higher. `call_before_churn`, a key of ours, asks for
the paper's order when it is false.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.optional import finite
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.prediction import to_x0
from dpmrt.solvers_np.solvers.churn import Churn
from dpmrt.solvers_np.solvers.euler import euler

CHURN_KEYS: dict[str, Any] = {
    "s_churn": 0.0,
    "s_tmin": 0.0,
    "s_tmax": math.inf,
    "s_noise": 1.0,
    "call_before_churn": True,
}


def read_churn(keys: SchedulerConfig) -> Churn:
    """Return the churn that a config asks for."""
    churn, low, noise = (finite(keys, key) for key in ("s_churn", "s_tmin", "s_noise"))
    high = keys.number("s_tmax")
    if math.isnan(high):
        raise OptionError(f"{keys.name}: s_tmax must be a number", got=repr(high))
    return Churn(churn, low, None if high == math.inf else high, noise)


def churned_euler(
    grid: Grid, prediction: str, keys: SchedulerConfig, read_at: Callable[[Level, Level], Level], spread: float
) -> StepPlan:
    """Return Euler's plan with the churn of the config, which is spread over `spread` steps.

    `read_at` says, of a step's level and its churned one, at which the answer is read as x0.
    """
    churn = read_churn(keys)
    if not keys.flag("call_before_churn"):
        whole = churn.s_churn * len(grid) / spread
        return euler(grid, prediction, s_churn=whole, s_tmin=churn.s_tmin, s_tmax=churn.s_tmax, s_noise=churn.s_noise)
    if not churn.s_churn:
        return euler(grid, prediction)
    rows = PlanWriter(grid)
    for here, there in grid:
        hat = _raised(here, 1.0 + churn.gamma(here.sigma, spread))
        std = churn.s_noise * math.sqrt((hat.sigma - here.sigma) * (hat.sigma + here.sigma))
        raw, (p, q) = rows.call(here), to_x0(prediction, read_at(here, hat))
        share = 1.0 - there.sigma / hat.sigma
        kept = 1.0 - share * (1.0 - p)
        rows.move(kept * rows.x + share * q * raw, noise=kept * std, over=(here, hat))
    return rows.plan(order=1)


def _raised(level: Level, factor: float) -> Level:
    """Return a level of more noise, its input scale that of the same data."""
    spread = 1.0 / level.in_scale**2 - level.sigma**2
    sigma = level.sigma * factor
    return level._replace(sigma=sigma, in_scale=1.0 / math.sqrt(spread + sigma**2))
