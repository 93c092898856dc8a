"""Ladders of noise levels against formulas, scipy and diffusers; the AYS tables; the grids made of them."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmrt.errors import OptionError
from dpmrt.solvers_np import GRIDS, Grid, make_grid, make_schedule
from dpmrt.solvers_np.grids.ays import AYS_SIGMAS, AYS_TIMES, ays_sigmas
from dpmrt.solvers_np.grids.incomplete_beta import quantile
from dpmrt.solvers_np.grids.ladders import LADDERS, beta_fractions

LINEAR = make_schedule("linear")
LATENT = make_schedule("scaled_linear")
VP, EDM, FLOW = make_schedule("vp-linear"), make_schedule("edm"), make_schedule("flow", shift=3.0)

FORMULAS = {
    "karras": lambda u, high, low, rho=7.0: (high ** (1 / rho) * (1 - u) + low ** (1 / rho) * u) ** rho,
    "exponential": lambda u, high, low: high ** (1 - u) * low**u,
    "lu": lambda u, high, low: high ** (1 - u) * low**u,
    "polyexponential": lambda u, high, low, rho=1.0: low * (high / low) ** ((1 - u) ** rho),
}


@pytest.mark.parametrize("count", [2, 7, 50])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("karras", {}),
        ("karras", {"rho": 3.0}),
        ("exponential", {}),
        ("lu", {}),
        ("polyexponential", {}),
        ("polyexponential", {"rho": 2.5}),
    ],
)
def test_a_ladder_is_its_formula(name: str, options: dict[str, float], count: int) -> None:
    levels = LADDERS[name](80.0, 0.002, count, **options)
    expected = [FORMULAS[name](i / (count - 1), 80.0, 0.002, **options) for i in range(count)]
    np.testing.assert_allclose(levels, expected, rtol=1e-12)


@pytest.mark.parametrize("name", LADDERS)
def test_a_ladder_falls_and_has_its_ends(name: str) -> None:
    for count in (2, 3, 10, 100):
        levels = LADDERS[name](14.6, 0.03, count)
        assert levels.shape == (count,)
        assert (levels[0], levels[-1]) == (14.6, 0.03)
        assert (np.diff(levels) < 0).all()
    assert LADDERS[name](14.6, 0.03, 1).tolist() == [14.6]


SHAPE = st.floats(0.02, 10.0)


@given(p=st.floats(1e-6, 1 - 1e-6), a=SHAPE, b=SHAPE)
def test_the_quantile_is_scipy_s(p: float, a: float, b: float) -> None:
    special = pytest.importorskip("scipy.special")
    assert quantile(np.array([p]), a, b)[0] == pytest.approx(special.betaincinv(a, b, p), rel=0, abs=1e-11)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.02, 10.0), (10.0, 0.02), (10.0, 10.0), (1.0, 1.0), (0.5, 0.7)])
def test_the_quantiles_of_a_ladder_are_scipy_s(a: float, b: float) -> None:
    special = pytest.importorskip("scipy.special")
    p = 1 - np.linspace(0, 1, 101)
    np.testing.assert_allclose(quantile(p, a, b), special.betaincinv(a, b, p), rtol=0, atol=1e-12)
    assert beta_fractions(101, a, b)[[0, -1]].tolist() == [1.0, 0.0]


def test_beta_is_fast_enough_for_a_plan() -> None:
    quantile(1 - np.linspace(0, 1, 50), 0.6, 0.6)
    best = math.inf
    for _ in range(10):
        start = time.perf_counter()
        quantile(1 - np.linspace(0, 1, 50), 0.6, 0.6)
        best = min(best, time.perf_counter() - start)
    assert best < 0.005


SPACINGS = {
    "karras": "use_karras_sigmas",
    "exponential": "use_exponential_sigmas",
    "beta": "use_beta_sigmas",
    "lu": "use_lu_lambdas",
}


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("name", SPACINGS)
def test_the_grid_has_the_levels_of_diffusers(name: str, steps: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", **{SPACINGS[name]: True}, beta_start=0.00085, beta_end=0.012
    )
    theirs.set_timesteps(steps)
    grid = make_grid(name, LATENT, steps, round_times=True)
    np.testing.assert_allclose(grid.start.ratio, theirs.sigmas.numpy()[:-1], rtol=2e-5)
    if name in ("karras", "lu"):
        np.testing.assert_array_equal(grid.t, theirs.timesteps.numpy())
    else:
        # there diffusers rounds down, by a cast, and in float32 what is whole may lie below
        assert (np.abs(make_grid(name, LATENT, steps).t - 0.5 - theirs.timesteps.numpy()) <= 0.501).all()


@pytest.mark.parametrize("option", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
def test_the_levels_of_flow_are_sigmas(option: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(**{option: True})
    theirs.set_timesteps(9)
    grid = make_grid(option.split("_")[1], make_schedule("flow"), 9)
    np.testing.assert_allclose(grid.start.sigma, theirs.sigmas.numpy()[:-1], rtol=1e-5)
    np.testing.assert_allclose(grid.t, theirs.timesteps.numpy(), rtol=1e-5)


# Align Your Steps.


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_the_tables_are_the_latent_schedule_at_the_published_times(model: str) -> None:
    times = np.array(AYS_TIMES[model])
    ratios = LATENT.sigma(times) / LATENT.alpha(times)
    np.testing.assert_allclose(ays_sigmas(model, 10), ratios, rtol=2e-7)
    grid = make_grid("ays", LATENT, 10, model=model, round_times=True)
    np.testing.assert_array_equal(grid.t, times[:-1])
    assert grid.last.sigma == 0.0


def test_the_tables_are_those_of_diffusers() -> None:
    tables = pytest.importorskip("diffusers.schedulers.scheduling_utils").AysSchedules
    assert list(AYS_TIMES["sd15"][:-1]) == tables["StableDiffusionTimesteps"]
    assert list(AYS_TIMES["sdxl"][:-1]) == tables["StableDiffusionXLTimesteps"]
    assert list(AYS_SIGMAS["svd"][:-1]) == tables["StableDiffusionVideoSigmas"][:-1]
    for model, name in (("sd15", ""), ("sdxl", "XL")):
        # theirs are the levels from before the times were made whole
        theirs = np.minimum(tables[f"StableDiffusion{name}Sigmas"][:-1], AYS_SIGMAS[model][0])
        np.testing.assert_allclose(LATENT.t_of_lambda(-np.log(theirs)), AYS_TIMES[model][:-1], atol=0.6)


@given(model=st.sampled_from(sorted(AYS_SIGMAS)), steps=st.integers(1, 60))
def test_other_step_counts_interpolate_the_logarithm(model: str, steps: int) -> None:
    table = np.array(AYS_SIGMAS[model])
    levels = ays_sigmas(model, steps)
    assert levels.shape == (steps + 1,)
    assert (np.diff(levels) < 0).all()
    assert (levels[0], levels[-1]) == (table[0], table[-1])
    for i, level in enumerate(levels):
        below = min(i * 10 // steps, 9)
        part = i * 10 / steps - below
        expected = table[below] ** (1 - part) * table[below + 1] ** part
        assert level == pytest.approx(expected, rel=1e-12)
    if steps % 10 == 0:
        np.testing.assert_array_equal(levels[:: steps // 10], table)


def test_the_video_table_needs_its_noise() -> None:
    grid = make_grid("ays", make_schedule("edm", sigma_max=700.0), 10, model="svd", final="sigma_min")
    np.testing.assert_allclose(grid.start.sigma, AYS_SIGMAS["svd"][:-1], rtol=1e-12)
    assert grid.last.sigma == pytest.approx(0.002)


# Grids.


def same(one: Grid, other: Grid) -> None:
    for name in ("start", "end"):
        for field in dataclasses.fields(getattr(one, name)):
            mine, theirs = (getattr(getattr(grid, name), field.name) for grid in (one, other))
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


LADDER_GRIDS = ("karras", "exponential", "polyexponential", "lu", "beta")


@pytest.mark.parametrize("schedule", [LINEAR, VP, EDM, LINEAR.exploding(), FLOW], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", LADDER_GRIDS)
def test_a_ladder_spans_every_schedule(name: str, final: str, schedule: Any) -> None:
    grid = make_grid(name, schedule, 6, final=final)
    assert len(grid) == 6
    first, last = (schedule.t_max, schedule.t_min)
    assert grid.t[0] == pytest.approx(first, rel=1e-9)
    lowest = grid.t[-1] if final == "zero" else grid.last.t
    assert lowest == pytest.approx(last, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(grid.start.alpha, schedule.alpha(grid.t), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(grid.start.sigma, schedule.sigma(grid.t), rtol=1e-9)
    np.testing.assert_allclose(grid.start.in_scale, schedule.in_scale(grid.t), rtol=1e-9, atol=1e-12)


def test_beta_over_time_is_the_paper_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    grid = make_grid("beta", LINEAR, 8, over="time", alpha=0.5, beta=0.9)
    np.testing.assert_allclose(grid.t, 999 * stats.beta.ppf(1 - np.linspace(0, 1, 8), 0.5, 0.9), atol=1e-9)
    rounded = make_grid("beta", LINEAR, 8, over="time", alpha=0.5, beta=0.9, round_times=True)
    np.testing.assert_array_equal(rounded.t, grid.t.round())
    np.testing.assert_array_equal(rounded.start.sigma, LINEAR.sigma(rounded.t))


def test_one_s_own_times_and_sigmas() -> None:
    times = [900.0, 500.5, 3.0]
    grid = make_grid("times", LINEAR, 3, times=times)
    assert grid.t.tolist() == times
    ratios = (LINEAR.sigma(times) / LINEAR.alpha(times)).tolist()
    same(make_grid("sigmas", LINEAR, 3, sigmas=ratios), grid)
    same(make_grid("sigmas", LINEAR, 3, sigmas=np.array([*ratios, 0.0])), grid)
    ending = make_grid("sigmas", LINEAR, 2, sigmas=ratios)
    same(ending, Grid.through_times(LINEAR, np.array(times)))
    flow = make_grid("sigmas", FLOW, 3, sigmas=[1.0, 0.7, 0.2])
    assert flow.t == pytest.approx([1000.0, 700.0, 200.0])
    assert flow.start.alpha == pytest.approx([0.0, 0.3, 0.8])


def test_flow_samples_as_diffusers_does() -> None:
    grid = make_grid("uniform", FLOW, 4, final="zero")
    u = np.linspace(1, 0.001, 4)
    np.testing.assert_allclose(grid.t, 1000 * 3 * u / (1 + 2 * u), rtol=1e-9)
    assert grid.last.sigma == 0.0


GIVEN: dict[str, dict[str, Any]] = {
    "times": {"times": np.linspace(990, 9, 10)},
    "sigmas": {"sigmas": np.geomspace(9, 1, 10)},
}


@pytest.mark.parametrize("name", GRIDS)
def test_strength_keeps_the_last_steps(name: str) -> None:
    whole = make_grid(name, LINEAR, 10, **GIVEN.get(name, {}))
    for strength, kept in ((1.0, 10), (0.75, 7), (0.3, 3), (0.1, 1)):
        part = make_grid(name, LINEAR, 10, strength=strength, **GIVEN.get(name, {}))
        assert len(part) == kept
        np.testing.assert_array_equal(part.t, whole.t[10 - kept :])
        np.testing.assert_array_equal(part.end.sigma, whole.end.sigma[10 - kept :])


def test_discrete_grids_serve_the_exploding_view() -> None:
    view = LINEAR.exploding()
    for name in ("linspace", "leading", "trailing"):
        grid, plain = make_grid(name, view, 5), make_grid(name, LINEAR, 5)
        np.testing.assert_array_equal(grid.t, plain.t)
        np.testing.assert_allclose(grid.start.sigma, plain.start.ratio, rtol=1e-15)
        np.testing.assert_array_equal(grid.start.in_scale, plain.start.alpha)


ERRORS = [
    (lambda: LADDERS["karras"](1.0, 2.0, 5), r"no room between them\n.*from 1 down to 2\n.*0 < low < high"),
    (lambda: LADDERS["exponential"](math.inf, 2.0, 5), "no room between them"),
    (lambda: LADDERS["beta"](math.nan, 2.0, 5), "no room between them"),
    (lambda: LADDERS["karras"](2.0, 1.0, 5, rho=-1.0), r"rho must be positive\n.*-1.0"),
    (lambda: make_grid("beta", LINEAR, 5, alpha=0.0), r"alpha is out of range\n.*0.0\n.*0.02 to 10"),
    (lambda: make_grid("beta", LINEAR, 5, beta=11.0), r"beta is out of range\n.*11.0"),
    (lambda: make_grid("beta", LINEAR, 5, over="u"), r"over has a value .*\n.*'u'\n.*'sigma', 'time'"),
    (lambda: ays_sigmas("sd2", 10), r"model has a value that is not possible\n.*'sd2'\n.*'sd15', 'sdxl', 'svd'"),
    (
        lambda: make_grid("ays", EDM, 10, model="svd"),
        r"the table 'svd' reaches outside .*\n.*'edm', from 80\D(.|\n)*sigma_max=700",
    ),
    (lambda: make_grid("times", LINEAR, 3, times=[1.0]), r"steps and times disagree\n.*steps=3, 1 times"),
    (lambda: make_grid("times", LINEAR, 3), r"steps and times disagree\n.*steps=3, 0 times"),
    (lambda: make_grid("times", LINEAR, 2, times=[1.0, 5.0]), "the noise does not fall"),
    (lambda: make_grid("times", LINEAR, 1, times=[1000.0]), "a time is outside the schedule"),
    (lambda: make_grid("times", LINEAR, 1, times=[math.nan]), r"times must be a row of finite numbers"),
    (lambda: make_grid("times", LINEAR, 1, times="ab"), r"times must be a row of finite numbers\n.*'ab'"),
    (lambda: make_grid("sigmas", LINEAR, 5, sigmas=[3.0]), r"steps and sigmas disagree\n.*steps=5, 1 sigmas"),
    (
        lambda: make_grid("sigmas", LINEAR, 2, sigmas=[3.0, 0.0]),
        r"a noise level is out of range\n.*0.0\]\n.*0 < sigma",
    ),
    (lambda: make_grid("sigmas", FLOW, 1, sigmas=[1.5]), r"a noise level is out of range\n.*1.5\]\n.*0 < sigma <= 1"),
    (lambda: make_grid("sigmas", LINEAR, 2, sigmas=[1.0, 3.0]), "the noise does not fall"),
    (lambda: make_grid("sigmas", LINEAR, 1, sigmas=[1e6]), "a lambda is outside the schedule"),
    (
        lambda: make_grid("karras", VP, 5, round_times=True),
        r"round_times needs a schedule with training steps\n.*vp-li",
    ),
    (lambda: make_grid("lu", make_schedule("linear", zero_snr=True), 5), r"needs some signal at the last training"),
    (lambda: make_grid("trailing", FLOW, 5), r"'trailing' needs a schedule with training steps\n.*'flow'"),
    (lambda: make_grid("quadratic", EDM, 5), r"'quadratic' needs times that are not negative"),
    (lambda: make_grid("trailing", LINEAR, 5, strength=0.0), r"strength is out of range\n.*0.0\n.*0 < strength <= 1"),
    (lambda: make_grid("karras", LINEAR, 5, strength=1.1), r"strength is out of range\n.*1.1"),
    (lambda: make_grid("karras", LINEAR, 5, strength=0.1), r"strength leaves no step\n.*0.1 of 5 steps"),
]


@pytest.mark.parametrize(("call", "text"), ERRORS)
def test_a_wrong_request_is_refused(call: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        call()
