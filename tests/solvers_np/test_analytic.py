"""The optimal reverse variance: exact moments of Gaussian data, the paper's equations in torch, what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import Mixture, encoding, network

from dpmrt.errors import OptionError
from dpmrt.solvers_np import (
    Grid,
    NoiseSchedule,
    StepPlan,
    compile_plan,
    make_grid,
    make_noise,
    make_schedule,
    run_plan,
)
from dpmrt.solvers_np.levels import Level

LINEAR = make_schedule("linear")
SPREAD = 0.6
#: three entries of one spread, for which one variance for all is right
DATA = Mixture(np.ones(1), np.array([[0.4], [-0.8], [0.1]]), np.full((3, 1), SPREAD))
UNBOUNDED: dict[str, Any] = {"radius": None, "clip_pixel": None}


def exact_gamma(schedule: NoiseSchedule, spread: np.ndarray | float = SPREAD) -> np.ndarray:
    """Return the mean square of the expected noise at every training time: sigma^2 / (alpha^2 spread^2 + sigma^2)."""
    t = np.arange(schedule.train_steps or 0, dtype=np.float64)[:, None]
    variance = (schedule.alpha(t) * np.reshape(spread, -1)) ** 2 + schedule.sigma(t) ** 2
    return np.asarray((schedule.sigma(t) ** 2 / variance).mean(1))


def law(plan: StepPlan, model: Any, start: Level, data: Mixture = DATA) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance where an affine plan ends: one run without noise, and one for each draw."""
    mean, spread = data.mean[:, 0], data.spread[:, 0]
    x = np.tile(start.alpha * mean, (2 + plan.draws, 1))
    x[1] += np.hypot(start.alpha * spread, start.sigma)
    noise = np.zeros((plan.draws, 2 + plan.draws, len(mean)))
    noise[np.arange(plan.draws), 2 + np.arange(plan.draws)] = 1.0
    end = run_plan(plan, model, x, noise=noise)
    return end[0], ((end[1:] - end[0]) ** 2).sum(0)


CASES = {
    "ddpm": ("ddpm", {}),
    "ddim": ("ddim", {}),
    "ddim, half": ("ddim", {"eta": 0.5}),
    "ddim, all": ("ddim", {"eta": 1.0}),
}


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gaussian_data_is_reproduced_in_any_number_of_steps(steps: int, case: str, prediction: str) -> None:
    solver, options = CASES[case]
    grid = Grid.through_times(LINEAR, np.linspace(990, 3, steps + 1).round())
    if solver == "ddpm":
        options = {"noise_at_end": True}
    plan = compile_plan(
        solver,
        LINEAR,
        steps,
        grid=grid,
        prediction=prediction,
        variance="analytic",
        gamma=exact_gamma(LINEAR),
        **UNBOUNDED,
        **options,
    )
    mean, variance = law(plan, network(DATA, LINEAR, prediction), next(iter(grid.start)))
    end = grid.last
    np.testing.assert_allclose(mean, end.alpha * DATA.mean[:, 0], atol=1e-10)
    np.testing.assert_allclose(variance, (end.alpha * SPREAD) ** 2 + end.sigma**2, rtol=1e-10)


@pytest.mark.parametrize("grid", ["trailing", "linspace", "karras"])
def test_so_it_is_down_to_the_data_itself(grid: str) -> None:
    options = {**UNBOUNDED, "noise_at_end": True, "gamma": exact_gamma(LINEAR), "variance": "analytic"}
    made = make_grid(grid, LINEAR, 4)
    plan = compile_plan("ddpm", LINEAR, 4, grid=grid, **options)
    mean, variance = law(plan, network(DATA, LINEAR, "epsilon"), next(iter(made.start)))
    # the times of "karras" are no whole ones, and gamma is a straight line between those
    tolerance = 1e-3 if grid == "karras" else 1e-10
    np.testing.assert_allclose(mean, DATA.mean[:, 0], atol=1e-10)
    np.testing.assert_allclose(variance, SPREAD**2, rtol=tolerance)


