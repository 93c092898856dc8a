"""Diffusers' classes that follow k-diffusion and EDM: the same times, input scales and states, from the same draws.

diffusers is run widened to float64, where nothing but a formula can make a difference, and as it is. In float32 our
states are held to its float64 ones, and to its float32 ones as far as those hold to themselves.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trajectories import Config

from dpmrt.errors import OptionError
from dpmrt.solvers_np import compile_plan, make_schedule, plan_from_diffusers, schedule_from_diffusers
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.numbers.sigmas import KDPM2_KEYS, kdpm2_ancestral

EULER, EDM, SDE = "EulerDiscreteScheduler", "EDMEulerScheduler", "DPMSolverSDEScheduler"
HEUN, LMS, KDPM2 = "HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler"
EULER_A, KDPM2_A = "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"
ON_A_TABLE = (EULER, EULER_A, HEUN, LMS, KDPM2, KDPM2_A, SDE)
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("linspace", "leading", "trailing")
LADDERS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
STEPS = (1, 2, 3, 5, 10, 20, 33)
CHURN = [{"s_churn": 2.0}, {"s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 5.0, "s_noise": 1.003}]


def predictions(name: str) -> tuple[str, ...]:
    """Return what diffusers has formulas for."""
    return ("epsilon", "sample", "v_prediction") if name in (EULER, HEUN, LMS) else ("epsilon", "v_prediction")


def loses_digits(config: Config, steps: int) -> bool:
    """Return whether a step is so long that diffusers' level below the next is the root of what rounding left."""
    if config["_class_name"] != KDPM2_A:
        return False
    levels = kdpm2_ancestral(SchedulerConfig(KDPM2_A, config, KDPM2_KEYS), steps).levels[:-1]
    return bool((levels[:-1] >= 30 * levels[1:]).any())


@pytest.fixture(scope="session")
def check(check: Callable) -> Callable[[Config, int], None]:
    def as_far_as_theirs_holds(config: Config, steps: int) -> None:
        if loses_digits(config, steps):
            check(config, steps, wide=1e-7, own=math.inf, asked=False)
            return
        # a network's v is read by the spread of its data, which an input scale at so much noise hardly holds
        huge = config["prediction_type"] == "v_prediction" and config.get("rescale_betas_zero_snr")
        check(config, steps, wide=3e-8 if huge else 1e-9, lossy=2.0)

    return as_far_as_theirs_holds


def options(choice: Callable, name: str) -> Config:
    """Return the keys that one class alone has, chosen."""
    if name == EULER:
        return {**choice(({}, *CHURN)), "final_sigmas_type": choice(("zero", "sigma_min"))}
    if name == HEUN:
        return {"clip_sample": choice((True, False)), "clip_sample_range": choice((1.0, 2.0))}
    if name == LMS:
        return {"order": choice((1, 2, 3, 4))}
    return {"s_noise": choice((1.0, 1.003))} if name == SDE else {}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", ON_A_TABLE)
def test_every_class_over_schedules_ladders_and_predictions(check: Callable, name: str, spacing: str) -> None:
    choice = random.Random(name + spacing).choice
    ladders = (None,) if name == EULER_A else (None, *LADDERS)
    for ladder, prediction in itertools.product(ladders, predictions(name)):
        schedule = choice(SCHEDULES)
        config = {
            "_class_name": name,
            "num_train_timesteps": 250 if name in (KDPM2, KDPM2_A) else 1000,  # theirs take a second to make
            "beta_schedule": schedule,
            "timestep_spacing": spacing,
            "prediction_type": prediction,
            **options(choice, name),
        }
        check(config if ladder is None else {**config, ladder: True}, choice(STEPS))


