"""UniPC, DEIS and SA-Solver: the same times, and the same state after every step, from the same draws as diffusers.

diffusers is run widened to float64, where nothing but a formula can make a difference, and as it is. In float32 our
states are held to its float64 ones, and to its float32 ones as far as those hold to themselves: its coefficients of
order 3 and 4 lose digits there.
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
from trajectories import Config, drawn, states_of, worst

from dpmrt.errors import OptionError
from dpmrt.solvers_np import compile_plan, plan_from_diffusers

UNIPC, DEIS, SA = "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"
SCHEDULE = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTION = ("epsilon", "sample", "v_prediction")
LADDERS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
SPACING = ("linspace", "leading", "trailing")
Check = Callable[..., None]


@pytest.fixture(scope="session")
def check(check: Callable) -> Check:
    """Return the comparison with the limits that an order asks for.

    diffusers' formulas of order 3 and 4 cancel, more so the more uneven the steps; where its float32 has lost more
    than a hundredth, its float64 has lost more than 1e-9 too. Extrapolating drawn outputs that far costs digits.
    """

    def of_its_order(config: Config, steps: int) -> None:
        order = max(config.get(key, 1) for key in ("solver_order", "predictor_order", "corrector_order"))
        check(config, steps, own={3: 3e-5, 4: 1e-4}.get(order, 1e-5), lossy=4.0, ill=1e-7 if order > 2 else 0.0)

    return of_its_order


def sources(choice: Callable, kind: str) -> Config:
    """Return where the sigmas come from, and a prediction that fits them."""
    ladder, flow = choice((None, None, *LADDERS)), choice((False, False, True))
    config: Config = {"beta_schedule": choice(SCHEDULE), "timestep_spacing": choice(SPACING)}
    if flow and (ladder is None or (kind == UNIPC and ladder == "use_karras_sigmas")):
        config |= {"use_flow_sigmas": True, "flow_shift": choice((1.0, 3.0))}
        if kind != SA and ladder is None and choice((True, False)):
            config |= {"use_dynamic_shifting": True, "mu": choice((0.3, 1.1))}
    if ladder is not None and (not flow or config.get("use_flow_sigmas")):
        config[ladder] = True
    flowing = "use_flow_sigmas" in config
    config["prediction_type"] = choice(("epsilon", "sample", "flow_prediction") if flowing else PREDICTION)
    if kind == SA and len(config) == 3:
        config["lambda_min_clipped"] = choice((-math.inf, -5.1))
    return config


def limits(choice: Callable) -> Config:
    return {"thresholding": choice((True, False, False)), "sample_max_value": choice((1.0, 2.5))}


def unipc(choice: Callable) -> Config:
    """Return a config whose numbers diffusers can compute."""
    config = {
        "_class_name": UNIPC,
        **sources(choice, UNIPC),
        "solver_order": choice((1, 2, 3, 4)),
        "solver_type": choice(("bh1", "bh2")),
        "predict_x0": choice((True, True, False)),
        "lower_order_final": choice((True, False)),
        "disable_corrector": choice(([], [], [0], [0, 1, 2], [1, 4, 60])),
        "final_sigmas_type": choice(("zero", "sigma_min")),
        **limits(choice),
    }
    if not config["predict_x0"]:
        config["thresholding"] = False
        if config["prediction_type"] == "flow_prediction":
            config["prediction_type"] = "epsilon"
    ends_at_once = "use_flow_sigmas" in config or any(ladder in config for ladder in LADDERS)
    if config["beta_schedule"] == "squaredcos_cap_v2" and config["solver_order"] == 4:
        config["solver_order"] = 3  # where x0 is 1e4 times the state, extrapolating it so far costs float32 digits
    if config["solver_type"] == "bh1" or not config["predict_x0"]:
        config["final_sigmas_type"] = "sigma_min"
    if config["solver_order"] > 1 and (config["final_sigmas_type"] == "zero" or ends_at_once):
        config["lower_order_final"] = True
    return config


def deis(choice: Callable) -> Config:
    return {
        "_class_name": DEIS,
        **sources(choice, DEIS),
        "solver_order": choice((1, 2, 3)),
        "lower_order_final": choice((True, False)),
        **limits(choice),
    }


def sa_solver(choice: Callable) -> Config:
    config = {
        "_class_name": SA,
        **sources(choice, SA),
        "predictor_order": choice((1, 2, 3, 4)),
        "corrector_order": choice((1, 2, 3, 4)),
        "algorithm_type": choice(("data_prediction", "data_prediction", "noise_prediction")),
        "lower_order_final": choice((True, False)),
        "tau_func": choice((None, None, constant, falling)),
        **limits(choice),
    }
    if config["beta_schedule"] == "squaredcos_cap_v2":
        config["predictor_order"] = min(config["predictor_order"], 3)  # as of UniPC's order above
    if config["algorithm_type"] == "noise_prediction":
        config["thresholding"] = False  # there diffusers takes the whole table for one level
        if config["prediction_type"] == "flow_prediction":
            config["prediction_type"] = "sample"
    return config


def constant(t: Any) -> float:
    return 0.6


def falling(t: Any) -> Any:
    return 1.0 - t / 1500


FAMILIES = {"unipc": unipc, "deis": deis, "sa": sa_solver}


@pytest.mark.parametrize("solver_type", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_unipc_orders_and_variants(check: Check, order: int, solver_type: str) -> None:
    choice = random.Random(f"{order} {solver_type}").choice
    for predict_x0, lowered, prediction in itertools.product((True, False), (True, False), PREDICTION):
        config = {
            "_class_name": UNIPC,
            "solver_order": order,
            "solver_type": solver_type,
            "predict_x0": predict_x0,
            "lower_order_final": lowered,
            "prediction_type": prediction,
            "beta_schedule": choice(SCHEDULE[:2]),
            "final_sigmas_type": "sigma_min",
            "disable_corrector": choice(([], [0, 1, 2])),
        }
        check(config, choice((1, 2, 3, 4, 5, 10, 20, 50)))
        if lowered and predict_x0 and solver_type == "bh2":
            check({**config, "final_sigmas_type": "zero"}, choice((1, 2, 4, 7, 20)))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_orders(check: Check, order: int) -> None:
    for steps, lowered, prediction in itertools.product((1, 2, 3, 10, 14, 15, 50), (True, False), PREDICTION[:2]):
        config = {"_class_name": DEIS, "solver_order": order, "lower_order_final": lowered}
        check({**config, "prediction_type": prediction}, steps)


@pytest.mark.parametrize("predictor", [1, 2, 3, 4])
@pytest.mark.parametrize("corrector", [1, 2, 3, 4])
def test_sa_solver_orders(check: Check, predictor: int, corrector: int) -> None:
    for algorithm, steps in itertools.product(("data_prediction", "noise_prediction"), (1, 3, 6, 20)):
        config = {"_class_name": SA, "predictor_order": predictor, "corrector_order": corrector}
        check({**config, "algorithm_type": algorithm, "tau_func": None if steps % 2 else constant}, steps)


@pytest.mark.parametrize("spacing", SPACING)
@pytest.mark.parametrize("source", [None, "use_flow_sigmas", *LADDERS])
@pytest.mark.parametrize("kind", [UNIPC, DEIS, SA])
def test_every_source_of_sigmas(check: Check, kind: str, source: str | None, spacing: str) -> None:
    for schedule, steps in zip(SCHEDULE, (2, 7, 20)):
        config = {"_class_name": kind, "beta_schedule": schedule, "timestep_spacing": spacing}
        check(config if source is None else {**config, source: True}, steps)


@pytest.mark.parametrize("kind", FAMILIES)
@given(data=st.data(), steps=st.integers(2, 50))
def test_drawn_configurations(peer: Any, check: Check, kind: str, data: st.DataObject, steps: int) -> None:
    config = FAMILIES[kind](lambda values: data.draw(st.sampled_from(list(values))))
    config["num_train_timesteps"] = data.draw(st.integers(200, 1200))
    config["beta_end"] = data.draw(st.floats(5e-3, 0.05))
    assume((peer.scheduler(config, steps).timesteps >= 0).all())  # "trailing" may add -1
    check(config, steps)


def test_unipc_keys_of_its_own(check: Check) -> None:
    flow = {"_class_name": UNIPC, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    check({**flow, "shift_terminal": 0.1, "flow_shift": 2.0}, 8)
    check({**flow, "sigmas": [1.0, 0.8, 0.45, 0.2]}, 4)
    check({**flow, "use_karras_sigmas": True}, 8)
    check({"_class_name": UNIPC, "use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 12.0}, 8)
    check({"_class_name": UNIPC, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, 8)


@pytest.mark.parametrize(
    "keys",
    [
        {"solver_type": "bh1"},
        {"predict_x0": False},
        {"lower_order_final": False},
        {"lower_order_final": False, "solver_order": 3, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
    ],
    ids=str,
)
def test_where_unipc_gives_nan_in_diffusers_the_last_step_is_of_order_1(peer: Any, keys: Config) -> None:
    config = {"_class_name": UNIPC, **keys}
    plan = plan_from_diffusers(config, 6)
    data = drawn(plan)
    theirs, ours = peer.run(config, 6, *data).states, states_of(plan, *data)
    assert not np.isfinite(theirs[-1]).any()
    assert np.isfinite(ours[-1]).all()
    assert worst(ours[:-1], theirs[:-1]) < 1e-12
    if plan.end == (1.0, 0.0) and keys.get("predict_x0", True):
        assert plan.weights[-1].tolist() == [0.0, *(float(k == plan.quantity[-1]) for k in range(plan.slots))]
    elif plan.end[1]:
        assert plan.weights[-1, 0] == pytest.approx(1.0)  # a step of no length


def test_sa_solver_draws_where_tau_is_0_and_adds_nothing() -> None:
    plan = plan_from_diffusers({"_class_name": SA}, 10)
    inside = (plan.timesteps >= 200) & (plan.timesteps <= 800)
    assert plan.draws == 10
    assert ((plan.noise != 0) == inside).all()
    still = plan_from_diffusers({"_class_name": SA, "tau_func": lambda t: 0.0}, 10)
    assert still.draws == 0


def test_sa_solver_limits_the_x0_of_noise_prediction() -> None:
    config = {"_class_name": SA, "algorithm_type": "noise_prediction", "thresholding": True}
    plan = plan_from_diffusers({**config, "tau_func": lambda t: 0.0, "predictor_order": 1, "corrector_order": 1}, 5)
    other = {"algorithm_type": "data_prediction", "predictor_order": 1, "corrector_order": 1}
    data = drawn(plan)
    first = states_of(plan, *data)[0]
    x0_first = states_of(plan_from_diffusers({**config, **other, "tau_func": lambda t: 0.0}, 5), *data)[0]
    np.testing.assert_allclose(first, x0_first, rtol=1e-9, atol=1e-12)  # the first step is DDIM's in both


def test_sa_solver_of_a_learned_variance_reads_the_first_part() -> None:
    plan = plan_from_diffusers({"_class_name": SA, "variance_type": "learned_range"}, 5)
    assert plan.parts == 2


def test_the_second_order_of_the_paper_can_be_asked_for() -> None:
    released = plan_from_diffusers({"_class_name": SA}, 10)
    assert plan_from_diffusers({"_class_name": SA}, 10, second_order="taylor").digest() != released.digest()
    assert plan_from_diffusers({"_class_name": SA}, 10, second_order="released").digest() == released.digest()


def test_orders_beyond_the_steps_are_lowered_as_diffusers_lowers_them(check: Check) -> None:
    for kind, key in ((UNIPC, "solver_order"), (DEIS, "solver_order"), (SA, "predictor_order")):
        for steps in (1, 2):
            check({"_class_name": kind, key: 3}, steps)
    with pytest.raises(OptionError, match=r"order is beyond the steps\n.*order=3 with 2 steps"):
        compile_plan("unipc", "linear", 2, order=3)


REFUSED = [
    (UNIPC, {"solver_p": {"_class_name": "DDIMScheduler"}}, "solver_p, another scheduler .*trace_scheduler"),
    (UNIPC, {"solver_type": "midpoint"}, "solver_type has a value .*'midpoint'.*'bh1', 'bh2'"),
    (UNIPC, {"thresholding": True, "predict_x0": False}, "limits x0 with predict_x0 only"),
    (UNIPC, {"prediction_type": "flow_prediction"}, "flow_prediction needs the sigmas of a flow"),
    (
        UNIPC,
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "predict_x0": False},
        "flow_prediction is for solvers that integrate x0",
    ),
    (UNIPC, {"prediction_type": "v_prediction", "use_flow_sigmas": True}, "leaves its norm out.*'flow_prediction'"),
    (UNIPC, {"disable_corrector": [-1]}, r"disable_corrector must be a list of steps.*\[-1\]"),
    (UNIPC, {"disable_corrector": 0}, r"disable_corrector must be a list of steps.*got: +0"),
    (UNIPC, {"solver_order": 0}, "solver_order is out of range.*from 1 to"),
    (UNIPC, {"solver_order": 60}, "solver_order is out of range.*60.*from 1 to 6"),
    (UNIPC, {"shift_terminal": 0.1}, "shift_terminal is read with use_flow_sigmas only"),
    (DEIS, {"algorithm_type": "dpmsolver++"}, "algorithm_type has a value .*'dpmsolver.*'deis'"),
    (DEIS, {"solver_type": "bh2"}, "solver_type has a value .*'bh2'.*'logrho'"),
    (DEIS, {"solver_order": 4}, "solver_order is out of range.*from 1 to 3"),
    (DEIS, {"final_sigmas_type": "zero"}, "no key of this name here.*final_sigmas_type"),
    (DEIS, {"prediction_type": "score"}, "prediction_type has a value .*'score'"),
    (SA, {"predictor_order": 5}, "predictor_order is out of range.*from 1 to 4"),
    (SA, {"corrector_order": 0}, "corrector_order is out of range.*from 1 to 4"),
    (SA, {"tau_func": 1.0}, "tau_func must be a function of time.*1.0.*lambda"),
    (SA, {"algorithm_type": "dpmsolver++"}, "algorithm_type has a value .*'noise_prediction'"),
    (SA, {"second_order": "half"}, "second_order has a value .*'released', 'taylor'"),
    (SA, {"tau_func": lambda t: -1.0}, "tau is out of range.*-1.0"),
]


@pytest.mark.parametrize(("name", "keys", "text"), REFUSED)
def test_refused(name: str, keys: Config, text: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){text}"):
        plan_from_diffusers({"_class_name": name, **keys}, 10)
