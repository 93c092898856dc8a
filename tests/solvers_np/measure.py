"""The order that a solver shows: on the exact probability flow, or on the exact mean and variance.

The deterministic ones are held to the exact solution of a Gaussian mixture. With Gaussian data the network is affine,
so a stochastic plan is an affine map of its start and its draws: mean and variance are computed, not sampled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from problems import BIMODAL, GAUSSIANS, QUANTILES, encoding, graded, network

from dpmrt.solvers_np import SOLVERS, Case, Grid, NoiseSchedule, StepPlan, compile_plan, make_schedule, run_plan
from dpmrt.solvers_np.options import accepted

VP, FLOW = make_schedule("vp-linear"), make_schedule("flow")
SPAN = {"vp-linear": (0.7, 0.2), "flow": (700.0, 250.0)}
STEPS = (48, 96, 192)  # multiples of 2 and 3: whole groups of singlestep solvers


def schedule_for(name: str) -> NoiseSchedule:
    return FLOW if name.startswith("flow") else VP


def cases() -> list[tuple[str, Case]]:
    return [(name, case) for name, solver in SOLVERS.items() for case in solver.cases]


def label(name: str, case: Case) -> str:
    return "-".join([name, *(f"{key}={value}" for key, value in case.options.items())])


def plan_for(name: str, case: Case, grid: Grid, prediction: str = "epsilon") -> StepPlan:
    """Compile a case, without what makes the last steps coarser on purpose."""
    plain = {"lower_order_final": False} if "lower_order_final" in accepted(SOLVERS[name].make) else {}
    options = {**plain, **case.options}
    return compile_plan(name, schedule_for(name), len(grid), grid=grid, prediction=prediction, **options)


def grid_for(name: str, case: Case, steps: int) -> Grid:
    """Return steps that are even, or grow so that a first step of lower order is not what is measured."""
    power = 1.0 if case.starts_at is None else (case.order + 0.5) / (case.starts_at + 1)
    schedule = schedule_for(name)
    return graded(schedule, steps, *SPAN[schedule.name], power)


def even_in_time(name: str, case: Case, steps: int) -> Grid:
    schedule = schedule_for(name)
    return Grid.through_times(schedule, np.linspace(*SPAN[schedule.name], steps + 1))


def is_stochastic(name: str, case: Case) -> bool:
    return plan_for(name, case, grid_for(name, case, 8)).stochastic


def flow_errors(
    name: str, case: Case, prediction: str, *, backwards: bool = False, make: Callable[..., Grid] = grid_for
) -> list[float]:
    """Return the distance from the probability flow's solution, for each of STEPS."""
    found = []
    for steps in STEPS:
        grid = make(name, case, steps)
        grid = encoding(grid) if backwards else grid
        x = flow_end(name, case, prediction, grid)
        found.append(float(np.abs(x - BIMODAL.at(QUANTILES, grid.last)).max()))
    return found


def flow_end(name: str, case: Case, prediction: str, grid: Grid) -> np.ndarray:
    """Return where a solver ends that begins on the probability flow, for a network that predicts exactly."""
    model = network(BIMODAL, schedule_for(name), prediction)
    return run_plan(plan_for(name, case, grid, prediction), model, BIMODAL.at(QUANTILES, next(iter(grid.start))))


def law_errors(name: str, case: Case, prediction: str) -> list[float]:
    """Return how far mean and variance are from the exact ones, for each of STEPS."""
    found = []
    for steps in STEPS:
        grid = grid_for(name, case, steps)
        mean, variance = law_end(name, case, prediction, grid)
        alpha, sigma = grid.last.alpha, grid.last.sigma
        of_mean = mean - alpha * GAUSSIANS.mean[:, 0]
        of_variance = variance - (alpha * GAUSSIANS.spread[:, 0]) ** 2 - sigma**2
        found.append(float(np.hypot(of_mean, of_variance).max()))
    return found


def law_end(name: str, case: Case, prediction: str, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the end: one run without noise, and one for each source of randomness."""
    model, plan = network(GAUSSIANS, schedule_for(name), prediction), plan_for(name, case, grid, prediction)
    start, mean, spread = next(iter(grid.start)), GAUSSIANS.mean[:, 0], GAUSSIANS.spread[:, 0]
    sources = 1 + plan.draws
    x = np.tile(start.alpha * mean, (1 + sources, 1))
    x[1] += np.hypot(start.alpha * spread, start.sigma)
    noise = np.zeros((plan.draws, 1 + sources, len(mean)))
    noise[np.arange(plan.draws), 2 + np.arange(plan.draws)] = 1.0
    end = run_plan(plan, model, x, noise=noise)
    return end[0], ((end[1:] - end[0]) ** 2).sum(0)


def slope(errors: list[float]) -> float:
    return -float(np.polyfit(np.log(STEPS), np.log(errors), 1)[0])


def measured_order(name: str, case: Case, prediction: str = "epsilon") -> float:
    return slope((law_errors if is_stochastic(name, case) else flow_errors)(name, case, prediction))