@pytest.mark.parametrize("churn", [{}, *CHURN], ids=["still", "churned", "bounded"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_euler(check: Callable, prediction: str, churn: Config) -> None:
    choice = random.Random(f"{prediction}{churn}").choice
    for schedule, final, steps in itertools.product(("karras", "exponential"), ("zero", "sigma_min"), (2, 5, 18, 40)):
        config = {
            "_class_name": EDM,
            "prediction_type": prediction,
            "sigma_schedule": schedule,
            "final_sigmas_type": final,
            "sigma_data": choice((0.5, 1.0)),
            "sigma_max": choice((80.0, 20.0)),
            "rho": choice((7.0, 5.0)),
            **churn,
        }
        check(config, steps)


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("churn", [{}, CHURN[0]], ids=["still", "churned"])
@pytest.mark.parametrize(
    "extra",
    [
        {"interpolation_type": "log_linear"},
        {"interpolation_type": "log_linear", "use_karras_sigmas": True},
        {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True},
        {"use_exponential_sigmas": True, "sigma_min": 0.05, "sigma_max": 9.0},
        {"prediction_type": "original_sample"},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "epsilon"},
    ],
    ids=lambda extra: "-".join(map(str, extra)),
)
def test_keys_of_euler_alone(check: Callable, extra: Config, churn: Config, steps: int) -> None:
    check(
        {"_class_name": EULER, "beta_schedule": "scaled_linear", "prediction_type": "epsilon", **extra, **churn},
        steps,
    )


def test_euler_at_sigmas_of_the_caller(check: Callable) -> None:
    config = {"_class_name": EULER, "prediction_type": "epsilon", "sigmas": [9.0, 4.0, 1.0, 0.3, 0.0]}
    check(config, 4)
    check({**config, "s_churn": 1.0}, 4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_euler_ancestral_at_zero_terminal_snr(check: Callable, prediction: str) -> None:
    config = {"_class_name": EULER_A, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    check({**config, "prediction_type": prediction}, 10)


def test_trained_betas(check: Callable) -> None:
    for name in ON_A_TABLE:
        betas = np.linspace(1e-3, 0.03, 200).tolist()
        config = {"_class_name": name, "trained_betas": betas, "num_train_timesteps": 200}
        check({**config, "prediction_type": "epsilon"}, 12)


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    name, pick, flag = draw(st.sampled_from((*ON_A_TABLE, EDM))), st.sampled_from, st.booleans()
    config: Config = {"_class_name": name, "prediction_type": draw(pick(predictions(name)))}
    if name in (EULER, EDM) and draw(flag):
        config["s_churn"], config["s_noise"] = draw(st.floats(0.0, 60.0)), draw(st.floats(0.9, 1.1))
        config["s_tmin"], config["s_tmax"] = draw(st.floats(0.0, 1.0)), draw(st.floats(1.0, 60.0))
    if name == EDM:
        config |= {
            "sigma_schedule": draw(pick(("karras", "exponential"))),
            "final_sigmas_type": draw(pick(("zero", "sigma_min"))),
            "sigma_min": draw(st.floats(1e-3, 0.1)),
            "sigma_max": draw(st.floats(10.0, 200.0)),
            "sigma_data": draw(st.floats(0.2, 2.0)),
            "rho": draw(st.floats(2.0, 9.0)),
        }
        return config
    config |= {
        "num_train_timesteps": draw(st.integers(50, 400)),
        "beta_schedule": draw(pick(("linear", "scaled_linear"))),
        "beta_start": draw(st.floats(1e-4, 1e-3)),
        "beta_end": draw(st.floats(5e-3, 0.04)),
        "timestep_spacing": draw(pick(SPACINGS)),
        "steps_offset": draw(st.integers(0, 1)),
    }
    if name == EULER:
        config["interpolation_type"] = draw(pick(("linear", "linear", "log_linear")))
        config["final_sigmas_type"] = draw(pick(("zero", "sigma_min")))
    if name == HEUN:
        config |= {"clip_sample": draw(flag), "clip_sample_range": draw(st.floats(0.5, 3.0))}
    if name == LMS:
        config["order"] = draw(st.integers(1, 4))
    if name == SDE:
        config["s_noise"] = draw(st.floats(0.9, 1.1))
    ladder = draw(pick((None, *LADDERS)))
    return config if ladder is None or name == EULER_A else {**config, ladder: True}


@given(config=configurations(), steps=st.integers(1, 40))
def test_drawn_configurations(peer: Any, check: Callable, config: Config, steps: int) -> None:
    assume(steps > 1 or config["_class_name"] != EDM)  # alone, its only sigma depends on the way that it is built
    if config["_class_name"] != EDM:
        total = config["num_train_timesteps"]
        assume(steps <= total // 2)
        times = peer.scheduler(config, steps).timesteps
        assume(times.min() >= 0 and times.max() < total)
    if config.get("s_churn"):  # rounding decides whether diffusers counts a sigma on a bound
        levels = plan_from_diffusers(config, steps).sigma
        assume(np.abs(levels[:, None] / [config["s_tmin"] + 1e-9, config["s_tmax"]] - 1).min() > 1e-6)
    check(config, steps)


def test_the_order_of_the_paper_can_be_asked_for() -> None:
    """Churn first, then the call: what the solver itself does on the schedule's own levels."""
    churn = {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 20.0, "s_noise": 1.002}
    edm = plan_from_diffusers({"_class_name": EDM}, 12, **churn, call_before_churn=False)
    own = compile_plan("euler", make_schedule("edm"), 12, grid="karras", prediction="edm", **churn)
    config = {"_class_name": EULER, "beta_schedule": "scaled_linear", "use_karras_sigmas": True}
    table = plan_from_diffusers(config, 12, **churn, call_before_churn=False)
    named = compile_plan("euler", schedule_from_diffusers(config).exploding(), 12, grid="karras", **churn)
    assert (edm.out < 0).sum() == edm.draws > 3
    for found, want, close in ((edm, own, 1e-9), (table, named, 1e-5)):
        for column in ("weights", "noise", "in_scale", "sigma"):
            np.testing.assert_allclose(getattr(found, column), getattr(want, column), rtol=close, atol=1e-12)
    # between training times diffusers' log sigma is linear in time, ours log alpha
    np.testing.assert_allclose(edm.timesteps, own.timesteps, rtol=1e-9)
    np.testing.assert_allclose(table.timesteps, named.timesteps, atol=0.5)


def test_churn_is_spread_as_diffusers_counts() -> None:
    """With log-linear sigmas there is one more than it steps through, and the churn is shared among all."""
    config = {"_class_name": EULER, "interpolation_type": "log_linear", "call_before_churn": False, "s_churn": 1.1}
    plan = plan_from_diffusers(config, 10, s_tmax=5.0)
    called = plan.sigma[plan.out >= 0]
    without = plan_from_diffusers({**config, "s_churn": 0.0}, 10).sigma
    raised = called / without
    np.testing.assert_allclose(raised[without <= 5.0], 1.1)
    np.testing.assert_allclose(raised[without > 5.0], 1.0)


@pytest.mark.parametrize(
    ("name", "extra", "text"),
    [
        (SDE, {"noise_sampler_seed": 0}, "the noise of torchsde cannot be drawn here"),
        (SDE, {"s_noise": math.inf}, "s_noise must be finite"),
        (SDE, {"prediction_type": "sample"}, "prediction_type has a value that is not possible"),
        (KDPM2, {"prediction_type": "sample"}, "expected: one of 'epsilon', 'v_prediction'"),
        (KDPM2_A, {"prediction_type": "flow"}, "expected: one of 'epsilon', 'v_prediction'"),
        (EULER_A, {"prediction_type": "sample"}, "expected: one of 'epsilon', 'v_prediction'"),
        (EULER_A, {"use_karras_sigmas": True}, "has no key of this name here"),
        (EULER, {"prediction_type": "flow_prediction"}, "expected: one of 'epsilon', 'sample', 'original_sample'"),
        (EULER, {"s_churn": -1.0}, "s_churn is out of range"),
        (EULER, {"s_churn": math.nan}, "s_churn must be finite"),
        (EULER, {"s_tmax": math.nan}, "s_tmax must be a number"),
        (EULER, {"s_tmin": 2.0, "s_tmax": 1.0}, "s_tmin is above s_tmax"),
        (EULER, {"call_before_churn": "yes"}, "call_before_churn has a value that is not possible"),
        (EULER, {"final_sigmas_type": "one"}, "final_sigmas_type has a value that is not possible"),
        (HEUN, {"s_churn": 1.0}, "has no key of this name here"),
        (HEUN, {"clip_sample": True, "clip_sample_range": 0.0}, "clip must be a positive limit"),
        (LMS, {"order": 5}, "order is out of range got: 5 expected: a whole number from 1 to 4"),
        (EDM, {"prediction_type": "sample"}, "expected: one of 'epsilon', 'v_prediction'"),
        (EDM, {"sigma_data": 0.0}, "sigma_data must be positive"),
    ],
)
def test_what_diffusers_does_not_compute_is_refused(name: str, extra: Config, text: str) -> None:
    with pytest.raises(OptionError) as error:
        plan_from_diffusers({"_class_name": name, **extra}, 5)
    assert text in " ".join(str(error.value).split())
