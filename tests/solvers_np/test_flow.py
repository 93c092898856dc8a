"""Flow matching: the two diffusers classes, and Euler and Heun along flows and other paths."""

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
from problems import BIMODAL, QUANTILES, encoding, network
from trajectories import Config

from dpmrt.errors import OptionError
from dpmrt.solvers_np import SOLVERS, Grid, Level, Levels, compile_plan, make_schedule, plan_from_diffusers, run_plan
from dpmrt.solvers_np.grids.named import make_grid

EULER, HEUN = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"
LADDERS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("shift", [1.0, 3.0, 0.6])
def test_euler(check: Callable, shift: float, stochastic: bool) -> None:
    choice = random.Random(f"{shift}{stochastic}").choice
    for ladder, terminal, dynamic in itertools.product(
        (None, *LADDERS), (None, 0.1), (None, "exponential", "linear")
    ):
        config: Config = {
            "_class_name": EULER,
            "shift": shift,
            "num_train_timesteps": choice((1000, 250)),
            "stochastic_sampling": stochastic,
            "shift_terminal": terminal,
        }
        if dynamic:
            config |= {"use_dynamic_shifting": True, "time_shift_type": dynamic, "mu": choice((0.5, 1.15, 3.0))}
        if ladder:
            config[ladder] = True
        for steps in (2, choice((3, 4)), choice((10, 28, 50))):
            check(config, steps)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_euler_inverted(check: Callable, shift: float, steps: int) -> None:
    config = {"_class_name": EULER, "shift": shift, "invert_sigmas": True}
    check(config, steps)
    plan = plan_from_diffusers(config, steps)
    assert (np.diff([*plan.sigma, plan.end[1]]) > 0).all()
    assert (plan.start, plan.end, plan.init_scale) == ((1.0, 0.0), (0.0, 1.0), 1.0)


def test_euler_with_its_own_sigmas(check: Callable) -> None:
    sigmas = [1.0, 0.9, 0.4, 0.2]
    check({"_class_name": EULER, "sigmas": sigmas}, 4)
    check({"_class_name": EULER, "sigmas": sigmas, "shift": 3.0}, 4)
    check({"_class_name": EULER, "sigmas": sigmas, "use_dynamic_shifting": True, "mu": 0.8}, 4)
    # from the linear to the quadratic spacing of Mochi, inverted
    mochi = [1.0, 0.99, 0.95, 0.7, 0.3]
    check({"_class_name": EULER, "sigmas": mochi, "invert_sigmas": True}, 5)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 25])
def test_heun(check: Callable, shift: float, steps: int) -> None:
    for total in (1000, 200):
        check({"_class_name": HEUN, "shift": shift, "num_train_timesteps": total}, steps)
    assert plan_from_diffusers({"_class_name": HEUN}, steps).calls == 2 * steps - 1


@pytest.mark.parametrize("name", [EULER, HEUN])
def test_common_configurations_in_float32(check: Callable, name: str) -> None:
    # with two or three steps diffusers' Heun loses digits itself: it gets the velocity back from x - (x - sigma v)
    for steps, shift in itertools.product((4, 28), (1.0, 3.0)):
        check({"_class_name": name, "shift": shift}, steps, single=1e-5)


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    flag, pick = st.booleans(), st.sampled_from
    config: Config = {
        "_class_name": draw(pick([EULER, EULER, HEUN])),
        "num_train_timesteps": draw(st.integers(10, 2000)),
        "shift": draw(st.floats(0.3, 12.0)),
    }
    if config["_class_name"] == HEUN:
        return config
    config["stochastic_sampling"] = draw(flag)
    config["invert_sigmas"] = not config["stochastic_sampling"] and draw(flag)
    config["shift_terminal"] = draw(pick([None, None, 0.02, 0.3]))
    if draw(flag):
        config |= {"use_dynamic_shifting": True, "mu": draw(st.floats(0.1, 3.0))}
        config["time_shift_type"] = draw(pick(["exponential", "linear"]))
    ladder = draw(pick([None, *LADDERS]))
    return config | ({ladder: True} if ladder else {})


