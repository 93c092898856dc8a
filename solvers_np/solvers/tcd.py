"""Strategic stochastic sampling of trajectory consistency models: Zheng et al. 2024 (TCD), algorithm 4."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level, Levels
from dpmrt.solvers_np.options import within
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.asking import x0_and_eps_at
from dpmrt.solvers_np.solvers.rising import refuse_encoding


def tcd(grid: Grid, prediction: str, *, gamma: float = 0.3) -> StepPlan:
    """Go down to the time s = (1 - gamma) t below each next time t, and come back up with noise; gamma 0 is DDIM.

    gamma is what diffusers calls eta. With gamma it takes a network distilled for it.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("tcd", "scaled_linear", 4)
    >>> plan.calls, plan.draws
    (4, 3)
    """
    within("gamma", gamma, 0, 1, "0 (no noise) to 1 (all noise is fresh)")
    if gamma:
        refuse_encoding(grid, "tcd")
    return with_turns(grid, prediction, _turns(grid, gamma) if gamma else grid.end)


def with_turns(grid: Grid, prediction: str, turns: Iterable[Level]) -> StepPlan:
    """Write the plan that goes down to `turns`, one for each interval, before noise leads to the interval's end."""
    rows = PlanWriter(grid)
    for (here, there), s in zip(grid, turns):
        x0, eps = x0_and_eps_at(rows, prediction, here)
        down = there.alpha * s.ratio if s.ratio < there.ratio else there.sigma
        std = math.sqrt(max(there.sigma**2 - down**2, 0.0))
        rows.move(there.alpha * x0 + down * eps, noise=std, over=(here, there))
    return rows.plan(order=1)


def _turns(grid: Grid, gamma: float) -> Levels:
    """Return the levels at (1 - gamma) t, inside the schedule; the last step goes straight to its own end."""
    schedule = grid.schedule
    if schedule is None:
        raise OptionError(
            "tcd goes to times between the grid's own, and the grid does not know them",
            got="a grid without its schedule",
            expected="a named grid, or Grid(..., schedule=schedule)",
            fix="pass gamma=0",
        )
    if not 0 <= schedule.t_min < schedule.t_max:
        raise OptionError(
            "gamma is a part of a time that counts from where no noise is",
            got=f"schedule {schedule.name!r}, whose times begin at {schedule.t_min:g}",
            expected="a schedule of times from 0 on",
            fix="pass gamma=0",
        )
    s = np.maximum((1 - gamma) * grid.end.t[:-1], schedule.t_min)
    return Levels.of(s, schedule.alpha(s), schedule.sigma(s), schedule.in_scale(s)).then(grid.last)


TCD = Solver(
    tcd,
    paper="Zheng et al. 2024 (TCD), algorithm 4",
    cases=(Case({"gamma": 0.0}, 1.0),),
    noise="with gamma",
    diffusers=("TCDScheduler",),
)
