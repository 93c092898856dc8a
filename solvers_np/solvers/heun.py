"""Heun's method over the noise-to-signal ratio: Karras et al. 2022, algorithm 2, and its ancestral form."""

from __future__ import annotations

import math

from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.instructions import Instruction
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.asking import eps_at
from dpmrt.solvers_np.solvers.churn import Churn
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.ratio import along, ancestral, check_ends, check_noise, lowest_ratio


def heun(
    grid: Grid,
    prediction: str,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float | None = None,
    s_noise: float = 1.0,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Average the slopes at both ends of a step, the second found by Euler's step; onto no noise, take Euler's.

    Churn, if any, comes before both calls.

    >>> from dpmrt.solvers_np import compile_plan
    >>> compile_plan("heun", "edm", 18, grid="karras", prediction="edm").calls
    35
    """
    check_ends(grid, "heun")
    churn, limit = Churn(s_churn, s_tmin, s_tmax, s_noise), limit_x0(clip, threshold, threshold_max)
    churn.check(grid)
    rows = PlanWriter(grid)
    for here, there in grid:
        hat = churn.add(rows, grid, here)
        x = rows.x
        low = there if there.sigma else None
        rows.move(along(x, _slope(rows, prediction, hat, low, limit, there), hat, there))
    return rows.plan(order=2)


def heun_ancestral(
    grid: Grid,
    prediction: str,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Take Heun's step to below the next level, and add the noise that leads back up, as k-diffusion's kin do.

    Where that lies below the grid's lowest level, at which no network may be called, the second slope is found at
    the lowest, and weighed so that the step is of second order still. Onto no noise the step is Euler's.

    >>> from dpmrt.solvers_np import compile_plan
    >>> compile_plan("heun-ancestral", "scaled_linear", 20, grid="karras").draws
    19
    """
    check_ends(grid, "heun-ancestral")
    check_noise(grid, "heun-ancestral", eta=eta, s_noise=s_noise)
    limit, lowest = limit_x0(clip, threshold, threshold_max), lowest_ratio(grid)
    rows = PlanWriter(grid)
    for here, there in grid:
        down, up = ancestral(here, there, eta)
        x, low = rows.x, there if there.sigma else None
        if up:
            low = grid.level(-math.log(max(down.ratio, lowest)))
        slope = _slope(rows, prediction, here, low, limit, down)
        rows.move(along(x, slope, here, down), noise=s_noise * up, over=(here, there))
    return rows.plan(order=2)


def _slope(
    rows: PlanWriter, prediction: str, here: Level, low: Level | None, limit: Instruction | None, there: Level
) -> Mix:
    """Return the slope of a step: that where it starts, or the mean over the step of the line through it and `low`'s.

    The mean is the average of both where `low` is the step's end.
    """
    x, first = rows.x, eps_at(rows, prediction, here, limit)
    if low is None:
        return first
    rows.move(along(x, first, here, low))
    second = eps_at(rows, prediction, low, limit)
    part = 0.5 if low is there else 0.5 * (there.ratio - here.ratio) / (low.ratio - here.ratio)
    return (1.0 - part) * first + part * second


HEUN = Solver(
    heun,
    paper="Karras et al. 2022 (EDM), algorithm 2",
    cases=(Case({}, 2.0), Case({"s_churn": 5.0}, 2.0)),
    calls="2",
    noise="with s_churn",
    diffusers=("HeunDiscreteScheduler",),
)
HEUN_ANCESTRAL = Solver(
    heun_ancestral,
    paper="Heun's step of Karras et al. 2022 in k-diffusion's ancestral step",
    cases=(Case({}, 2.0), Case({"eta": 0.0}, 2.0)),
    calls="2",
    noise="with eta",
)