@pytest.mark.parametrize("steps", [2, 5, 10])
def test_few_steps_of_the_fixed_variances_miss_what_the_analytic_one_meets(steps: int) -> None:
    grid = Grid.through_times(LINEAR, np.linspace(990, 3, steps + 1).round())
    exact = (grid.last.alpha * SPREAD) ** 2 + grid.last.sigma**2
    errors = {}
    for kind in ("fixed_small", "fixed_large", "analytic"):
        options = {"gamma": exact_gamma(LINEAR), **UNBOUNDED} if kind == "analytic" else {}
        plan = compile_plan("ddpm", LINEAR, steps, grid=grid, variance=kind, noise_at_end=True, **options)
        _, variance = law(plan, network(DATA, LINEAR, "epsilon"), next(iter(grid.start)))
        errors[kind] = float(np.abs(variance / exact - 1).max())
    assert errors["analytic"] < 1e-10
    assert min(errors["fixed_small"], errors["fixed_large"]) > 0.03


@given(
    spread=st.lists(st.floats(0.05, 2.0), min_size=1, max_size=5),
    times=st.lists(st.integers(1, 999), min_size=2, max_size=2, unique=True),
    eta=st.sampled_from([None, 0.0, 0.3, 1.0]),
)
def test_a_step_from_the_exact_law_has_the_right_variance_in_the_mean(
    spread: list[float], times: list[int], eta: float | None
) -> None:
    """Entries of unequal spread share one variance of the noise, which is right for their sum."""
    data = Mixture(np.ones(1), np.zeros((len(spread), 1)), np.array(spread)[:, None])
    grid = Grid.through_times(LINEAR, np.sort(np.array(times, np.float64))[::-1])
    options: dict[str, Any] = {"noise_at_end": True} if eta is None else {"eta": eta}
    gamma = exact_gamma(LINEAR, np.array(spread))
    plan = compile_plan(
        "ddpm" if eta is None else "ddim",
        LINEAR,
        1,
        grid=grid,
        variance="analytic",
        gamma=gamma,
        **options,
        **UNBOUNDED,
    )
    _, variance = law(plan, network(data, LINEAR, "epsilon"), next(iter(grid.start)), data)
    exact = (grid.last.alpha * np.array(spread)) ** 2 + grid.last.sigma**2
    assert variance.mean() == pytest.approx(exact.mean(), rel=1e-9)


def by_the_paper(
    x: torch.Tensor, times: list[int], gamma: torch.Tensor, eta: float, noise: torch.Tensor, *, clip_x0: bool = False
) -> torch.Tensor:
    """Sample with the paper's optimal variance and its bounds, written with its symbols and in torch.

    Its n counts from 1, and n = 0 is the data; gamma is the mean square of the score times beta_bar.
    """
    beta = torch.cat([torch.zeros(1), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)])
    alpha_bar = torch.cumprod(1 - beta, 0)
    beta_bar = 1 - alpha_bar
    draws = iter(noise)
    steps = [0, *(t + 1 for t in times)]
    for s, r in reversed(list(itertools.pairwise(steps))):
        alpha = alpha_bar[r] / alpha_bar[s]
        beta_step = 1 - alpha
        lamb2 = eta**2 * beta_bar[s] / beta_bar[r] * beta_step
        eps = torch.sin(3 * x) * (r / 1000)
        x0 = (x - beta_bar[r].sqrt() * eps) / alpha_bar[r].sqrt()
        if clip_x0:
            x0 = x0.clamp(-1, 1)
            eps_of = (x - alpha_bar[r].sqrt() * x0) / beta_bar[r].sqrt()
        else:
            eps_of = eps
        rest = (beta_bar[s] - lamb2).sqrt()
        x = alpha_bar[s].sqrt() * x0 + rest * eps_of
        if s == 0:
            break
        score_power = gamma[r - 1] / beta_bar[r]
        sigma2 = lamb2 + ((beta_bar[r] / alpha).sqrt() - rest) ** 2 * (1 - beta_bar[r] * score_power)
        upper = lamb2 + ((beta_bar[r] / alpha).sqrt() - rest) ** 2
        of_range = lamb2 + (alpha_bar[s].sqrt() - rest * (alpha_bar[r] / beta_bar[r]).sqrt()) ** 2
        sigma2 = torch.minimum(torch.minimum(torch.maximum(sigma2, lamb2), upper), of_range)
        if s == steps[1]:
            sigma2 = torch.minimum(sigma2, torch.tensor((2 * 2 / 255) ** 2 * math.pi / 2))
        x = x + sigma2.sqrt() * next(draws)
    return x


