"""compile_inverse: the plan that leads data up to noise, along the grid that the same solver samples on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.compile import choose_sampler, write_plan
from dpmrt.solvers_np.grids.grid import NO_LENGTH, Grid
from dpmrt.solvers_np.levels import Level, Levels
from dpmrt.solvers_np.plans.parts import joined
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule
from dpmrt.solvers_np.solvers import SOLVERS

#: of these, eps is not known where there is no noise
_BLIND_TO_NOISE = ("sample", "edm")


def compile_inverse(
    solver: str,
    schedule: NoiseSchedule | str,
    steps: int,
    *,
    grid: str | Grid | None = None,
    prediction: str = "epsilon",
    **options: Any,
) -> StepPlan:
    """Compile the inverse of what `compile_plan` compiles for the same arguments: the noise rises, level by level.

    The first step, from data without noise, is DDIM's, with the network asked at the schedule's first time. A network
    that says nothing of eps there (it predicts x0) starts from the level of that time. A solver that adds noise is
    refused.

    >>> plan = compile_inverse("dpmsolver++", "linear", 4)
    >>> plan.timesteps.tolist(), plan.start
    ([0.0, 249.0, 499.0, 749.0], (1.0, 0.0))
    """
    chosen = choose_sampler(solver, schedule, steps, grid=grid, prediction=prediction, options=options)
    if SOLVERS[chosen.solver].noise == "yes":
        raise OptionError(
            "a solver that adds noise cannot invert",
            got=repr(chosen.solver),
            expected="a solver without noise, as ddim, dpmsolver++ or heun",
            fix="choose another with solver=..., --solver",
        )
    start, end = _turned(chosen.grid, chosen.schedule, prediction)
    parts, beside = list[StepPlan](), (chosen.grid.between, math.nan, chosen.grid.schedule)
    if start.sigma[0] == 0 and chosen.solver != "ddim":
        first = Grid(start.part(0, 1), end.part(0, 1), *beside)
        parts.append(write_plan(dataclasses.replace(chosen, solver="ddim", options={}), first, prediction))
        start, end = start.part(1), end.part(1)
    if len(start):
        parts.append(write_plan(chosen, Grid(start, end, *beside), prediction))
    return dataclasses.replace(joined(parts, inverse=True, solver=chosen.solver), init_scale=1.0)


def _turned(grid: Grid, schedule: NoiseSchedule, prediction: str) -> tuple[Levels, Levels]:
    """Return starts and ends of the grid run backwards, from a first level at which the network can be asked."""
    start, end = (
        Levels(*(c[::-1].copy() for c in (levels.t, levels.alpha, levels.sigma, levels.in_scale)))
        for levels in (grid.end, grid.start)
    )
    if start.sigma[0] > 0:
        return start, end
    t = float(schedule.t_min)
    first = Level(t, *(float(f(t)) for f in (schedule.alpha, schedule.sigma, schedule.in_scale)))
    if prediction not in _BLIND_TO_NOISE:
        first = first._replace(alpha=float(start.alpha[0]), sigma=0.0)
    for column, value in zip((start.t, start.alpha, start.sigma, start.in_scale), first):
        column[0] = value
    if first.ratio >= end.ratio[0] * (1 - NO_LENGTH):
        return start.part(1), end.part(1)
    return start, end
