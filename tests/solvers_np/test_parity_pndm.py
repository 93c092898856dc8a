"""PNDM and iPNDM: the same times, and the same state after every call, from the same network outputs as diffusers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trajectories import SHAPE, Config, drawn, states_of, worst

from dpmrt.errors import OptionError
from dpmrt.solvers_np import Grid, compile_plan, make_schedule, plan_from_diffusers, run_plan
from dpmrt.solvers_np.compile import reproduces

PNDM, IPNDM = "PNDMScheduler", "IPNDMScheduler"
SCHEDULE = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACING = ("leading", "linspace", "trailing")


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_pndm(check: Callable, prediction: str, skip: bool) -> None:
    for schedule, spacing, one in itertools.product(SCHEDULE[:2], SPACING, (True, False)):
        config = {
            "_class_name": PNDM,
            "beta_schedule": schedule,
            "timestep_spacing": spacing,
            "prediction_type": prediction,
            "skip_prk_steps": skip,
            "set_alpha_to_one": one,
        }
        for steps in (1, 2, 3, 5, 50) if skip else (4, 7, 40, 50):
            # at the end of the schedule v is all there is, and diffusers' float32 1 - alpha^2 has lost some of it
            single = 1e-5 if prediction == "epsilon" else 3e-5
            check(config, steps, single=single)


@given(data=st.data(), steps=st.integers(1, 50))
def test_drawn_pndm_configurations(peer: Any, check: Callable, data: st.DataObject, steps: int) -> None:
    pick = st.sampled_from
    config = {
        "_class_name": PNDM,
        "num_train_timesteps": data.draw(st.integers(50, 1200)),
        "beta_schedule": data.draw(pick(SCHEDULE)),
        "beta_end": data.draw(st.floats(5e-3, 0.05)),
        "timestep_spacing": data.draw(pick(SPACING)),
        "steps_offset": data.draw(st.integers(0, 1)),
        "prediction_type": data.draw(pick(["epsilon", "v_prediction"])),
        "skip_prk_steps": data.draw(st.booleans()) or steps < 4,
        "set_alpha_to_one": data.draw(st.booleans()),
    }
    times = peer.scheduler(config, steps).timesteps
    assume(times.min() >= 0 and times.max() < config["num_train_timesteps"])
    check(config, steps)


def test_the_stable_diffusion_config(check: Callable) -> None:
    config = {
        "_class_name": PNDM,
        "_diffusers_version": "0.6.0",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    }
    check(config, 50, single=1e-5)
    plan = plan_from_diffusers(config, 50)
    assert plan.timesteps[:4].tolist() == [981.0, 961.0, 961.0, 941.0]
    assert plan.calls == 51


def test_pndm_of_v_combines_outputs_as_diffusers_or_eps_as_the_paper() -> None:
    config = {"_class_name": PNDM, "set_alpha_to_one": True, "prediction_type": "v_prediction", "steps_offset": 1}
    ours, paper = plan_from_diffusers(config, 20), plan_from_diffusers(config, 20, combine="eps")
    assert ours.digest() != paper.digest()
    reproduces(paper, "v_prediction")
    config["prediction_type"] = "epsilon"
    x, outputs, noise = drawn(plan_from_diffusers(config, 20))
    both = [states_of(plan_from_diffusers(config, 20, combine=how), x, outputs, noise) for how in ("outputs", "eps")]
    assert worst(both[0], both[1]) == 0.0


def test_pndm_by_name_is_diffusers_on_its_grid() -> None:
    """On even steps in time our grid's levels are diffusers', but for the middles of the Runge-Kutta start."""
    schedule = make_schedule("linear")
    config = {"_class_name": PNDM, "skip_prk_steps": True, "timestep_spacing": "leading", "set_alpha_to_one": True}
    theirs = plan_from_diffusers(config, 20)
    grid = Grid.at_times(schedule, np.arange(20)[::-1] * 50.0)
    ours = compile_plan("pndm", schedule, 20, grid=grid, skip_prk_steps=True)
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()
    x = np.random.default_rng(0).standard_normal(SHAPE)
    got, want = (run_plan(plan, lambda x, t: np.tanh(x), x) for plan in (ours, theirs))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 20, 50])
def test_ipndm(check: Callable, steps: int) -> None:
    check({"_class_name": IPNDM}, steps, single=1e-5)


def test_ipndm_in_one_step_is_nothing_in_diffusers(peer: Any) -> None:
    plan = plan_from_diffusers({"_class_name": IPNDM}, 1)
    data = drawn(plan)
    assert (peer.run({"_class_name": IPNDM}, 1, *data).states[0] == 0).all()
    assert (states_of(plan, *data)[0] == 0).all()
    given = plan_from_diffusers({"_class_name": IPNDM, "first_x0": "predicted"}, 1)
    np.testing.assert_allclose(states_of(given, *data)[0], -data[1][0])  # v is -x0 where no signal is left
    reproduces(given, "v_prediction")


@given(parts=st.lists(st.integers(0, 256), min_size=3, max_size=20, unique=True))
def test_ipndm_with_betas_of_its_own(check: Callable, parts: list[int]) -> None:
    falling = sorted((part / 256 for part in parts), reverse=True)  # float32 holds them
    check({"_class_name": IPNDM, "trained_betas": falling}, len(falling) - 1)


def test_ipndm_meets_ipndm_by_name() -> None:
    plan = plan_from_diffusers({"_class_name": IPNDM}, 20)
    assert plan.slots == 4
    assert plan.meta["prediction"] == "v_prediction"
    assert plan.timesteps[0] == 1.0
    assert plan.init_scale == 1.0
    assert plan.end == (1.0, 0.0)


REFUSED = [
    (PNDM, {"prediction_type": "sample"}, "prediction_type has a value .*'sample'.*'v_prediction'"),
    (PNDM, {"combine": "v"}, "combine has a value .*'v'.*'outputs', 'eps'"),
    (PNDM, {"skip_prk_steps": 1}, "skip_prk_steps has a value"),
    (PNDM, {"clip_sample": True}, "no key of this name here.*clip_sample"),
    (IPNDM, {"beta_schedule": "linear"}, "no key of this name here.*beta_schedule"),
    (IPNDM, {"first_x0": "one"}, "first_x0 has a value .*'zero', 'predicted'"),
    (IPNDM, {"trained_betas": [0.9, 0.5]}, "trained_betas must be a row .*11 numbers"),
    (IPNDM, {"trained_betas": [0.1 * k for k in range(11)]}, "trained_betas must fall.*0.0 to 1\\n"),
    (IPNDM, {"trained_betas": [0.9, 0.5, 0.6, *[0.4] * 8]}, "the noise does not fall from step to step"),
    (IPNDM, {"num_train_timesteps": 0}, "num_train_timesteps is out of range"),
]


@pytest.mark.parametrize(("name", "keys", "text"), REFUSED)
def test_refused(name: str, keys: Config, text: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){text}"):
        plan_from_diffusers({"_class_name": name, **keys}, 10)


def test_the_runge_kutta_start_takes_four_times() -> None:
    with pytest.raises(OptionError, match=r"(?s)Runge-Kutta start takes four times.*steps=3.*skip_prk_steps=True"):
        plan_from_diffusers({"_class_name": PNDM}, 3)