@pytest.mark.parametrize("eta", [None, 0.0, 0.6, 1.0])
@pytest.mark.parametrize("steps", [2, 7, 25])
def test_it_is_what_the_paper_writes(steps: int, eta: float | None) -> None:
    rng = np.random.default_rng(steps)
    grid = Grid.at_times(LINEAR, np.linspace(999, 0, steps).round())
    x, noise = rng.standard_normal((3, 2, 4)), rng.standard_normal((steps - 1, 3, 2, 4))
    gamma = 1 - (1 - exact_gamma(LINEAR, 0.9)) * rng.uniform(0.2, 3.0, 1000)
    if eta != 0.0:  # estimates above 1, of which the bound makes the variance of a known x0: none for eta = 0
        gamma[rng.permutation(1000)[:300]] = 1.01
    gamma = np.maximum(gamma, 0.0)
    want = by_the_paper(
        torch.from_numpy(x),
        [int(t) for t in grid.t[::-1]],
        torch.from_numpy(gamma),
        1.0 if eta is None else eta,
        torch.from_numpy(noise),
        clip_x0=eta is None,
    )

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.sin(3 * x) * ((t[0] + 1) / 1000)

    options: dict[str, Any] = {"clip": 1.0} if eta is None else {"eta": eta}
    plan = compile_plan(
        "ddpm" if eta is None else "ddim", LINEAR, steps, grid=grid, variance="analytic", gamma=gamma, **options
    )
    assert plan.draws == steps - 1
    np.testing.assert_allclose(run_plan(plan, model, x, noise=noise), want.numpy(), rtol=1e-9, atol=1e-9)


def test_the_variance_lies_between_what_a_known_x0_and_the_data_s_range_allow() -> None:
    def plan(gamma: float, **options: Any) -> StepPlan:
        return compile_plan("ddpm", LINEAR, 6, variance="analytic", gamma=np.full(1000, gamma), **options)

    small = compile_plan("ddpm", LINEAR, 6).noise
    np.testing.assert_array_equal(plan(1.0).noise, small)
    np.testing.assert_array_equal(plan(1.5).noise, small)
    x0_weight = plan(1.0).weights[:, 1:].sum(1)
    np.testing.assert_allclose(plan(0.0).noise[:5] ** 2, small[:5] ** 2 + x0_weight[:5] ** 2, rtol=1e-12)
    half = plan(0.0, radius=0.5).noise
    np.testing.assert_allclose(half[:5] ** 2, small[:5] ** 2 + x0_weight[:5] ** 2 / 4, rtol=1e-12)
    assert (plan(0.0, radius=None).noise[:5] >= plan(0.0).noise[:5]).all()


def test_the_last_noise_is_less_than_two_pixels_where_the_last_call_is_at_the_first_time() -> None:
    def noise(grid: str, **options: Any) -> np.ndarray:
        if grid == "to zero":
            grid, options["times"] = "times", [999, 749, 500, 250, 0]
        gamma = np.zeros(1000)
        return compile_plan("ddpm", LINEAR, 5, grid=grid, variance="analytic", gamma=gamma, **options).noise

    limit = 2 * 2 / 255 * math.sqrt(math.pi / 2)
    free = noise("to zero", clip_pixel=None)
    assert free[3] > limit
    np.testing.assert_allclose(noise("to zero"), [*free[:3], limit, 0.0])
    np.testing.assert_allclose(noise("to zero", clip_pixel=1.0)[3], limit / 2)
    np.testing.assert_allclose(noise("to zero", radius=0.5)[3], limit / 2)
    np.testing.assert_allclose(noise("to zero", clip_steps=2)[2:], [limit, limit, 0.0])
    np.testing.assert_array_equal(noise("to zero", clip_steps=0), free)
    # "trailing" calls the network at t = 199 last, so that what the noise before it adds is still removed
    np.testing.assert_array_equal(noise("trailing"), noise("trailing", clip_pixel=None))
    ended = noise("to zero", noise_at_end=True)
    np.testing.assert_allclose(ended[4], min(limit, float(LINEAR.sigma(0) / LINEAR.alpha(0))))
    assert ended[3] == free[3]


