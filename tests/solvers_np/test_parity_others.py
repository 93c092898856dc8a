"""DDIMInverseScheduler, ScoreSdeVeScheduler and DDPMScheduler's rarer keys, and the solvers behind them."""

from __future__ import annotations

import importlib
import itertools
import math
import random
import unittest.mock
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from problems import BIMODAL, GAUSSIANS, QUANTILES, encoding, network
from trajectories import SHAPE, Config, drawn, states_of, worst

from dpmrt.errors import OptionError
from dpmrt.solvers_np import SOLVERS, compile_plan, make_noise, make_schedule, plan_from_diffusers, run_plan
from dpmrt.solvers_np.compile import reproduces
from dpmrt.solvers_np.grids.named import make_grid

INVERSE, DDPM, SDE_VE = "DDIMInverseScheduler", "DDPMScheduler", "ScoreSdeVeScheduler"
SCHEDULE = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTION = ("epsilon", "sample", "v_prediction")


# Encoding with DDIM.


@pytest.mark.parametrize("prediction", PREDICTION)
@pytest.mark.parametrize("schedule", SCHEDULE)
def test_ddim_inverse(check: Callable, schedule: str, prediction: str) -> None:
    choice = random.Random(schedule + prediction).choice
    for spacing, one, clip in itertools.product(("leading", "trailing"), (True, False), (True, False)):
        config = {
            "_class_name": INVERSE,
            "beta_schedule": schedule,
            "prediction_type": prediction,
            "timestep_spacing": spacing,
            "set_alpha_to_one": one and prediction != "sample",  # there diffusers divides by zero
            "clip_sample": clip,
            "clip_sample_range": choice((1.0, 1.7)),
            "steps_offset": choice((0, 1)),
            "rescale_betas_zero_snr": False,
        }
        for steps in (choice((1, 2, 3)), choice((10, 20, 50))):
            check(config, steps, single=1e-5)


@st.composite
def inverse_configurations(draw: st.DrawFn) -> Config:
    flag, pick = st.booleans(), st.sampled_from
    config = {
        "_class_name": INVERSE,
        "num_train_timesteps": draw(st.integers(20, 1200)),
        "beta_schedule": draw(pick(SCHEDULE)),
        "beta_start": draw(st.floats(1e-5, 1e-3)),
        "beta_end": draw(st.floats(2e-3, 0.05)),
        "prediction_type": draw(pick(PREDICTION)),
        "timestep_spacing": draw(pick(["leading", "trailing"])),
        "steps_offset": draw(st.integers(0, 2)),
        "clip_sample": draw(flag),
        "clip_sample_range": draw(st.floats(0.5, 3.0)),
    }
    return config | {"set_alpha_to_one": config["prediction_type"] != "sample" and draw(flag)}


@given(config=inverse_configurations(), steps=st.integers(1, 60))
def test_drawn_inverse_configurations(peer: Any, check: Callable, config: Config, steps: int) -> None:
    total = config["num_train_timesteps"]
    assume(steps <= total // 2)
    times = peer.scheduler(config, steps).timesteps
    assume(times.min() >= 0 and times.max() < total)
    check(config, steps)


def test_ddim_inverse_ends_where_sampling_starts() -> None:
    scaled = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
    plan = plan_from_diffusers({"_class_name": INVERSE, **scaled, "timestep_spacing": "trailing"}, 20)
    back = plan_from_diffusers({"_class_name": "DDIMScheduler", **scaled, "timestep_spacing": "trailing"}, 20)
    assert plan.start == (1.0, 0.0)
    assert plan.end == pytest.approx(back.start)
    assert (np.diff(plan.sigma) > 0).all()
    assert plan.timesteps.tolist() == back.timesteps.tolist()[::-1]
    assert plan.draws == 0


def test_a_first_step_from_time_0_to_time_0_clips_and_else_changes_nothing() -> None:
    config = {"_class_name": INVERSE, "set_alpha_to_one": False, "steps_offset": 0, "clip_sample": False}
    plan = plan_from_diffusers(config, 10)
    x, first = np.full(SHAPE, 3.0), []
    run_plan(plan, lambda x, t: np.sin(x), x, callback=lambda event: first.append(event.x.copy()))
    np.testing.assert_allclose(first[0], x, rtol=1e-9)
    assert plan.calls == 10


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_what_is_encoded_is_decoded_again(prediction: str) -> None:
    schedule = make_schedule("vp-linear")
    model, x = network(BIMODAL, schedule, prediction), BIMODAL.at(QUANTILES, schedule.level(2.0))
    missed = []
    for steps in (40, 80, 160):
        grid = make_grid("logsnr", schedule, steps, t_start=0.6, t_end=float(schedule.t_of_lambda(2.0)))
        there = run_plan(compile_plan("ddim", schedule, steps, grid=encoding(grid), prediction=prediction), model, x)
        back = run_plan(compile_plan("ddim", schedule, steps, grid=grid, prediction=prediction), model, there)
        missed.append(float(np.abs(back - x).max()))
    assert missed[-1] < 0.02
    assert np.log2(np.array(missed[:-1]) / missed[1:]) == pytest.approx([1.0, 1.0], abs=0.15)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"timestep_spacing": "linspace"}, r"timestep_spacing has a value .*'linspace'"),
        ({"prediction_type": "sample"}, r"eps cannot be had from a network that predicts 'sample'"),
        ({"eta": 1.0}, r"no key of this name here\n.*eta = 1.0"),
        ({"thresholding": True}, r"no key of this name here\n.*thresholding"),
        ({"clip_sample_range": -1.0}, r"clip must be a positive limit"),
        ({"steps_offset": 101}, r"the spacing leaves the training times"),
    ],
)
def test_inverse_configurations_refused(keys: Config, text: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){text}"):
        plan_from_diffusers({"_class_name": INVERSE, **keys}, 10)


