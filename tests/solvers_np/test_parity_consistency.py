"""LCMScheduler and TCDScheduler against diffusers: which times are chosen, and the state after every step."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trajectories import Config

from dpmrt.errors import OptionError
from dpmrt.solvers_np import compile_plan, make_schedule, plan_from_diffusers, run_plan

CLASSES = ("LCMScheduler", "TCDScheduler")
SCHEDULE = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTION = ("epsilon", "sample", "v_prediction")


@pytest.mark.parametrize("prediction", PREDICTION)
@pytest.mark.parametrize("schedule", SCHEDULE)
def test_lcm(check: Callable, schedule: str, prediction: str) -> None:
    choice = random.Random(schedule + prediction).choice
    for steps, limit, zero_snr in itertools.product((1, 2, 4, 8), ("none", "clip", "threshold"), (False, True)):
        config = {
            "_class_name": "LCMScheduler",
            "beta_schedule": schedule,
            "prediction_type": prediction,
            "rescale_betas_zero_snr": zero_snr and prediction != "epsilon" and schedule != "squaredcos_cap_v2",
            "clip_sample": limit == "clip",
            "clip_sample_range": choice((1.0, 1.7)),
            "thresholding": limit == "threshold",
            "sample_max_value": choice((1.0, 2.5)),
            "original_inference_steps": choice((50, 30, 100)),
            "strength": choice((1.0, 0.6)),
            "timestep_scaling": choice((10.0, 0.01, 1.0)),
            "set_alpha_to_one": choice((True, False)),
            "steps_offset": choice((0, 1)),
            "timestep_spacing": choice(("leading", "trailing")),
        }
        check(config, steps)


@pytest.mark.parametrize("prediction", PREDICTION)
@pytest.mark.parametrize("schedule", SCHEDULE)
def test_tcd(check: Callable, schedule: str, prediction: str) -> None:
    choice = random.Random(schedule + prediction).choice
    for steps, eta in itertools.product((1, 2, 4, 8, 20), (0.0, 0.3, 0.71, 1.0)):
        config = {
            "_class_name": "TCDScheduler",
            "beta_schedule": schedule,
            "prediction_type": prediction,
            "original_inference_steps": choice((50, 30, 100)),
            "strength": choice((1.0, 0.7)),
            "eta": eta,
            "clip_sample": choice((True, False)),
            "thresholding": choice((True, False)),
            "set_alpha_to_one": choice((True, False)),
        }
        check(config, steps)


@pytest.mark.parametrize("name", CLASSES)
def test_the_times_of_every_strength_and_number_of_original_steps(peer: Any, name: str) -> None:
    compared = 0
    for original, strength in itertools.product((1, 4, 10, 37, 50, 333, 1000), (1.0, 0.95, 0.5, 0.3, 0.011)):
        for steps in (1, 2, 3, 4, 7, 8, 25, 50):
            config = {"_class_name": name, "original_inference_steps": original}
            try:
                theirs = peer.scheduler({**config, "strength": strength}, steps).timesteps.tolist()
            except (ValueError, IndexError):
                with pytest.raises(OptionError, match=r"more steps than original_inference_steps x strength"):
                    plan_from_diffusers(config, steps, strength=strength)
                continue
            assert plan_from_diffusers(config, steps, strength=strength).timesteps.tolist() == theirs
            compared += 1
    assert compared > 100


@st.composite
def configurations(draw: st.DrawFn) -> tuple[Config, int]:
    flag, pick = st.booleans(), st.sampled_from
    total = draw(st.integers(30, 1200))
    config = {
        "_class_name": draw(pick(CLASSES)),
        "num_train_timesteps": total,
        "beta_schedule": draw(pick(SCHEDULE)),
        "beta_start": draw(st.floats(1e-5, 1e-3)),
        "beta_end": draw(st.floats(2e-3, 0.05)),
        "prediction_type": draw(pick(PREDICTION)),
        "original_inference_steps": draw(st.integers(1, min(total, 100))),
        "strength": draw(st.floats(0.2, 1.0)),
        "thresholding": draw(flag),
        "dynamic_thresholding_ratio": draw(st.floats(0.5, 1.0)),
        "sample_max_value": draw(st.floats(1.0, 4.0)),
        "clip_sample": draw(flag),
        "clip_sample_range": draw(st.floats(0.5, 3.0)),
        "timestep_scaling": draw(st.floats(0.001, 20.0)),
    }
    if config["_class_name"] == "TCDScheduler":
        config["eta"] = draw(st.floats(0, 1))
    return config, draw(st.integers(1, 20))


@given(drawn=configurations())
def test_drawn_configurations(check: Callable, drawn: tuple[Config, int]) -> None:
    config, steps = drawn
    assume(steps <= int(config["original_inference_steps"] * config["strength"]))
    check(config, steps)


@pytest.mark.parametrize("name", CLASSES)
def test_listed_times(check: Callable, name: str) -> None:
    config = {"_class_name": name, "timesteps": [999, 700, 333, 12]}
    check(config, 4)
    assert plan_from_diffusers(config, 4).timesteps.tolist() == [999, 700, 333, 12]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("prediction", PREDICTION)
def test_common_configurations_in_float32(check: Callable, name: str, prediction: str) -> None:
    for steps in (1, 4, 8):
        check({"_class_name": name, "prediction_type": prediction}, steps, single=1e-5)


@pytest.mark.parametrize(
    ("name", "steps", "keys", "text"),
    [
        ("LCMScheduler", 60, {}, r"more steps than original_inference_steps x strength\n.*steps=60.*\n.*1 to 50"),
        ("LCMScheduler", 4, {"strength": 0.0}, r"strength is out of range\n.*0.0"),
        ("LCMScheduler", 2, {"timesteps": [9, 5], "strength": 0.5}, r"timesteps and strength exclude each other"),
        ("LCMScheduler", 2, {"timesteps": [9, 9]}, r"timesteps must fall"),
        ("LCMScheduler", 2, {"timesteps": [1000, 9]}, r"timesteps must be whole training times\n.*\n.*0 to 999"),
        ("TCDScheduler", 2, {"timesteps": [9.5, 5]}, r"timesteps must be whole training times"),
        ("TCDScheduler", 3, {"timesteps": [9, 5]}, r"timesteps must be a row of finite numbers\n.*\n.*3 numbers"),
        ("TCDScheduler", 4, {"eta": 1.2}, r"eta is out of range\n.*1.2\n.*0 \(no noise\)"),
        ("LCMScheduler", 4, {"eta": 0.2}, r"no key of this name here\n.*eta = 0.2"),
        ("LCMScheduler", 4, {"timestep_scaling": 0.0}, r"timestep_scaling must be positive"),
        ("LCMScheduler", 4, {"rescale_betas_zero_snr": True}, r"x0 cannot be had from a network that predicts"),
    ],
)
def test_refused(name: str, steps: int, keys: Config, text: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){text}"):
        plan_from_diffusers({"_class_name": name, **keys}, steps)


# The solvers themselves, on schedules of our own.


def test_lcm_forgets_its_start_but_for_what_the_boundary_lets_through() -> None:
    plan = compile_plan("lcm", "scaled_linear", 4, prediction="sample")
    assert plan.weights[:, 0] == pytest.approx(0.0, abs=1e-7)
    np.testing.assert_allclose(plan.noise[:-1], plan.sigma[1:])
    assert plan.noise[-1] == 0
    boundary = compile_plan("lcm", "scaled_linear", 4, prediction="sample", timestep_scaling=1e-9)
    assert boundary.weights[-1, 0] == pytest.approx(1.0)  # at time 0 a consistency function changes nothing


def test_lcm_at_unit_scaling_has_the_weights_of_its_paper() -> None:
    plan = compile_plan("lcm", "linear", 2, prediction="sample", sigma_data=3.0, timestep_scaling=0.01)
    s = 0.01 * plan.t[1]
    state, x0 = plan.weights[1, 0], plan.weights[1, 1:].sum()
    assert (state, x0) == pytest.approx((9 / (s**2 + 9), s / np.sqrt(s**2 + 9)))


def test_tcd_without_gamma_is_ddim_and_with_it_keeps_every_level() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5))

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.tanh(x)

    plain = compile_plan("tcd", "linear", 7, gamma=0.0)
    assert plain.draws == 0
    np.testing.assert_allclose(run_plan(plain, model, x), run_plan(compile_plan("ddim", "linear", 7), model, x))
    for schedule in ("linear", "vp-linear", "flow"):
        kind = make_schedule(schedule)
        grid = "trailing" if schedule == "linear" else "uniform"
        previous = 0.0
        for gamma in (0.1, 0.5, 1.0):
            plan = compile_plan("tcd", kind, 5, gamma=gamma, grid=grid, prediction="sample")
            alpha, sigma = plan.alpha[1:], plan.sigma[1:]
            eps = plan.weights[:-1, 0] * plan.sigma[:-1]  # what is left of the noise in the state
            np.testing.assert_allclose(eps**2 + plan.noise[:-1] ** 2, sigma**2, rtol=1e-12)
            assert (plan.noise[:-1] / alpha).min() > previous
            previous = float((plan.noise[:-1] / alpha).min())


def test_tcd_turns_at_the_paper_s_time() -> None:
    schedule = make_schedule("linear")
    plan = compile_plan("tcd", schedule, 4, gamma=0.25, prediction="sample")
    left = plan.weights[:-1, 0] * plan.sigma[:-1] / plan.alpha[1:]  # the noise that is kept, over the data
    turns = 0.75 * plan.t[1:]
    np.testing.assert_allclose(left, schedule.sigma(turns) / schedule.alpha(turns))


@pytest.mark.parametrize(
    ("solver", "schedule", "options", "text"),
    [
        ("tcd", "linear", {"gamma": 1.5}, r"gamma is out of range\n.*1.5"),
        (
            "tcd",
            "edm",
            {"grid": "uniform", "prediction": "edm"},
            r"counts from where no noise is\n.*'edm'",
        ),
        ("lcm", "linear", {"sigma_data": 0.0}, r"sigma_data must be positive"),
        ("lcm", "linear", {"gamma": 0.1}, r"'gamma'"),
    ],
)
def test_options_refused(solver: str, schedule: str, options: Config, text: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){text}"):
        compile_plan(solver, schedule, 4, **options)