def test_times_between_those_of_gamma_are_on_a_line() -> None:
    few = np.array([0.0, 500.0, 999.0])
    options = {"grid": "linspace", "variance": "analytic", "clip_pixel": None}
    whole = compile_plan(
        "ddim", LINEAR, 9, gamma=np.interp(np.arange(1000), few, [0.2, 0.9, 0.95]), radius=None, **options
    )
    thin = compile_plan("ddim", LINEAR, 9, gamma=[0.2, 0.9, 0.95], gamma_times=few, radius=None, **options)
    np.testing.assert_allclose(thin.noise, whole.noise, rtol=1e-12)


def test_it_is_as_linear_as_any_other_plan(tmp_path: Any) -> None:
    plan = compile_plan("ddpm", LINEAR, 5, variance="analytic", gamma=exact_gamma(LINEAR))
    assert plan.instructions == ()
    assert plan.parts == 1
    loaded = StepPlan.load(plan.save(tmp_path / "plan.steps"))
    assert loaded.digest() == plan.digest()
    assert "gamma" not in str(loaded.meta)
    x = np.ones((2, 3))
    first = run_plan(plan, lambda x, t: np.tanh(x), x, noise=make_noise("numpy", 1))
    np.testing.assert_array_equal(first, run_plan(loaded, lambda x, t: np.tanh(x), x, noise=make_noise("numpy", 1)))


@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variance": "analytic"}, r"(?s)needs a statistic.*missing.*dpmrt calibrate BUNDLE --data"),
        ({"gamma": [0.5, 0.6]}, r"(?s)gamma is for the analytic variance alone.*variance='analytic'"),
        ({"clip_steps": 1}, "clip_steps is for the analytic variance alone"),
        ({"variance": "analytic", "gamma": [0.5, 0.6]}, r"(?s)not known at a time of the plan.*t = 999.*0 to 1"),
        ({"variance": "analytic", "gamma": [0.5, math.nan]}, "gamma must be a row of finite numbers"),
        ({"variance": "analytic", "gamma": [0.5, -0.1]}, r"(?s)mean of squares.*-0\.1"),
        ({"variance": "analytic", "gamma": [0.5, 0.6], "gamma_times": [0, 0]}, "in rising order"),
        ({"variance": "analytic", "gamma": [0.5, 0.6], "gamma_times": [0, 1, 2]}, "3 times for 2 of gamma"),
        ({"variance": "analytic", "gamma": [1.0] * 1000, "radius": 0.0}, "radius is out of range"),
        ({"variance": "analytic", "gamma": [1.0] * 1000, "clip_pixel": -1.0}, "clip_pixel is out of range"),
        ({"variance": "analytic", "gamma": [1.0] * 1000, "clip_steps": -1}, "clip_steps is out of range"),
    ],
)
def test_what_cannot_be_is_refused(solver: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        compile_plan(solver, LINEAR, 5, **options)


def test_no_signal_and_rising_noise_are_refused() -> None:
    gone = NoiseSchedule.from_alphas_cumprod([0.9, 0.5, 0.1, 0.0])
    with pytest.raises(OptionError, match=r"(?s)gamma says nothing where no signal is left.*alpha = 0 at t = 3"):
        compile_plan("ddim", gone, 2, prediction="v_prediction", variance="analytic", gamma=[1.0] * 4)
    grid = encoding(Grid.through_times(LINEAR, np.array([900.0, 500.0, 100.0])))
    with pytest.raises(OptionError, match="a grid whose noise rises takes no analytic variance"):
        compile_plan("ddim", LINEAR, 2, grid=grid, variance="analytic", gamma=[1.0] * 1000)