@pytest.mark.parametrize(
    ("solver", "options", "text"),
    [
        ("ddim", {"eta": 0.5}, r"a grid whose noise rises takes no eta\n.*eta=0.5"),
        ("ddpm", {}, r"solver 'ddpm' adds noise of its own, so it cannot encode"),
        ("lcm", {}, r"solver 'lcm' adds noise of its own"),
        ("tcd", {"gamma": 0.5}, r"solver 'tcd' adds noise of its own"),
        ("reverse-diffusion", {}, r"'reverse-diffusion' adds noise of its own.*\n.*\n.*\n.*'ddim'"),
        ("flow-euler", {"stochastic": True}, r"a grid whose noise rises takes no stochastic steps"),
    ],
)
def test_noise_is_refused_where_a_sample_is_encoded(solver: str, options: Config, text: str) -> None:
    schedule = make_schedule("linear")
    grid = encoding(make_grid("uniform", schedule, 4))
    with pytest.raises(OptionError, match=f"(?s){text}"):
        compile_plan(solver, schedule, 4, grid=grid, **options)


# DDPM's rarer keys.


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log", "fixed_large"])
@pytest.mark.parametrize("schedule", ["sigmoid", "laplace"])
def test_ddpm_beta_schedules_of_its_own(check: Callable, schedule: str, variance: str) -> None:
    for steps, spacing in itertools.product((1, 5, 30), ("leading", "trailing", "linspace")):
        config = {"_class_name": DDPM, "beta_schedule": schedule, "timestep_spacing": spacing}
        check({**config, "variance_type": variance}, steps)


@pytest.mark.parametrize("times", [[999, 500, 0], [998, 997, 996, 12], [40]])
def test_ddpm_listed_times(check: Callable, times: list[int]) -> None:
    for variance in ("fixed_small", "fixed_large"):
        config = {"_class_name": DDPM, "timesteps": times, "variance_type": variance}
        check(config, len(times))


# The variance-exploding SDE.


def predicted(peer: Any, config: Config, steps: int, data: tuple[np.ndarray, ...]) -> tuple[list, np.ndarray, float]:
    """Return diffusers' states, the last of them the mean, what its pipeline tells the network, and the scale.

    Each step is corrected `correct_steps` times first, as in ScoreSdeVePipeline.
    """
    x, outputs, noise = data
    torch, double = peer.torch, x.dtype == np.float64
    scheduler = peer.scheduler(config, double=double)
    module = importlib.import_module(type(scheduler).__module__)
    state, states = torch.from_numpy(x), []
    with peer.float64(scheduler, double):
        scheduler.set_timesteps(steps)
        scheduler.set_sigmas(steps)
        for t in scheduler.timesteps:
            for correct in [*[True] * config["correct_steps"], False]:
                i = len(states)
                z, output = torch.from_numpy(noise[i]), torch.from_numpy(outputs[i])
                with unittest.mock.patch.object(module, "randn_tensor", lambda *a, z=z, **k: z):
                    if correct:
                        state = scheduler.step_correct(output, state).prev_sample
                    else:
                        found = scheduler.step_pred(output, t, state)
                        state = found.prev_sample
                states.append((state if i < len(outputs) - 1 else found.prev_sample_mean).numpy().copy())
    return states, scheduler.sigmas.numpy().repeat(1 + config["correct_steps"]), scheduler.init_noise_sigma


