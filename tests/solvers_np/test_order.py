"""The order at which every deterministic solver converges to a closed-form solution.

For data N(mu, s^2) the probability-flow ODE has the solution x(t) = alpha mu + sqrt(alpha^2 s^2 + sigma^2) z with
z constant, and the exact eps, x0 and v are linear in x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dpmrt.solvers_np import Grid, NoiseSchedule, compile_plan, run_plan

MU = np.array([[0.7, -0.3, 0.1, 1.2, -0.9, 0.0]])
S = np.array([[0.2, 0.5, 0.3, 0.8, 0.4, 0.6]])
Z = np.array([[-1.3, 0.4, 0.9, -0.2, 1.7, 0.6]])
STEPS = np.array([40, 80, 160, 320])  # below 40 the higher orders are not in their asymptotic range yet
START, END = 0.7, 0.2
TOLERANCE = 0.15


class LinearVP(NoiseSchedule):
    """The variance-preserving SDE with a linear beta(t), in continuous time (Song et al. 2021)."""

    t_min, t_max, name = 1e-4, 1.0, "linear-vp"
    b0, b1 = 0.1, 20.0

    def alpha(self, t: Any) -> np.ndarray:
        t = np.asarray(t, np.float64)
        return np.exp(-(self.b1 - self.b0) * t**2 / 4 - self.b0 * t / 2)

    def sigma(self, t: Any) -> np.ndarray:
        return np.sqrt(-np.expm1(2 * np.log(self.alpha(t))))

    def t_of_lambda(self, lambda_: Any) -> np.ndarray:
        x = 2 * (self.b1 - self.b0) * np.logaddexp(0, -2 * np.asarray(lambda_, np.float64))
        return x / (np.sqrt(self.b0**2 + x) + self.b0) / (self.b1 - self.b0)


SCHEDULE = LinearVP()


def exact(t: float) -> np.ndarray:
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    return alpha * MU + np.sqrt(alpha**2 * S**2 + sigma**2) * Z


def network(prediction: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        alpha, sigma = float(SCHEDULE.alpha(t[0])), float(SCHEDULE.sigma(t[0]))
        eps = sigma * (x - alpha * MU) / (alpha**2 * S**2 + sigma**2)
        x0 = (x - sigma * eps) / alpha
        return {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0}[prediction]

    return model


def slope(make_grid: Callable[[int], Any], solver: str, prediction: str, **options: Any) -> float:
    errors = []
    for steps in STEPS:
        grid = make_grid(int(steps))
        ends = {} if isinstance(grid, Grid) else {"t_start": START, "t_end": END}
        count = len(grid) if isinstance(grid, Grid) else int(steps)
        plan = compile_plan(solver, SCHEDULE, count, grid=grid, prediction=prediction, **ends, **options)
        errors.append(np.abs(run_plan(plan, network(prediction), exact(START)) - exact(END)).max())
    return -float(np.polyfit(np.log(STEPS), np.log(errors), 1)[0])


# Order 3 as its authors released it is of order 2: it starts with a step of order 1, and it takes half of the
# second derivative's weight (see test_order_3_is_held_back_by_its_formula_too).
CASES = [
    ("ddim", {}, 1.0),
    *(
        (solver, {"order": order, "lower_order_final": False, **kind}, measured)
        for solver in ("dpmsolver", "dpmsolver++")
        for order, kind, measured in (
            (1, {}, 1.0),
            (2, {"solver_type": "midpoint"}, 2.0),
            (2, {"solver_type": "heun"}, 2.0),
            (3, {}, 2.0),
        )
    ),
]


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("grid", ["logsnr", "uniform"])
@pytest.mark.parametrize(("solver", "options", "expected"), CASES)
def test_slope(solver: str, options: dict[str, Any], expected: float, grid: str, prediction: str) -> None:
    measured = slope(lambda steps: grid, solver, prediction, **options)
    print(f"{solver:12} {options!s:60} {grid:8} {prediction:13} slope {measured:.3f}")
    assert measured == pytest.approx(expected, abs=TOLERANCE)


def graded(steps: int) -> Grid:
    """Evenly spaced in lambda but for a first step of h^1.5, whose error of order 2 is then one of order 3."""
    ends = [float(SCHEDULE.lambda_(START)), float(SCHEDULE.lambda_(END))]
    h = (ends[1] - ends[0]) / steps
    lambdas = np.concatenate([ends[:1], np.linspace(ends[0] + h**1.5 / 4, ends[1], steps)])
    return Grid.through_times(SCHEDULE, np.concatenate([[START], SCHEDULE.t_of_lambda(lambdas[1:-1]), [END]]))


@pytest.mark.parametrize("solver", ["dpmsolver", "dpmsolver++"])
def test_order_3_is_held_back_by_its_formula_too(solver: str) -> None:
    measured = slope(graded, solver, "epsilon", order=3, lower_order_final=False)
    print(f"{solver:12} order 3, graded start: slope {measured:.3f}")
    assert measured == pytest.approx(2.0, abs=TOLERANCE)


@pytest.mark.parametrize("lambda_", [-4.0, -0.5, 0.0, 3.0])
def test_the_schedule_used_here_inverts(lambda_: float) -> None:
    assert float(SCHEDULE.lambda_(SCHEDULE.t_of_lambda(lambda_))) == pytest.approx(lambda_, abs=1e-12)


def test_the_solution_used_here_solves_the_ode() -> None:
    t, d = 0.4, 1e-5
    alpha, sigma = float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))
    log_alpha_dt = -(SCHEDULE.b1 - SCHEDULE.b0) * t / 2 - SCHEDULE.b0 / 2
    eps = network("epsilon")(exact(t), np.array([t]))
    drift = log_alpha_dt * exact(t) - log_alpha_dt / sigma * eps  # 2022a eq. 2.7: f x + g^2 / (2 sigma) eps
    assert math.isclose(alpha**2 + sigma**2, 1.0)
    np.testing.assert_allclose((exact(t + d) - exact(t - d)) / (2 * d), drift, rtol=1e-7, atol=1e-8)
