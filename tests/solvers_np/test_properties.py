"""What holds for every plan, whatever the solver, grid, number of steps, prediction and shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure import cases, is_stochastic

from dpmrt.solvers_np import SOLVERS, NoiseSchedule, StepPlan, compile_plan, make_schedule, run_plan
from dpmrt.solvers_np.options import accepted

PREDICTIONS = ("epsilon", "sample", "v_prediction")
SCHEDULE_OF = {name: make_schedule(name) for name in ("linear", "scaled_linear", "cosine", "squaredcos_cap_v2")}
EXACT = [(name, case) for name, case in cases() if SOLVERS[name].exact]
SOLVER_OPTIONS = [(name, dict(case.options)) for name, case in EXACT]
DETERMINISTIC = [(name, dict(case.options)) for name, case in EXACT if not is_stochastic(name, case)]
WITH_DENOISING = [pair for pair in DETERMINISTIC if "denoise_to_zero" in accepted(SOLVERS[pair[0]].make)]
GRID_NAMES = ("uniform", "quadratic", "logsnr", "linspace", "leading", "trailing", "karras", "exponential", "beta")

steps_ = st.integers(1, 30)
schedules = st.sampled_from(sorted(SCHEDULE_OF))
grids = st.sampled_from(GRID_NAMES)
predictions = st.sampled_from(PREDICTIONS)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(lambda tail: (2, *tail))
finals = st.fixed_dictionaries({"lower_order_final": st.booleans(), "euler_at_final": st.booleans()})


def compiled(solver: tuple, schedule: str, steps: int, grid: str, prediction: str, **more: Any) -> StepPlan:
    name, options = solver
    known = accepted(SOLVERS[name].make)
    options = {**options, **{key: value for key, value in more.items() if key in known}}
    for order in ("order", "predictor_order", "corrector_order"):
        if order in options:
            options[order] = min(options[order], steps)
    if "skip_prk_steps" in known and steps < 4:
        options["skip_prk_steps"] = True
    if options.get("order", 3) < 3:
        options.pop("third_order", None)
    return compile_plan(name, SCHEDULE_OF[schedule], steps, grid=grid, prediction=prediction, **options)


def perfect(schedule: NoiseSchedule, prediction: str, x0: np.ndarray) -> Any:
    """Return a network that knows x0."""

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        alpha, sigma = float(schedule.alpha(t[0])), float(schedule.sigma(t[0]))
        eps = (x - alpha * x0) / sigma
        return {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0}[prediction]

    return model


def rounding(plan: StepPlan) -> float:
    """Return a tolerance: two stages from almost no signal to almost no noise magnify rounding by both weights."""
    return 1e-7 * max(1.0, (abs(plan.weights).max() / 1e3) ** 2)


def smooth(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.tanh(x) * (0.5 + t[0] / 2000)


@given(solver=st.sampled_from(DETERMINISTIC), schedule=schedules, steps=steps_, prediction=predictions, shape=shapes)
@pytest.mark.parametrize("grid", ["linspace", "leading", "trailing"])
def test_a_perfect_network_is_reproduced(
    grid: str, solver: tuple, schedule: str, steps: int, prediction: str, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    x0, x = rng.uniform(-1, 1, shape), rng.standard_normal(shape)
    plan = compiled(solver, schedule, steps, grid, prediction)
    model = perfect(SCHEDULE_OF[schedule], prediction, x0)
    np.testing.assert_allclose(run_plan(plan, model, x), x0, atol=rounding(plan))


@given(solver=st.sampled_from(DETERMINISTIC), schedule=schedules, steps=steps_, prediction=predictions, shape=shapes)
@pytest.mark.parametrize("grid", ["uniform", "quadratic", "logsnr"])
def test_a_perfect_network_is_followed_to_the_end_of_the_schedule(
    grid: str, solver: tuple, schedule: str, steps: int, prediction: str, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    table, x0, eps = SCHEDULE_OF[schedule], rng.uniform(-1, 1, shape), rng.standard_normal(shape)
    start, end = ((float(table.alpha(t)), float(table.sigma(t))) for t in (table.t_max, table.t_min))
    plan = compiled(solver, schedule, steps, grid, prediction)
    result = run_plan(plan, perfect(table, prediction, x0), start[0] * x0 + start[1] * eps)
    np.testing.assert_allclose(result, end[0] * x0 + end[1] * eps, atol=rounding(plan))


@given(
    solver=st.sampled_from(SOLVER_OPTIONS),
    schedule=schedules,
    steps=steps_,
    grid=grids,
    prediction=predictions,
    final=finals,
)
def test_equal_inputs_give_equal_bytes_and_a_saved_plan_gives_equal_results(
    tmp_path_factory: Any, solver: tuple, schedule: str, steps: int, grid: str, prediction: str, final: dict
) -> None:
    plan, again = (compiled(solver, schedule, steps, grid, prediction, **final) for _ in range(2))
    assert plan.to_bytes() == again.to_bytes()
    assert plan.digest() == again.digest()
    path: Path = tmp_path_factory.mktemp("plan") / "sampler.steps"
    loaded = StepPlan.load(plan.save(path))
    assert loaded.to_bytes() == plan.to_bytes() == path.read_bytes()
    assert dict(loaded.meta) == dict(plan.meta)
    x = np.random.default_rng(1).standard_normal((2, 5)).astype(np.float32)
    assert run_plan(loaded, smooth, x).tobytes() == run_plan(plan, smooth, x).tobytes()


@given(schedule=schedules, steps=steps_, grid=grids, prediction=predictions)
def test_ddim_is_both_dpm_solvers_of_order_1(schedule: str, steps: int, grid: str, prediction: str) -> None:
    x = np.random.default_rng(2).standard_normal((2, 6))
    first, *others = (
        run_plan(compiled(solver, schedule, steps, grid, prediction), smooth, x)
        for solver in (("ddim", {}), ("dpmsolver++", {"order": 1}), ("dpmsolver", {"order": 1}))
    )
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-8, atol=1e-8 * np.abs(first).max())


@given(schedule=schedules, steps=steps_, grid=grids, prediction=predictions, seed=st.integers(0, 99))
def test_ddim_with_full_noise_is_ddpm(schedule: str, steps: int, grid: str, prediction: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, noise = rng.standard_normal((2, 6)), rng.standard_normal((steps, 2, 6))
    ddim = compiled(("ddim", {"eta": 1.0}), schedule, steps, grid, prediction)
    ddpm = compiled(("ddpm", {"noise_at_end": True}), schedule, steps, grid, prediction)
    first, second = run_plan(ddim, smooth, x, noise=noise), run_plan(ddpm, smooth, x, noise=noise)
    np.testing.assert_allclose(second, first, rtol=1e-8, atol=1e-7 * np.abs(first).max())


@given(
    solver=st.sampled_from(SOLVER_OPTIONS),
    schedule=schedules,
    steps=steps_,
    grid=grids,
    prediction=predictions,
    a=st.floats(-2, 2),
    b=st.floats(-2, 2),
)
def test_superposition(
    solver: tuple, schedule: str, steps: int, grid: str, prediction: str, a: float, b: float
) -> None:
    """A plan is linear in initial state, network outputs and noise together."""
    plan = compiled(solver, schedule, steps, grid, prediction)
    rng = np.random.default_rng(3)

    def run(x: np.ndarray, outputs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        answers = iter(outputs)
        return run_plan(plan, lambda x, t: next(answers), x, noise=noise if plan.stochastic else None)

    counts = ((), (plan.calls,), (plan.draws,))
    p, q = ([rng.standard_normal((*n, 2, 3)) for n in counts] for _ in range(2))
    both = run(*(a * u + b * v for u, v in zip(p, q)))
    one, two = run(*p), run(*q)
    scale = 1 + np.abs(one).max() + np.abs(two).max()
    np.testing.assert_allclose(both, a * one + b * two, atol=1e-9 * scale)


@given(solver=st.sampled_from(WITH_DENOISING), steps=st.integers(1, 20), prediction=predictions)
def test_denoise_to_zero_returns_x0(solver: tuple, steps: int, prediction: str) -> None:
    schedule = SCHEDULE_OF["linear"]
    x0 = np.linspace(-1, 1, 6).reshape(2, 3)
    plain = compiled(solver, "linear", steps, "logsnr", prediction)
    plan = compiled(solver, "linear", steps, "logsnr", prediction, denoise_to_zero=True)
    assert plan.calls == plain.calls + 1
    result = run_plan(plan, perfect(schedule, prediction, x0), np.ones((2, 3)))
    np.testing.assert_allclose(result, x0, atol=rounding(plan))