def assert_sde_ve(peer: Any, config: Config, steps: int, single: float = math.inf) -> None:
    config = {"_class_name": SDE_VE, "correct_steps": 0, **config}
    plan = plan_from_diffusers(config, steps)
    x, outputs, noise = drawn(plan)
    data = (plan.init_scale * x, outputs / plan.sigma.reshape(-1, 1, 1, 1, 1), noise)
    narrow = tuple(a.astype(np.float32) for a in data)
    states, asked, scale = predicted(peer, config, steps, data)
    reproduce = f"reproduce with steps={steps}, config={config}"
    np.testing.assert_allclose(plan.timesteps, asked, rtol=1e-12, err_msg=reproduce)
    assert plan.init_scale == scale
    assert worst(states_of(plan, *data), states) < 1e-9, reproduce
    assert worst(states_of(plan, *narrow), states) < 5e-6, reproduce
    assert worst(states_of(plan, *narrow), predicted(peer, config, steps, narrow)[0]) < single, reproduce


@pytest.mark.parametrize("correct_steps", [0, 1, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("ends", [(0.01, 1348.0), (0.01, 50.0), (0.2, 3.0)])
def test_sde_ve(peer: Any, ends: tuple[float, float], steps: int, correct_steps: int) -> None:
    # above a few steps diffusers' float32 table of sigmas decides the last digits of their differences
    single = 1e-5 if steps < 20 else 1e-4
    config = {"sigma_min": ends[0], "sigma_max": ends[1], "correct_steps": correct_steps}
    assert_sde_ve(peer, config, steps, single)


@given(
    low=st.floats(1e-3, 1.0),
    high=st.floats(2.0, 2000.0),
    eps=st.sampled_from([1e-5, 1e-3]),
    steps=st.integers(1, 60),
    correct_steps=st.integers(0, 2),
    snr=st.floats(0.01, 0.6),
)
def test_drawn_sde_ve(
    peer: Any, low: float, high: float, eps: float, steps: int, correct_steps: int, snr: float
) -> None:
    config = {"sigma_min": low, "sigma_max": high, "sampling_eps": eps, "correct_steps": correct_steps, "snr": snr}
    assert_sde_ve(peer, config, steps)


def test_sde_ve_corrects_by_default_and_refuses_what_it_cannot_do() -> None:
    assert plan_from_diffusers({"_class_name": SDE_VE}, 10).calls == 20
    for keys, text in (
        ({"correct_steps": -1}, "correct_steps is out of range"),
        ({"correct_steps": 0.5}, "correct_steps is out of range"),
        ({"snr": 0.0}, "snr must be positive"),
    ):
        with pytest.raises(OptionError, match=text):
            plan_from_diffusers({"_class_name": SDE_VE, **keys}, 10)
    with pytest.raises(OptionError, match=r"no key of this name here\n.*clip_sample"):
        plan_from_diffusers({"_class_name": SDE_VE, "correct_steps": 0, "clip_sample": True}, 10)


def test_reverse_diffusion_where_variance_explodes_leads_to_x0() -> None:
    schedule = make_schedule("ve")
    for steps in (1, 3, 10):
        plan = compile_plan("reverse-diffusion", schedule, steps, grid="uniform", prediction="score")
        reproduces(plan, "score")
        assert plan.draws == steps - 1
        sigma = np.append(plan.sigma, plan.end[1])
        np.testing.assert_allclose(plan.noise[:-1], np.sqrt(sigma[:-2] ** 2 - sigma[1:-1] ** 2))
        np.testing.assert_allclose(plan.weights[:, 0], 1.0)
    assert compile_plan("reverse-diffusion", schedule, 3, grid="uniform", noise_at_end=True).draws == 3


def test_reverse_diffusion_where_variance_is_preserved_has_the_paper_s_weights() -> None:
    schedule = make_schedule("linear")
    grid = make_grid("uniform", schedule, 999)
    plan = SOLVERS["reverse-diffusion"](grid, "score")
    beta = 1 - schedule.alphas_cumprod[:0:-1] / schedule.alphas_cumprod[-2::-1]
    np.testing.assert_allclose(plan.weights[:, 0], 2 - np.sqrt(1 - beta), rtol=1e-9)
    np.testing.assert_allclose(plan.weights[:, 1] * plan.convert[:, 1], beta, rtol=1e-9)
    np.testing.assert_allclose(plan.noise[:-1], np.sqrt(beta[:-1]), rtol=1e-9)


def test_reverse_diffusion_draws_the_data() -> None:
    """Many steps, sampled: the mean and the spread of what comes out are the data's."""
    schedule = make_schedule("ve", sigma_max=20.0)
    plan = compile_plan("reverse-diffusion", schedule, 150, grid="uniform", prediction="score")
    x = plan.init_scale * np.random.default_rng(0).standard_normal((4000, 3))
    end = run_plan(plan, network(GAUSSIANS, schedule, "score"), x, noise=make_noise("numpy", 1))
    np.testing.assert_allclose(end.mean(0), GAUSSIANS.mean[:, 0], atol=0.15)
    np.testing.assert_allclose(end.std(0), GAUSSIANS.spread[:, 0], rtol=0.1)