@given(config=configurations(), steps=st.integers(1, 40))
def test_drawn_configurations(check: Callable, config: Config, steps: int) -> None:
    assume(steps > 1 or not config.get("shift_terminal"))
    assume(steps <= config["num_train_timesteps"] // 2)
    check(config, steps)


@pytest.mark.parametrize(
    ("name", "steps", "keys", "text"),
    [
        (EULER, 4, {"stochastic_sampling": True, "invert_sigmas": True}, r"whose noise rises takes no stochastic"),
        (EULER, 4, {"use_dynamic_shifting": True}, r"needs the shift of this resolution\n.*mu = None"),
        (EULER, 4, {"mu": 1.0}, r"mu is read with use_dynamic_shifting only"),
        (EULER, 3, {"sigmas": [1.0, 0.5]}, r"sigmas must be a row of finite numbers\n.*\n.*3 numbers"),
        (EULER, 2, {"sigmas": [0.5, 0.5]}, r"sigmas must fall"),
        (EULER, 4, {"prediction_type": "epsilon"}, r"no key of this name here\n.*prediction_type"),
        (EULER, 4, {"s_churn": 1.0}, r"no key of this name here\n.*s_churn"),
        (HEUN, 4, {"s_churn": 1.0}, r"no key of this name here\n.*s_churn"),
        (HEUN, 4, {"shift": 0.0}, r"shift must be positive"),
    ],
)
def test_refused(name: str, steps: int, keys: Config, text: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){text}"):
        plan_from_diffusers({"_class_name": name, **keys}, steps)


# The solvers themselves.

FLOW, VP = make_schedule("flow"), make_schedule("vp-linear")
PATHS = {"flow": FLOW, "vp": VP, "exploding": VP.exploding(), "sub-vp": make_schedule("sub-vp")}


def test_euler_moves_by_the_velocity_alone() -> None:
    plan = compile_plan("flow-euler", "flow", 5, grid="uniform", prediction="flow")
    steps = np.diff([*plan.sigma, plan.end[1]])
    np.testing.assert_allclose(plan.weights[:, 0], 1.0)
    np.testing.assert_allclose(plan.convert[:, 1] * plan.weights[:, 1], steps)
    assert not plan.convert[:, 0].any()


def test_heun_averages_two_velocities() -> None:
    plan = compile_plan("flow-heun", "flow", 1, grid="uniform", prediction="flow", t_start=600.0, t_end=300.0)
    answers = iter([np.full((1, 1), 2.0), np.full((1, 1), 6.0)])
    seen: list[float] = []

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        seen.append(float(x[0, 0]))
        assert t[0] == (600.0, 300.0)[len(seen) - 1]
        return next(answers)

    end = run_plan(plan, model, np.ones((1, 1)))
    assert seen == pytest.approx([1.0, 1.0 - 0.3 * 2.0])
    assert end[0, 0] == pytest.approx(1.0 - 0.3 * 4.0)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "score"])
@pytest.mark.parametrize("solver", ["flow-euler", "flow-heun"])
def test_any_prediction_leads_to_the_same_sample(solver: str, prediction: str) -> None:
    grid = make_grid("uniform", FLOW, 6, t_start=900.0, t_end=100.0)
    x = np.random.default_rng(0).standard_normal((2, 4))
    flow = network(BIMODAL, FLOW, "flow")
    want = run_plan(compile_plan(solver, FLOW, 6, grid=grid, prediction="flow"), flow, x)
    plan = compile_plan(solver, FLOW, 6, grid=grid, prediction=prediction)
    np.testing.assert_allclose(run_plan(plan, network(BIMODAL, FLOW, prediction), x), want, rtol=1e-10)


