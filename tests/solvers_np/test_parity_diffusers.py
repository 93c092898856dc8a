"""Plans against diffusers' schedulers: the same times, and the same state after every step.

Both sides get the same network outputs and the same noise. diffusers is run twice: widened to float64, where
nothing but a formula can make a difference, and as it is, in float32.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from trajectories import SHAPE, Config, our_table

from dpmrt.errors import OptionError
from dpmrt.solvers_np import plan_from_diffusers, run_plan, schedule_from_diffusers

STEPS = (1, 2, 3, 5, 10, 14, 15, 20, 50)
SCHEDULE = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTION = ("epsilon", "sample", "v_prediction")
SPACING = ("linspace", "leading", "trailing")
DPM_CLASS = "DPMSolverMultistepScheduler"
DPM = [
    *((name, "sigma_min", order) for name in ("dpmsolver", "dpmsolver++") for order in (1, 2, 3)),
    *(("dpmsolver++", "zero", order) for order in (1, 2, 3)),
    *(("sde-dpmsolver", "sigma_min", order) for order in (1, 2)),
    *(("sde-dpmsolver++", final, order) for final in ("zero", "sigma_min") for order in (1, 2)),
]


def bases() -> Iterator[Config]:
    for schedule, prediction, spacing in itertools.product(SCHEDULE, PREDICTION, SPACING):
        yield {"beta_schedule": schedule, "prediction_type": prediction, "timestep_spacing": spacing}


def ends_in_a_step_of_no_length(peer: Any, config: Config, steps: int) -> bool:
    """Return whether the last step starts at time 0 and ends at time 0 too."""
    if config.get("set_alpha_to_one", True) and config.get("final_sigmas_type", "zero") == "zero":
        return False
    return peer.scheduler(config, steps).timesteps[-1] == 0


BASES = [pytest.param(base, id="-".join(base.values())) for base in bases()]


@pytest.mark.parametrize("base", BASES)
def test_dpm_multistep(check: Callable, base: Config) -> None:
    choice = random.Random(repr(base)).choice
    for algorithm, final, order in DPM:
        for steps in (choice(STEPS[:4]), choice(STEPS[4:6]), choice(STEPS[6:])):
            karras = choice((True, False)) and final == "zero" and base["beta_schedule"] != "squaredcos_cap_v2"
            config = {
                "_class_name": DPM_CLASS,
                **base,
                "algorithm_type": algorithm,
                "final_sigmas_type": final,
                "solver_order": order,
                "solver_type": choice(("midpoint", "heun")),
                "euler_at_final": choice((True, False)),
                "lower_order_final": choice((True, False)),
                "thresholding": choice((True, False)),
                "sample_max_value": choice((1.0, 2.5)),
                "use_karras_sigmas": karras,
                "lambda_min_clipped": choice((-math.inf, -5.1)),
            }
            check(config, steps)


@pytest.mark.parametrize("base", BASES)
def test_ddim(peer: Any, check: Callable, base: Config) -> None:
    choice = random.Random(repr(base)).choice
    for eta, one, clipped in itertools.product((0.0, 0.3, 1.0), (True, False), (True, False)):
        config = {
            "_class_name": "DDIMScheduler",
            **base,
            "eta": eta,
            "set_alpha_to_one": one,
            "use_clipped_model_output": clipped,
            "clip_sample": choice((True, False)),
            "clip_sample_range": choice((1.0, 2.0)),
            "thresholding": choice((True, False, False)),
            "sample_max_value": choice((1.0, 2.5)),
        }
        steps = choice(STEPS)
        if not ends_in_a_step_of_no_length(peer, config, steps):
            check(config, steps)


@pytest.mark.parametrize("base", BASES)
def test_ddpm(check: Callable, base: Config) -> None:
    choice = random.Random(repr(base)).choice
    for variance, clip in itertools.product(("fixed_small", "fixed_small_log", "fixed_large"), (True, False)):
        config = {
            "_class_name": "DDPMScheduler",
            **base,
            "variance_type": variance,
            "clip_sample": clip,
            "clip_sample_range": choice((1.0, 2.0)),
            "thresholding": choice((True, False, False)),
            "sample_max_value": choice((1.0, 2.5)),
        }
        check(config, choice(STEPS))


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "extra",
    [
        {"_class_name": DPM_CLASS},
        {"_class_name": DPM_CLASS, "use_karras_sigmas": True, "solver_order": 3},
        {"_class_name": DPM_CLASS, "algorithm_type": "sde-dpmsolver++"},
        {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
        {"_class_name": "DDPMScheduler"},
    ],
)
def test_common_configurations_in_float32(check: Callable, extra: Config, prediction: str, steps: int) -> None:
    scaled = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    check({**scaled, "prediction_type": prediction, **extra}, steps, single=2e-5)


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    kind = draw(st.sampled_from(["DPMSolverMultistepScheduler", "DDIMScheduler", "DDPMScheduler"]))
    flag, pick = st.booleans(), st.sampled_from
    config = {
        "_class_name": kind,
        "num_train_timesteps": draw(st.integers(20, 1200)),
        "beta_schedule": draw(pick(SCHEDULE)),
        "beta_start": draw(st.floats(1e-5, 1e-3)),
        "beta_end": draw(st.floats(2e-3, 0.05)),
        "prediction_type": draw(pick(PREDICTION)),
        "timestep_spacing": draw(pick(SPACING)),
        "steps_offset": draw(st.integers(0, 2)),
        "rescale_betas_zero_snr": draw(pick([False, False, True])),
        "thresholding": draw(flag),
        "dynamic_thresholding_ratio": draw(st.floats(0.5, 1.0)),
        "sample_max_value": draw(st.floats(1.0, 4.0)),
    }
    if kind == DPM_CLASS:
        name, final, order = draw(pick(DPM))
        config |= {
            "algorithm_type": name,
            "final_sigmas_type": final,
            "solver_order": order,
            "solver_type": draw(pick(["midpoint", "heun"])),
            "lower_order_final": draw(flag),
            "euler_at_final": draw(flag),
            "lambda_min_clipped": draw(pick([-math.inf, -5.1, -3.0])),
        }
        config["use_karras_sigmas"] = final == "zero" and config["beta_schedule"] != SCHEDULE[2] and draw(flag)
        return config
    config |= {"clip_sample": draw(flag), "clip_sample_range": draw(st.floats(0.5, 3.0))}
    if kind == "DDIMScheduler":
        config |= {"set_alpha_to_one": draw(flag), "use_clipped_model_output": draw(flag)}
        config["eta"] = draw(st.floats(0, 1))
        if config["rescale_betas_zero_snr"]:
            assume(config["eta"] < 0.99)  # diffusers takes the root of 1 - alpha - std^2, which rounds to below zero
    else:
        config["variance_type"] = draw(pick(["fixed_small", "fixed_small_log", "fixed_large"]))
    return config


@given(config=configurations(), steps=st.integers(1, 60))
def test_drawn_configurations(peer: Any, check: Callable, config: Config, steps: int) -> None:
    total = config["num_train_timesteps"]
    dpm = config["_class_name"] == DPM_CLASS
    assume(steps + dpm <= total // 2)
    if config["rescale_betas_zero_snr"]:
        assume(dpm or config["prediction_type"] != "epsilon")
        table = our_table({**config, "_class_name": "DDIMScheduler"})
        assume(not dpm or table[-2] > 2.0**-24)
    times = peer.scheduler(config, steps).timesteps
    assume(times.min() >= 0 and times.max() < total)
    assume(not ends_in_a_step_of_no_length(peer, config, steps))
    check(config, steps)


@pytest.mark.parametrize("schedule", SCHEDULE)
@pytest.mark.parametrize("total", [2, 5, 100, 300, 1000, 1001, 4000])
def test_the_table_is_the_one_diffusers_keeps(peer: Any, schedule: str, total: int) -> None:
    config = {"_class_name": "DDIMScheduler", "beta_schedule": schedule, "num_train_timesteps": total}
    want = peer.scheduler(config).alphas_cumprod.numpy()
    np.testing.assert_array_equal(schedule_from_diffusers(config).alphas_cumprod, want)


@pytest.mark.parametrize("schedule", SCHEDULE)
def test_the_table_rescaled_to_zero_terminal_snr(peer: Any, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # On some processors torch.sqrt is not rounded correctly, and near the end the rescaling magnifies its last digit.
    monkeypatch.setattr(torch.Tensor, "sqrt", lambda x: torch.from_numpy(np.sqrt(x.numpy())))
    config = {"_class_name": "DDIMScheduler", "beta_schedule": schedule, "rescale_betas_zero_snr": True}
    want = peer.scheduler(config).alphas_cumprod.numpy()
    got = our_table(config)
    assert got is not None
    assert got[-1] == want[-1] == 0.0
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_trained_betas(check: Callable) -> None:
    betas = np.linspace(1e-3, 0.1, 60).tolist()
    for name in ("DPMSolverMultistepScheduler", "DDIMScheduler", "DDPMScheduler"):
        check({"_class_name": name, "num_train_timesteps": 60, "trained_betas": betas}, 12)


def test_a_rescaled_table_may_rise_at_its_last_time(check: Callable) -> None:
    for prediction in ("sample", "v_prediction"):
        check({"_class_name": DPM_CLASS, "rescale_betas_zero_snr": True, "prediction_type": prediction}, 10)


def test_dpm_that_ends_in_a_step_of_no_length(check: Callable) -> None:
    karras = {"_class_name": DPM_CLASS, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}
    for name in ("dpmsolver", "dpmsolver++"):
        for order in (1, 2):
            check({**karras, "algorithm_type": name, "solver_order": order}, 20)


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_ddim_that_ends_in_a_step_of_no_length(check: Callable, spacing: str) -> None:
    check({"_class_name": "DDIMScheduler", "set_alpha_to_one": False, "timestep_spacing": spacing}, 10)


def test_karras_down_to_sigma_min_ends_in_a_step_that_changes_nothing_however_it_rounds() -> None:
    config = {
        "_class_name": DPM_CLASS,
        "beta_schedule": "squaredcos_cap_v2",
        "rescale_betas_zero_snr": True,
        "num_train_timesteps": 300,
        "prediction_type": "v_prediction",
        "use_karras_sigmas": True,
        "final_sigmas_type": "sigma_min",
    }
    for steps in range(2, 40):
        plan = plan_from_diffusers(config, steps)
        assert plan.calls == steps
        assert plan.weights[-1, 0] == pytest.approx(1.0, abs=1e-9)
        assert abs(plan.weights[-1, 1:]).max() < 1e-9


# What is different on purpose.


def test_trailing_leaves_out_the_time_minus_one(peer: Any) -> None:
    config = {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}
    for steps in (61, 103):
        theirs = peer.scheduler(config, steps).timesteps.tolist()
        assert theirs[-1] == -1
        assert plan_from_diffusers(config, steps).timesteps.tolist() == theirs[:-1]


def test_fixed_large_log_is_fixed_large_where_diffusers_returns_nan(peer: Any) -> None:
    config = {"_class_name": "DDPMScheduler", "variance_type": "fixed_large_log"}
    data = np.ones((10, *SHAPE), np.float32)
    assert np.isnan(peer.run(config, 10, data[0], data, data).states[0]).all()
    ours, large = plan_from_diffusers(config, 10), plan_from_diffusers(config, 10, variance_type="fixed_large")
    assert ours.digest() == large.digest()


def test_karras_on_the_cosine_schedule_starts_at_the_last_training_time(peer: Any) -> None:
    config = {
        "_class_name": DPM_CLASS,
        "beta_schedule": "squaredcos_cap_v2",
        "use_karras_sigmas": True,
    }
    theirs, ours = peer.scheduler(config, 10).timesteps.tolist(), plan_from_diffusers(config, 10).timesteps.tolist()
    assert (theirs[0], ours[0]) == (998, 999)  # a logarithm in float32, then truncation
    assert theirs[1:] == ours[1:]


def test_ddim_with_full_noise_from_zero_snr_stays_finite() -> None:
    config = {
        "_class_name": "DDIMScheduler",
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "eta": 1.0,
        "clip_sample": False,
    }
    x = np.random.default_rng(0).standard_normal(SHAPE)
    for steps in STEPS:
        assert np.isfinite(run_plan(plan_from_diffusers(config, steps), lambda x, t: 0.5 * x, x)).all()


REFUSED = [
    ("DDIMScheduler", 999, {"steps_offset": 2}, "the spacing leaves the training times.*t = 1000"),
    (DPM_CLASS, 999, {"timestep_spacing": "leading", "steps_offset": 1}, "the spacing leaves .*t = 1000"),
    ("DDIMScheduler", 1001, {}, "more steps than training times.*steps=1001.*1 to 1000"),
    ("DDPMScheduler", 10, {"variance_type": "learnt"}, "variance_type has a value .*'learnt'.*'learned_range'"),
    (DPM_CLASS, 10, {"algorithm_type": "deis"}, "algorithm_type has a value .*'deis'.*'dpmsolver\\+\\+'"),
    (DPM_CLASS, 10, {"solver_type": "bh1"}, "solver_type has a value that is not possible.*'bh1'"),
    (DPM_CLASS, 10, {"solver_order": 4}, "order is out of range.*4.*from 1 to 3"),
    (
        DPM_CLASS,
        10,
        {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 3},
        "no third order of sde-dpmsolver",
    ),
    (DPM_CLASS, 10, {"algorithm_type": "dpmsolver"}, "dpmsolver does not end at zero noise in diffusers"),
    (
        "DDIMScheduler",
        10,
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        "x0 cannot be had from a network that predicts 'epsilon'",
    ),
    ("DDIMScheduler", 10, {"prediction_type": "flow_prediction"}, "prediction_type has a value .*flow"),
    ("DDIMScheduler", 10, {"beta_schedule": "sigmoid"}, "beta_schedule has a value .*'sigmoid'"),
    ("DDIMScheduler", 10, {"clip_samples": True}, "no key of this name here.*clip_samples = True.*'clip_sample'"),
    (DPM_CLASS, 10, {"order": 3}, "no key of this name here.*order = 3.*did you mean 'solver_order'"),
    (DPM_CLASS, 10, {"eta": 1.0}, "no key of this name here.*eta = 1.0.*name a solver that has it"),
    ("DDIMScheduler", 10, {"clip_sample": 1}, "clip_sample has a value that is not possible"),
    ("DDIMScheduler", 10, {"eta": "much"}, "eta must be a number.*'much'"),
    ("DDIMScheduler", 10, {"trained_betas": [0.1, 0.2]}, "trained_betas must be a row of finite numbers.*1000"),
    ("DDIMScheduler", 10, {"beta_end": 1.5}, "beta_end is outside \\(0, 1\\)"),
    ("DDIMScheduler", 5, {"beta_schedule": "scaled_linear", "beta_start": -0.3}, "beta_start is outside.*-0.3"),
    ("LCMScheduler", 5, {"beta_start": 10**400}, "beta_start is beyond what a float holds"),
    ("DDPMScheduler", 5, {"trained_betas": 10**400}, "trained_betas must be a row of finite numbers"),
    ("DDIMScheduler", 5, {"steps_offset": 10**30}, "steps_offset is out of range.*from 0 to 1000"),
    ("DDIMSchedular", 10, {}, "unknown scheduler class.*did you mean 'DDIMScheduler'"),
]


@pytest.mark.parametrize(("name", "steps", "keys", "text"), REFUSED)
def test_refused(name: str, steps: int, keys: Config, text: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){text}"):
        plan_from_diffusers({"_class_name": name, **keys}, steps)


def test_a_config_without_a_class_is_refused() -> None:
    with pytest.raises(OptionError, match=r"names no class\n.*None"):
        plan_from_diffusers({"beta_schedule": "linear"}, 10)


def test_a_rescaled_schedule_ends_without_signal() -> None:
    schedule = schedule_from_diffusers({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True})
    assert float(schedule.alpha(999)) == 0.0
    assert float(schedule.lambda_(999)) == -math.inf


def test_keys_that_begin_with_an_underscore_and_null_flags_are_passed_over() -> None:
    plain = plan_from_diffusers({"_class_name": "DDIMScheduler", "clip_sample": False}, 10)
    noted = plan_from_diffusers(
        {"_class_name": "DDIMScheduler", "_diffusers_version": "0.42.0", "clip_sample": None}, 10
    )
    assert plain.digest() == noted.digest()


@pytest.mark.parametrize(("spacing", "most"), [("linspace", 999), ("leading", 999), ("trailing", 1000)])
def test_more_steps_than_a_spacing_has_times(spacing: str, most: int) -> None:
    config = {"_class_name": DPM_CLASS, "timestep_spacing": spacing}
    assert plan_from_diffusers(config, most).calls == most
    with pytest.raises(OptionError, match=rf"more steps than '{spacing}' has times\n.*\n.*1 to {most}"):
        plan_from_diffusers(config, most + 1)


def test_a_config_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(OptionError, match=r"the scheduler config is no mapping\n.*NoneType"):
        plan_from_diffusers(None, 5)  # type: ignore[arg-type]


def test_a_schedule_without_end_is_refused() -> None:
    with pytest.raises(OptionError, match=r"num_train_timesteps is out of range\n.*1000000000"):
        plan_from_diffusers({"_class_name": "DDIMScheduler", "num_train_timesteps": 10**9}, 5)
