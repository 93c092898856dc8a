"""k-diffusion's and EDM's samplers against their formulas, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from k_references import REFERENCES, denoiser, network

from dpmrt.errors import OptionError
from dpmrt.solvers_np import Grid, Level, NoiseSchedule, StepPlan, compile_plan, make_grid, make_schedule, run_plan
from dpmrt.solvers_np.plans.instructions import Clip
from dpmrt.solvers_np.solvers.adams import adams_bashforth

SCALED, EDM = make_schedule("scaled_linear"), make_schedule("edm")
SCHEDULES = {"vp": SCALED, "exploding": SCALED.exploding(), "edm": EDM, "continuous": make_schedule("vp-linear")}
PREDICTIONS = {"vp": "v_prediction", "exploding": "epsilon", "edm": "edm", "continuous": "sample"}
SAMPLERS = ("euler", "heun", "kdpm2", "lms")
ANCESTRAL = ("euler-ancestral", "heun-ancestral", "kdpm2-ancestral", "dpmsolver++2s-ancestral", "dpmsolver++sde")
STEPS, SHAPE = 7, (2, 3)
Array = np.ndarray


BOUNDED = {"s_churn": 3.0, "s_tmin": 0.2, "s_tmax": 6.0, "s_noise": 1.01}
CASES = [
    *(
        (name, options)
        for name in ("euler", "heun", "kdpm2")
        for options in ({}, BOUNDED, {**BOUNDED, "s_churn": 90.0})
    ),
    *(("lms", {"order": order}) for order in (1, 2, 3, 4)),
    ("lms", {}),
    *((name, options) for name in ANCESTRAL for options in ({}, {"eta": 0.6, "s_noise": 0.9}, {"eta": 0.0})),
    ("dpmsolver++sde", {"r": 0.7}),
]


@pytest.mark.parametrize("where", SCHEDULES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_each_sampler_is_its_formulas(name: str, options: dict, where: str) -> None:
    schedule, prediction = SCHEDULES[where], PREDICTIONS[where]
    grid = make_grid("karras", schedule, STEPS)
    plan = compile_plan(name, schedule, STEPS, grid=grid, prediction=prediction, **options)
    rng = np.random.default_rng(5)
    x, noise = grid.init_scale * rng.standard_normal(SHAPE), rng.standard_normal((max(plan.draws, 1), *SHAPE))
    left = iter(noise)
    sigmas = np.append(grid.start.ratio, 0.0)
    want = REFERENCES[name](denoiser(schedule, prediction), x / grid.start.alpha[0], sigmas, left, **options)
    got = run_plan(plan, network, x, noise=noise if plan.stochastic else None)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)
    assert plan.draws == 0 or next(left, None) is None, "the reference drew less noise"


@pytest.mark.parametrize("name", [*SAMPLERS, *ANCESTRAL])
def test_a_state_of_variance_one_and_an_exploding_one_are_the_same(name: str) -> None:
    plans = [compile_plan(name, schedule, 9, grid="exponential") for schedule in (SCALED, SCALED.exploding())]
    x = np.random.default_rng(1).standard_normal(SHAPE)
    noise = np.random.default_rng(2).standard_normal((max(plans[0].draws, 1), *SHAPE))
    first, second = (
        run_plan(plan, network, scale * x, noise=noise if plan.stochastic else None)
        for plan, scale in zip(plans, (plans[0].start[0], plans[1].start[0]))
    )
    np.testing.assert_allclose(first, second, rtol=1e-7, atol=1e-9)


SAME = [
    (("euler", {}), ("ddim", {})),
    (("euler", {"clip": 1.0}), ("ddim", {"clip": 1.0, "eps_from_limited_x0": True})),
    (("euler-ancestral", {}), ("ddim", {"eta": 1.0})),
    (("euler-ancestral", {"eta": 0.4}), ("ddim", {"eta": 0.4})),
    (("lms", {"order": 1}), ("euler", {})),
    (("kdpm2", {}), ("dpmsolver-singlestep", {"order": 2})),
    (("kdpm2-ancestral", {"eta": 0.0}), ("kdpm2", {})),
    (("heun-ancestral", {"eta": 0.0}), ("heun", {})),
    (("dpmsolver++2s-ancestral", {"eta": 0.0}), ("dpmsolver++singlestep", {"order": 2})),
    (("dpmsolver++sde", {"eta": 0.0}), ("dpmsolver++2s-ancestral", {"eta": 0.0})),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=str)
def test_names_of_the_same_thing_agree(one: tuple, other: tuple) -> None:
    results = []
    for name, options in (one, other):
        plan = compile_plan(name, SCALED, 8, grid="uniform", **options)
        x, noise = (np.random.default_rng(k).standard_normal(s) for k, s in ((3, SHAPE), (4, (8, *SHAPE))))
        results.append(run_plan(plan, network, x, noise=noise if plan.stochastic else None))
    np.testing.assert_allclose(*results, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("where", SCHEDULES)
@pytest.mark.parametrize("name", [*SAMPLERS, *ANCESTRAL])
def test_a_perfect_network_is_reproduced_without_noise(name: str, where: str) -> None:
    schedule, x0 = SCHEDULES[where], np.random.default_rng(6).uniform(-1, 1, SHAPE)

    def perfect(x: Array, t: Array) -> Array:
        alpha, sigma, scale = (float(f(t[0])) for f in (schedule.alpha, schedule.sigma, schedule.in_scale))
        return (x / scale - alpha * x0) / sigma

    for final in ("zero", "sigma_min"):
        grid = make_grid("karras", schedule, 6, final=final)
        plan = compile_plan(name, schedule, 6, grid=grid)
        start = grid.start.alpha[0] * x0 + grid.start.sigma[0] * np.ones(SHAPE)
        if not plan.stochastic:
            end = grid.last.alpha * x0 + grid.last.sigma * np.ones(SHAPE)
            np.testing.assert_allclose(run_plan(plan, perfect, start), end, rtol=1e-6, atol=1e-6)
        elif final == "zero":
            noise = np.random.default_rng(7).standard_normal((plan.draws, *SHAPE))
            np.testing.assert_allclose(run_plan(plan, perfect, start, noise=noise), x0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*SAMPLERS, *ANCESTRAL])
def test_x0_is_limited_at_every_call(name: str) -> None:
    plan = compile_plan(name, SCALED, 5, grid="karras", clip=0.5)
    assert plan.instructions == (Clip(0.5),)
    assert (plan.instruction[plan.out >= 0] == 0).all()
    noise = np.random.default_rng(8).standard_normal((max(plan.draws, 1), *SHAPE))
    x = run_plan(plan, lambda x, t: -9 * x, np.ones(SHAPE), noise=noise if plan.stochastic else None)
    np.testing.assert_allclose(np.abs(x).max(), 0.5, rtol=1e-12)


def test_calls_rows_and_slots() -> None:
    def size(name: str, **options: Any) -> tuple[int, int, int, int]:
        plan = compile_plan(name, SCALED, 10, grid="karras", **options)
        return plan.rows, plan.calls, plan.slots, plan.draws

    assert size("euler") == (10, 10, 1, 0)
    assert size("euler", s_churn=2.0) == (19, 10, 1, 9)
    assert size("heun") == (19, 19, 2, 0)
    assert size("kdpm2-ancestral") == (19, 19, 2, 9)
    assert size("dpmsolver++sde") == (19, 19, 2, 18)
    assert size("dpmsolver++sde", r=0.6) == (19, 19, 3, 18)
    assert [size("lms", order=order)[2] for order in (1, 2, 3, 4)] == [1, 2, 3, 4]


def shares(levels: list[Level]) -> list[float]:
    return [level.share for level in levels]


def test_noise_is_asked_for_with_the_interval_that_it_crosses() -> None:
    grid = make_grid("karras", SCALED, 5)
    here, there = list(grid.start), list(grid.end)
    for name in ANCESTRAL[:-1]:
        plan = compile_plan(name, SCALED, 5, grid=grid)
        np.testing.assert_allclose(plan.span[plan.noisy], np.transpose([shares(here[:-1]), shares(there[:-1])]))
    span = (plan := compile_plan("dpmsolver++sde", SCALED, 5, grid=grid)).span[plan.noisy]
    mid = [SCALED.level((a.lambda_ + b.lambda_) / 2) for a, b in zip(here[:-1], there[:-1])]
    np.testing.assert_allclose(span[0::2], np.transpose([shares(here[:-1]), shares(mid)]))
    np.testing.assert_allclose(span[1::2], np.transpose([shares(here[:-1]), shares(there[:-1])]))


def test_churn_is_a_row_of_its_own_that_raises_the_noise() -> None:
    grid = make_grid("karras", SCALED, 5)
    plan = compile_plan("euler", SCALED, 5, grid=grid, s_churn=1.0)
    assert (plan.out < 0).tolist() == [False] + 4 * [True, False]
    raised = plan.sigma[plan.out >= 0] / plan.alpha[plan.out >= 0] / grid.start.ratio
    np.testing.assert_allclose(raised, [1.0, 1.2, 1.2, 1.2, 1.2])  # never above the first level of the grid
    assert (plan.span[plan.noisy][:, 0] < plan.span[plan.noisy][:, 1]).all()
    close = compile_plan("euler", SCALED, 40, grid="karras", s_churn=40.0)
    noise = close.sigma[close.out >= 0] / close.alpha[close.out >= 0]
    np.testing.assert_allclose([noise.max(), noise[1]], noise[0])


def test_bounds_of_churn_are_met_by_levels_that_rounding_moved() -> None:
    for high in (80.0, 700.0, 13.0, 9.3):
        schedule = make_schedule("edm", sigma_max=high)
        grid = Grid.through_times(schedule, np.linspace(schedule.t_max, schedule.t_min, 5))
        ends = {
            "s_tmin": float(grid.start.sigma[2]) * (1 + 1e-12),
            "s_tmax": float(grid.start.sigma[1]) * (1 - 1e-12),
        }
        plan = compile_plan("euler", schedule, 4, grid=grid, prediction="edm", s_churn=0.4, **ends)
        assert (plan.out < 0).tolist() == [False, True, False, True, False, False]


@pytest.mark.parametrize("nodes", [[2.0], [2.0, 2.7], [2.0, 2.7, 4.0], [2.0, 2.7, 4.0, 4.1], [2.0, 9.0, 1.0, 0.5]])
def test_multistep_weights_integrate_the_polynomial_through_the_nodes(nodes: list[float]) -> None:
    for power in range(len(nodes)):
        exact = (0.3 ** (power + 1) - 2.0 ** (power + 1)) / (power + 1)
        found = np.dot(adams_bashforth(nodes, 0.3), np.array(nodes) ** power)
        assert found == pytest.approx(exact, rel=1e-12)


def compiled(name: str, schedule: NoiseSchedule = SCALED, steps: int = 6, **options: Any) -> StepPlan:
    return compile_plan(name, schedule, steps, **{"grid": "karras", **options})


def rising() -> Grid:
    times = np.linspace(SCALED.t_min, SCALED.t_max, 7)
    return Grid.through_times(SCALED, times)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: compiled("euler", s_churn=-1.0), "s_churn is out of range got: -1.0 expected: 0 or more"),
        (lambda: compiled("heun", s_noise=-0.5), "s_noise is out of range"),
        (lambda: compiled("heun", s_churn=1.0, s_tmin=2.0, s_tmax=1.0), "s_tmin is above s_tmax"),
        (lambda: compiled("kdpm2", s_churn=1.0, grid=rising()), "a grid whose noise rises takes no churn"),
        (lambda: compiled("euler-ancestral", eta=1.5), "eta is out of range got: 1.5 expected: 0 (no noise) to 1"),
        (lambda: compiled("dpmsolver++sde", s_noise=-1.0), "s_noise is out of range"),
        (lambda: compiled("dpmsolver++sde", r=0.0), "r is no way along the step"),
        (lambda: compiled("heun-ancestral", grid=rising()), "takes no steps of 'heun-ancestral' that add noise"),
        (lambda: compiled("lms", order=5), "order is out of range got: 5 expected: a whole number from 1 to 4"),
        (lambda: compiled("lms", steps=2, order=3), "order is beyond the steps"),
        (lambda: compiled("heun", clip=1.0, threshold=0.9), "clip and threshold exclude each other"),
        (lambda: compiled("euler", eta=1.0), "has an option of this name got: 'eta' expected: s_churn, s_tmin"),
        (lambda: compiled("kdpm2", s_tmax="high"), "s_tmax must be a finite number or None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_options_are_refused(call: Callable[[], StepPlan], text: str) -> None:
    with pytest.raises(OptionError) as error:
        call()
    assert text in " ".join(str(error.value).split())


@pytest.mark.parametrize("name", [*SAMPLERS, *ANCESTRAL])
def test_a_grid_that_starts_without_signal_is_refused(name: str) -> None:
    dark = make_schedule("scaled_linear", zero_snr=True)
    with pytest.raises(OptionError, match="infinite where no signal is left") as error:
        compile_plan(name, dark, 5, grid="trailing", prediction="v_prediction")
    assert "use solver 'ddim'" in str(error.value)


def test_a_stage_between_times_that_the_grid_does_not_know_is_refused() -> None:
    grid = Grid.at_ratios(np.array([5.0, 1.0]), np.array([800.0, 300.0]), 0.0)
    for name in ("kdpm2", "heun-ancestral", "dpmsolver++2s-ancestral", "dpmsolver++sde"):
        with pytest.raises(OptionError, match="calls the network between the grid's times"):
            compile_plan(name, SCALED, 2, grid=grid)
    assert compile_plan("heun", SCALED, 2, grid=grid).calls == 3


@pytest.mark.parametrize("name", SAMPLERS)
def test_encoding_and_sampling_undo_each_other(name: str) -> None:
    def eps(x: Array, t: Array) -> Array:
        return 0.3 * np.tanh(x)

    x = np.random.default_rng(9).uniform(-1, 1, SHAPE)
    start = float(SCALED.alpha(0.0)) * x
    times = np.linspace(0, 600, 301)
    latent = run_plan(compile_plan(name, SCALED, 300, grid=Grid.through_times(SCALED, times)), eps, start)
    back = run_plan(compile_plan(name, SCALED, 300, grid=Grid.through_times(SCALED, times[::-1])), eps, latent)
    np.testing.assert_allclose(back, start, atol=5e-3 if name == "euler" else 5e-5)