@pytest.mark.parametrize(
    "schedule", [FLOW, VP, VP.exploding(), make_schedule("sub-vp")], ids=lambda s: type(s).__name__
)
def test_euler_is_ddim_on_every_path(schedule: Any) -> None:
    ends = {"t_start": 0.9 * schedule.t_max, "t_end": 0.1 * schedule.t_max}
    grid = make_grid("uniform", schedule, 6, **ends)
    x = 0.1 * np.random.default_rng(0).standard_normal((2, 4))
    model = network(BIMODAL, schedule, "epsilon")
    one, two = (run_plan(compile_plan(s, schedule, 6, grid=grid), model, x) for s in ("ddim", "flow-euler"))
    np.testing.assert_allclose(two, one, rtol=1e-11)


@pytest.mark.parametrize(("solver", "order"), [("flow-euler", 1.0), ("flow-heun", 2.0)])
def test_encoding_leads_up_the_same_path(solver: str, order: float) -> None:
    errors = []
    for steps in (40, 80):
        grid = encoding(make_grid("uniform", FLOW, steps, t_start=700.0, t_end=200.0))
        plan = compile_plan(solver, FLOW, steps, grid=grid, prediction="flow")
        x = run_plan(plan, network(BIMODAL, FLOW, "flow"), BIMODAL.at(QUANTILES, next(iter(grid.start))))
        errors.append(np.abs(x - BIMODAL.at(QUANTILES, grid.last)).max())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_stochastic_steps_forget_the_noise_of_the_state() -> None:
    plan = compile_plan("flow-euler", "flow", 4, grid="uniform", prediction="sample", stochastic=True)
    np.testing.assert_allclose(plan.weights[:, 0], 0.0)
    np.testing.assert_allclose(plan.weights[:, 1], [*plan.alpha[1:], plan.end[0]])
    np.testing.assert_allclose(plan.noise, [*plan.sigma[1:], plan.end[1]])


@pytest.mark.parametrize("stochastic", [False, True])
def test_a_perfect_network_is_followed_to_the_data(stochastic: bool) -> None:
    columns = Levels.of([1000.0, 600.0, 200.0], [0.0, 0.4, 0.8], [1.0, 0.6, 0.2])
    grid = Grid(columns, columns.part(1).then(Level(math.nan, 1.0, 0.0)))
    x0, x = np.linspace(-1, 1, 6).reshape(2, 3), np.ones((2, 3))

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return (x - x0) / (t[0] / 1000)

    for solver in ("flow-euler", "flow-heun"):
        options = {"stochastic": stochastic} if solver == "flow-euler" else {}
        plan = compile_plan(solver, FLOW, 3, grid=grid, prediction="flow", **options)
        np.testing.assert_allclose(run_plan(plan, model, x), x0, atol=1e-12)


@pytest.mark.parametrize("solver", ["flow-euler", "flow-heun"])
def test_a_path_that_only_starts_like_a_flow_is_followed_to_the_data(solver: str) -> None:
    # zero terminal SNR: at the first level alone alpha + sigma = 1
    schedule = make_schedule("scaled_linear", zero_snr=True)
    plan = compile_plan(solver, schedule, 5, grid="trailing", prediction="flow")
    assert plan.start == (0.0, 1.0)
    x0 = np.linspace(-1, 1, 6).reshape(2, 3)

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        return (x - alpha * x0) / sigma - x0

    np.testing.assert_allclose(run_plan(plan, model, np.ones((2, 3))), x0, atol=1e-12)


def test_an_image_without_noise_takes_no_epsilon_to_start_from() -> None:
    columns = Levels.of([0.0, 500.0], [1.0, 0.5], [0.0, 0.5])
    grid = Grid(columns.part(0, 1), columns.part(1))
    plan = SOLVERS["flow-euler"](grid, "flow")
    assert run_plan(plan, lambda x, t: 3.0 - x, np.ones((1, 1)))[0, 0] == pytest.approx(1.0 + 0.5 * 2.0)
    with pytest.raises(OptionError, match="a time with no noise left"):
        SOLVERS["flow-euler"](grid, "sample")


def test_without_a_grid_a_flow_goes_from_noise_alone_to_none() -> None:
    plan = compile_plan("flow-euler", "flow", 20, prediction="flow")
    assert (plan.meta["grid"], plan.start, plan.end) == ("uniform", (0.0, 1.0), (1.0, 0.0))
    assert plan.timesteps[0] == 1000.0
