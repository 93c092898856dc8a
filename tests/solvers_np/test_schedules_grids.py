"""Noise schedules against independent formulas, time grids by their shape, and every option's error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmrt.errors import OptionError
from dpmrt.solvers_np import GRIDS, SOLVERS, Grid, NoiseSchedule, compile_plan, make_grid, make_schedule

LINEAR = make_schedule("linear")
COSINE = make_schedule("squaredcos_cap_v2")

# Schedules.


def cosine_beta(step: int, total: int) -> float:
    bar = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    return 1 - bar((step + 1) / total) / bar(step / total)


KNOTS = [(0.0, 0.001), (0.25, 0.03), (1.0, 0.01)]


def between_knots(step: int, total: int) -> float:
    u = step / (total - 1)
    return 0.001 + (0.03 - 0.001) * u / 0.25 if u < 0.25 else 0.03 + (0.01 - 0.03) * (u - 0.25) / 0.75


FORMULAS = {
    "linear": lambda i, n: 1e-4 + (0.02 - 1e-4) * i / (n - 1),
    "quadratic": lambda i, n: 1e-4 + (0.02 - 1e-4) * (i / (n - 1)) ** 2,
    "exponential": lambda i, n: 1e-4 * 200 ** (i / (n - 1)),
    "sigmoid": lambda i, n: 1e-4 + (0.02 - 1e-4) / (1 + math.exp(6 - 12 * i / (n - 1))),
    "piecewise_linear": between_knots,
    "scaled_linear": lambda i, n: (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * i / (n - 1)) ** 2,
    "cosine": lambda i, n: min(max(cosine_beta(i, n), 1e-4), 0.9999),
    "squaredcos_cap_v2": lambda i, n: min(cosine_beta(i, n), 0.999),
}
OPTIONS: dict[str, Any] = {"piecewise_linear": {"knots": KNOTS}}


@pytest.mark.parametrize("total", [10, 100, 1000])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_training_times_are_exact(name: str, total: int) -> None:
    schedule, bar = make_schedule(name, train_steps=total, **OPTIONS.get(name, {})), 1.0
    times = np.arange(total)
    alpha, sigma, lambda_ = schedule.alpha(times), schedule.sigma(times), schedule.lambda_(times)
    for i in range(total):
        bar *= 1 - FORMULAS[name](i, total)
        assert alpha[i] == pytest.approx(math.sqrt(bar), rel=1e-9)
        assert sigma[i] == pytest.approx(math.sqrt(1 - bar), rel=1e-9)
        assert lambda_[i] == pytest.approx(0.5 * math.log(bar / (1 - bar)), abs=1e-8)
    assert (schedule.name, schedule.t_min, schedule.t_max) == (name, 0, total - 1)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=1e-15)


@given(name=st.sampled_from(sorted(FORMULAS)), t=st.floats(0, 999))
def test_lambda_inverts_and_log_alpha_is_linear_between_training_times(name: str, t: float) -> None:
    schedule = make_schedule(name)
    assert float(schedule.t_of_lambda(schedule.lambda_(t))) == pytest.approx(t, abs=1e-6)
    low = min(int(t), 998)
    log_alpha = np.log(schedule.alpha([low, low + 1]))
    between = log_alpha[0] + (t - low) * (log_alpha[1] - log_alpha[0])
    assert math.log(float(schedule.alpha(t))) == pytest.approx(between, abs=1e-12)


@given(
    name=st.sampled_from(sorted(FORMULAS)), times=st.lists(st.floats(0, 999), min_size=2, max_size=20, unique=True)
)
def test_lambda_falls_with_time(name: str, times: list[float]) -> None:
    assert (np.diff(make_schedule(name).lambda_(np.sort(times))) <= 0).all()


def test_shapes_follow_the_times() -> None:
    assert [LINEAR.alpha(t).shape for t in (3, [3.0], np.zeros((2, 4)))] == [(), (1,), (2, 4)]
    assert LINEAR.t_of_lambda(np.zeros((2, 3))).shape == (2, 3)


def test_a_table_that_ends_without_signal() -> None:
    schedule = NoiseSchedule.from_alphas_cumprod([0.9, 0.5, 0.0])
    assert schedule.alpha([0, 1, 2]) == pytest.approx([0.9**0.5, 0.5**0.5, 0.0])
    assert float(schedule.lambda_(2)) == -math.inf
    assert compile_plan("ddim", schedule, 3, prediction="v_prediction").calls == 3


SCHEDULE_ERRORS = [
    (lambda: NoiseSchedule.from_betas([0.1, 0.0]), r"a beta is outside \(0, 1\)\n.*betas\[1\] = 0.0\n.*0 < beta < 1"),
    (lambda: NoiseSchedule.from_betas([1.0, 0.1]), r"a beta is outside \(0, 1\)\n.*betas\[0\] = 1.0"),
    (lambda: NoiseSchedule.from_betas([0.1]), r"betas must be a row of at least two numbers\n.*shape \(1,\)"),
    (lambda: NoiseSchedule.from_betas([[0.1, 0.2]]), r"betas must be a row .*\n.*shape \(1, 2\)"),
    (lambda: NoiseSchedule.from_betas(["a", "b"]), "betas must be a row of at least two numbers"),
    (lambda: NoiseSchedule.from_betas([0.1, math.nan, 0.2]), r"betas holds NaN or infinity\n.*index 1"),
    (lambda: NoiseSchedule.from_alphas_cumprod([0.9, 0.9]), r"do not decrease\n.*\[0\] = 0.9, \[1\] = 0.9"),
    (
        lambda: NoiseSchedule.from_alphas_cumprod([0.9, 0.0, 0.0]),
        r"outside \(0, 1\)\n.*alphas_cumprod\[1\] = 0.0\n.*last",
    ),
    (lambda: NoiseSchedule.from_alphas_cumprod([1.0, 0.5]), r"a cumulative alpha is outside \(0, 1\)\n.*\[0\] = 1.0"),
    (lambda: NoiseSchedule.from_alphas_cumprod([0.5, -0.1]), r"outside \(0, 1\)\n.*\[1\] = -0.1"),
    (lambda: LINEAR.alpha(999.5), r"a time is outside the schedule\n.*999.5\n.*0 to 999"),
    (lambda: LINEAR.sigma([-1, 3]), r"a time is outside the schedule\n.*\[-1, 3\]"),
    (lambda: LINEAR.alpha(math.nan), "a time is outside the schedule"),
    (lambda: LINEAR.t_of_lambda(50.0), r"a lambda is outside the schedule\n.*50.0\n.*-5.0588 to 4.6051"),
    (lambda: make_schedule("liner"), r"unknown schedule\n.*'liner'\n.*one of linear, .*\n.*did you mean 'linear'\?"),
    (lambda: make_schedule("linear", beta_strat=1), r"no option of this name\n(.|\n)*did you mean 'beta_start'\?"),
    (lambda: make_schedule("linear", train_steps=1), r"train_steps is out of range\n.*1\n.*from 2 to 1000000"),
    (lambda: make_schedule("linear", train_steps=True), r"train_steps is out of range\n.*True"),
    (lambda: make_schedule("linear", train_steps=10.0), r"train_steps is out of range\n.*10.0"),
    (lambda: make_schedule("linear", beta_end=2.0), r"a beta is outside \(0, 1\)"),
]


@pytest.mark.parametrize(("call", "text"), SCHEDULE_ERRORS)
def test_a_wrong_schedule_is_refused(call: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        call()


# Grids.


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("name", sorted(set(GRIDS) - {"times", "sigmas"}))
def test_a_grid_falls_from_noise_to_data(name: str, steps: int, schedule: NoiseSchedule) -> None:
    grid = make_grid(name, schedule, steps)
    columns = (grid.t, grid.start.alpha, grid.start.sigma, grid.end.alpha, grid.end.sigma)
    assert [column.shape for column in columns] == [(steps,)] * 5
    assert len(grid) == steps
    assert (np.diff(grid.t) <= 0).all()
    assert (grid.end.lambda_ > grid.start.lambda_).all()
    np.testing.assert_array_equal(grid.start.alpha[1:], grid.end.alpha[:-1])
    np.testing.assert_array_equal(grid.start.sigma[1:], grid.end.sigma[:-1])
    np.testing.assert_allclose(grid.end.alpha**2 + grid.end.sigma**2, 1.0, rtol=1e-12)
    ends_in_the_schedule = name in ("uniform", "quadratic", "logsnr")
    assert math.isnan(grid.last.t) != ends_in_the_schedule
    assert (grid.end.sigma[-1] == 0) != ends_in_the_schedule


GRID_TIMES = [
    ("uniform", 3, {}, [999.0, 666.0, 333.0]),
    ("uniform", 2, {"t_start": 800.0, "t_end": 400.0}, [800.0, 600.0]),
    ("quadratic", 2, {}, [999.0, 999 / 4]),
    ("linspace", 4, {}, [999.0, 749.0, 500.0, 250.0]),
    ("leading", 4, {}, [800.0, 600.0, 400.0, 200.0]),
    ("leading", 4, {"steps_offset": 1}, [801.0, 601.0, 401.0, 201.0]),
    ("trailing", 4, {}, [999.0, 749.0, 499.0, 249.0]),
    ("trailing", 3, {}, [999.0, 666.0, 332.0]),
]


@pytest.mark.parametrize(("name", "steps", "options", "times"), GRID_TIMES)
def test_times(name: str, steps: int, options: dict[str, Any], times: list[float]) -> None:
    assert make_grid(name, LINEAR, steps, **options).t.tolist() == pytest.approx(times)


@pytest.mark.parametrize("options", [{}, {"t_start": 900.0, "t_end": 100.0}])
def test_logsnr_is_even_in_lambda(options: dict[str, float]) -> None:
    grid = make_grid("logsnr", LINEAR, 10, **options)
    np.testing.assert_allclose(np.diff([*grid.start.lambda_, grid.end.lambda_[-1]], n=2), 0, atol=1e-9)
    assert (grid.t[0], grid.last.t) == (options.get("t_start", 999), options.get("t_end", 0))


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_is_even_in_the_root_of_the_noise_level(rho: float) -> None:
    grid = make_grid("karras", LINEAR, 8, rho=rho)
    ratios = grid.start.sigma / grid.start.alpha
    np.testing.assert_allclose(np.diff(ratios ** (1 / rho), n=2), 0, atol=1e-10 * ratios[0] ** (1 / rho))
    ends = LINEAR.sigma([999, 0]) / LINEAR.alpha([999, 0])
    np.testing.assert_allclose(ratios[[0, -1]], ends, rtol=1e-12)
    np.testing.assert_allclose(LINEAR.sigma(grid.t) / LINEAR.alpha(grid.t), ratios, rtol=1e-9)
    rounded = make_grid("karras", LINEAR, 8, rho=rho, round_times=True)
    np.testing.assert_array_equal(rounded.t, np.round(grid.t))
    np.testing.assert_array_equal(rounded.start.sigma, grid.start.sigma)


@pytest.mark.parametrize("name", ["linspace", "leading", "trailing"])
def test_a_grid_may_end_at_sigma_min(name: str) -> None:
    grid = make_grid(name, LINEAR, 5, final="sigma_min")
    assert (grid.last.t, grid.end.sigma[-1]) == (0.0, float(LINEAR.sigma(0)))


class Continuous(NoiseSchedule):
    t_min, t_max = 0.0, 1.0

    def alpha(self, t: Any) -> np.ndarray:
        return np.exp(-np.asarray(t) - 0.01)

    def sigma(self, t: Any) -> np.ndarray:
        return np.sqrt(1 - self.alpha(t) ** 2)

    def t_of_lambda(self, lambda_: Any) -> np.ndarray:
        return 0.5 * np.logaddexp(0, -2 * np.asarray(lambda_)) - 0.01


@pytest.mark.parametrize("name", ["uniform", "quadratic", "logsnr"])
def test_a_continuous_schedule_has_the_grids_of_continuous_time(name: str) -> None:
    assert make_grid(name, Continuous(), 5).last.t == 0.0


NO_SIGNAL = NoiseSchedule.from_alphas_cumprod([0.9, 0.5, 0.0])
GRID_ERRORS = [
    (
        lambda: make_grid("trailling", LINEAR, 5),
        r"unknown grid\n.*'trailling'\n.*uniform.*\n.*did you mean 'trailing'\?",
    ),
    (lambda: make_grid("uniform", LINEAR, 0), r"steps is out of range\n.*0\n.*at least 1"),
    (lambda: make_grid("uniform", LINEAR, 2.0), r"steps is out of range\n.*2.0"),
    (lambda: make_grid("uniform", LINEAR, 5, t_begin=3), r"no option of this name\n.*'t_begin'\n.*t_start, t_end"),
    (lambda: make_grid("uniform", LINEAR, 5, t_start=1000), r"do not bound a part of the schedule\n.*t_start=1000"),
    (
        lambda: make_grid("uniform", LINEAR, 5, t_start=10, t_end=10),
        r"do not bound .*\n.*t_end=10\n.*t_end < t_start",
    ),
    (lambda: make_grid("logsnr", NO_SIGNAL, 2), r"needs a finite lambda at both ends\n.*\n.*\n.*t_start below"),
    (lambda: make_grid("karras", NO_SIGNAL, 2), r"'karras' needs some signal at the last training time\n.*alpha = 0"),
    (lambda: make_grid("karras", LINEAR, 5, rho=0), r"rho must be positive\n.*0"),
    (lambda: make_grid("karras", LINEAR, 5, rho=1e-3), r"rho is so small that the levels .*\n.*0.001\n.*1 to 100"),
    (lambda: make_grid("karras", "linear", 5), r"the schedule of a grid is no NoiseSchedule\n.*'linear'"),
    (
        lambda: make_grid("trailing", LINEAR, 5, final="none"),
        r"final has a value .*\n.*'none'\n.*'zero', 'sigma_min'",
    ),
    (lambda: make_grid("leading", LINEAR, 5, steps_offset=-1), r"steps_offset is out of range\n.*-1"),
    (lambda: make_grid("leading", LINEAR, 5, steps_offset=900), r"a time is outside the schedule(.|\n)*0 to 999"),
    (
        lambda: make_grid("trailing", LINEAR, 1001),
        "the noise does not fall from step to step.*\n.*\n.*\n.*fewer steps",
    ),
    (lambda: make_grid("linspace", LINEAR, 1500), "the noise does not fall from step to step"),
    (lambda: make_grid("leading", LINEAR, 1000), "the noise does not fall from step to step"),
    (
        lambda: make_grid("trailing", Continuous(), 5),
        r"'trailing' needs a schedule with training steps\n.*Continuous",
    ),
    (
        lambda: Grid.through_times(LINEAR, np.array([500.0, 700.0, 0.0])),
        r"the noise does not fall from step to step.*\n.*step 0 of 2 at t = 500",
    ),
]


@pytest.mark.parametrize(("call", "text"), GRID_ERRORS)
def test_a_wrong_grid_is_refused(call: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        call()


# compile_plan's options.

COMPILE_ERRORS = [
    ({"solver": "dpm-solver"}, r"unknown solver\n.*'dpm-solver'\n.*ddpm, ddim, .*\n.*did you mean 'dpmsolver"),
    ({"schedule": "cosin"}, r"unknown schedule\n(.|\n)*did you mean 'cosine'\?"),
    ({"grid": "carras"}, r"unknown grid\n(.|\n)*did you mean 'karras'\?"),
    ({"prediction": "eps"}, r"prediction has a value that is not possible\n.*'eps'\n.*'epsilon', 'sample', 'v_pred"),
    ({"steps": 0}, r"steps is out of range\n.*0\n.*from 1 to 10000"),
    ({"steps": 10_001}, r"steps is out of range\n.*10001"),
    ({"steps": True}, r"steps is out of range\n.*True"),
    ({"steps": "20"}, r"steps is out of range\n.*'20'"),
    ({"steps": np.array([1, 2])}, r"steps is out of range\n.*array\(\[1, 2\]\)"),
    ({"schedule": 5}, r"unknown schedule\n.*5\n.*linear"),
    ({"prediction": np.array([1, 2])}, r"prediction has a value that is not possible\n.*array"),
    ({"solver": "ddim", "eta": np.array([0.1, 0.2])}, r"solver 'ddim': eta must be a finite number\n.*array"),
    ({"solver": "ddim", "eta": 10**400}, r"solver 'ddim': eta must be a finite number\n.*1000"),
    ({"grid": "times", "times": [10**400] * 5}, r"grid 'times': times must be a row of finite numbers"),
    (
        {"ordr": 2},
        r"neither solver 'dpmsolver\+\+' nor grid 'trailing' has an option .*\n.*\n.*order.*\n.*mean 'order'\?",
    ),
    ({"rho": 7.0}, r"neither solver 'dpmsolver\+\+' nor grid 'trailing' has an option of this name\n.*'rho'"),
    ({"order": 4}, r"order is out of range\n.*4\n.*from 1 to 3"),
    ({"order": 3, "steps": 2}, r"order is (.|\n)*3(.|\n)*2"),
    ({"solver_type": "bh2"}, r"solver_type has a value that is not possible\n.*'bh2'\n.*'midpoint', 'heun'"),
    ({"clip": -1.0}, r"clip must be a positive limit\n.*-1.0"),
    ({"clip": "1"}, r"solver 'dpmsolver\+\+': clip must be a finite number or None\n.*'1'"),
    ({"threshold": 1.5}, r"threshold must be a ratio\n.*1.5\n.*0 < threshold <= 1"),
    ({"threshold": 0.9, "threshold_max": 0.5}, r"threshold_max must be at least 1\n.*0.5"),
    ({"clip": 1.0, "threshold": 0.9}, r"clip and threshold exclude each other\n(.|\n)*leave out clip"),
    (
        {"denoise_to_zero": True},
        r"denoise_to_zero needs a grid that ends inside the schedule\n(.|\n)*final='sigma_min'",
    ),
    ({"lower_order_final": "no"}, r"lower_order_final must be True or False\n.*'no'"),
    ({"grid": "uniform", "t_start": "abc"}, r"grid 'uniform': t_start must be a finite number or None\n.*'abc'"),
    ({"grid": "karras", "round_times": 1}, r"grid 'karras': round_times must be True or False\n.*1"),
    ({"solver": "ddim", "eta": 1.1}, r"eta is out of range\n.*1.1"),
    ({"solver": "ddim", "eta": math.nan}, r"solver 'ddim': eta must be a finite number\n.*nan"),
    (
        {"solver": "ddpm", "variance": "learnt"},
        r"variance has a value .*\n.*'learnt'\n.*'fixed_small', 'fixed_large', 'learned'",
    ),
    (
        {"schedule": NO_SIGNAL, "steps": 3},
        r"DPM-Solver cannot start where no signal is left\n(.|\n)*use solver 'ddim'",
    ),
    (
        {"schedule": NO_SIGNAL, "steps": 3, "solver": "ddim"},
        r"x0 cannot be had from a network that predicts 'epsilon'",
    ),
    ({"grid": make_grid("uniform", LINEAR, 4)}, r"steps and the grid disagree\n.*steps=5\n.*4, as the grid"),
    (
        {"grid": make_grid("uniform", LINEAR, 5), "t_end": 1.0},
        r"nor grid 'given' has an option of this name\n.*'t_end'",
    ),
]


@pytest.mark.parametrize(("options", "text"), COMPILE_ERRORS)
def test_a_wrong_option_is_refused(options: dict[str, Any], text: str) -> None:
    given_options = {"solver": "dpmsolver++", "schedule": LINEAR, "steps": 5, **options}
    with pytest.raises(OptionError, match=text):
        compile_plan(**given_options)


def test_the_rounding_of_large_weights_is_taken_for_no_defect() -> None:
    # with next to no signal at the start, weights of 6e4 cancel to 1e-9 of a perfectly known sample
    for solver, steps, prediction in (("kdpm2-ancestral", 1, "sample"), ("pndm", 5, "v_prediction")):
        plan = compile_plan(solver, "cosine", steps, grid="uniform", prediction=prediction)
        assert np.abs(plan.weights).max() > 100


def test_options_go_to_the_solver_and_to_the_grid() -> None:
    plan = compile_plan("dpmsolver++", "linear", 6, grid="karras", rho=5.0, order=3, euler_at_final=True)
    assert plan.slots == 3
    assert plan.meta["options"] == {"rho": 5.0, "order": 3, "euler_at_final": True}
    np.testing.assert_array_equal(plan.timesteps, make_grid("karras", LINEAR, 6, rho=5.0).t)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_meta_of_a_plan(solver: str) -> None:
    meta = compile_plan(solver, LINEAR, 7, grid="logsnr", prediction="sample").meta
    wanted = {"solver": solver, "schedule": "linear", "grid": "logsnr", "steps": 7, "prediction": "sample"}
    assert {key: meta[key] for key in wanted} == wanted


def test_karras_down_to_sigma_min_spends_every_step() -> None:
    grid = make_grid("karras", LINEAR, 5, final="sigma_min")
    assert (len(grid), grid.last.t) == (5, 0.0)
    assert grid.end.lambda_[-1] == pytest.approx(float(LINEAR.lambda_(0)), abs=1e-9)
    assert (np.diff(grid.start.lambda_) > 0.1).all()
