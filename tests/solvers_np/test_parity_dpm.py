"""DPM-Solver's four diffusers classes: the same times, and the same state after every step, from the same draws.

diffusers is run widened to float64, where nothing but a formula can make a difference, and as it is. In float32 our
states are held to its float64 ones, and to its float32 ones as far as those hold to themselves.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trajectories import Config

from dpmrt.errors import OptionError
from dpmrt.solvers_np import plan_from_diffusers

MULTI, INVERSE = "DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler"
SINGLE, EDM = "DPMSolverSinglestepScheduler", "EDMDPMSolverMultistepScheduler"
SCHEDULE = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTION = ("epsilon", "sample", "v_prediction")
LADDERS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


@pytest.fixture(scope="session")
def check(check: Callable) -> Callable[[Config, int], None]:
    return functools.partial(check, lossy=1.0)


def algorithms(kind: str) -> list[tuple[str, str, int]]:
    """Return (algorithm, final sigma, order) for all that diffusers has a formula for."""
    listed = [("dpmsolver++", final, order) for final in ("zero", "sigma_min") for order in (1, 2, 3)]
    most = 3 if kind in (MULTI, SINGLE) else 2
    listed += [("sde-dpmsolver++", final, order) for final in ("zero", "sigma_min") for order in range(1, most + 1)]
    if kind == EDM:  # whose last step to sigma_min has no length: the noise in it is the root of what rounding left
        return [row for row in listed if row[:2] != ("sde-dpmsolver++", "sigma_min")]
    listed += [("dpmsolver", "sigma_min", order) for order in (1, 2, 3)]
    if kind == MULTI:
        listed += [("sde-dpmsolver", "sigma_min", order) for order in (1, 2)]
    return listed


def drawn(choice: Callable, kind: str, algorithm: str, final: str, order: int) -> Config:
    """Return a config whose numbers diffusers can compute, with the rest of its keys chosen."""
    config = {
        "_class_name": kind,
        "algorithm_type": algorithm,
        "solver_order": order,
        "solver_type": choice(("midpoint", "heun")),
        "lower_order_final": choice((True, False)),
        "prediction_type": choice(PREDICTION),
        "final_sigmas_type": final,
        "thresholding": choice((True, False, False)) and not (kind == SINGLE and algorithm == "dpmsolver"),
        "sample_max_value": choice((1.0, 2.5)),
    }
    if kind != SINGLE:
        config["euler_at_final"] = choice((True, False))
    if kind == EDM:
        config |= {
            "prediction_type": choice(("epsilon", "v_prediction")),
            "sigma_schedule": choice(("karras", "exponential")),
            "rho": choice((7.0, 5.0)),
            "sigma_data": choice((0.5, 1.0)),
            "sigma_max": choice((80.0, 20.0)),
        }
        config["euler_at_final"] = config["euler_at_final"] or final == "sigma_min"
        return config
    variance = choice((None, "learned", "learned_range", "fixed_small"))
    config |= {"beta_schedule": choice(SCHEDULE), "variance_type": variance}
    source = choice((None, "flow", *(LADDERS if kind == MULTI else LADDERS[:3])))
    if kind == INVERSE:
        del config["final_sigmas_type"]
        if algorithm == "sde-dpmsolver++":
            source = "flow"  # the noise of all others rises
    if source == "flow":
        config |= {"use_flow_sigmas": True, "flow_shift": choice((1.0, 3.0))}
        config["prediction_type"] = choice(
            ("epsilon", "sample") if algorithm == "dpmsolver" else ("epsilon", "sample", "flow_prediction")
        )
        if kind != INVERSE and choice((True, False)):
            config |= {"use_dynamic_shifting": True, "mu": choice((0.3, 1.1))}
    elif source is not None:
        config[source] = True
    if source is None:
        config["lambda_min_clipped"] = choice((-math.inf, -5.1))
    if source is None and kind != SINGLE:
        config["timestep_spacing"] = choice(("linspace", "leading", "trailing"))
    # a last step of no length is 0/0 above order 1 in diffusers
    repeats = source in LADDERS and final == "sigma_min"
    if kind == INVERSE:
        repeats = source is not None or config["timestep_spacing"] == "trailing"
    if repeats and kind == SINGLE:
        del config[source]
    elif repeats:
        config["euler_at_final"] = True
    return config


@pytest.mark.parametrize("kind", [MULTI, SINGLE, INVERSE, EDM])
@pytest.mark.parametrize("seed", range(2))
def test_every_algorithm_and_order(check: Callable, kind: str, seed: int) -> None:
    choice = random.Random(f"{kind} {seed}").choice
    for algorithm, final, order in algorithms(kind):
        config = drawn(choice, kind, algorithm, final, order)
        if config.get("algorithm_type") == "sde-dpmsolver" and config.get("use_flow_sigmas"):
            config["prediction_type"] = "epsilon"
        for steps in (choice((1, 2, 3, 4)), choice((5, 6, 10, 14)), choice((15, 20, 21))):
            check(config, max(steps, 2) if config.get("use_flow_sigmas") or kind == EDM else steps)


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("source", ["use_flow_sigmas", *LADDERS])
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
def test_every_source_of_sigmas(check: Callable, source: str, algorithm: str, steps: int) -> None:
    for kind, order in itertools.product((MULTI, SINGLE), (1, 2, 3)):
        if kind == MULTI or source != "use_lu_lambdas":
            config = {"_class_name": kind, "algorithm_type": algorithm, "solver_order": order, source: True}
            check({**config, "beta_schedule": SCHEDULE[(order + steps) % 3]}, steps)


@given(data=st.data(), steps=st.integers(2, 40))
def test_drawn_configurations(peer: Any, check: Callable, data: st.DataObject, steps: int) -> None:
    kind = data.draw(st.sampled_from([MULTI, SINGLE, INVERSE, EDM]))
    algorithm, final, order = data.draw(st.sampled_from(algorithms(kind)))
    config = drawn(lambda values: data.draw(st.sampled_from(list(values))), kind, algorithm, final, order)
    assume(not (algorithm == "sde-dpmsolver" and config["prediction_type"] == "flow_prediction"))
    if kind == EDM:
        config["sigma_min"] = data.draw(st.floats(1e-3, 0.1))
    else:
        config["num_train_timesteps"] = data.draw(st.integers(100, 1200))
        config["beta_end"] = data.draw(st.floats(5e-3, 0.05))
    if kind == INVERSE:
        times = peer.scheduler(config, steps).timesteps
        assume(times[0] != times[1])  # diffusers then starts at the second, and runs out of sigmas
    check(config, steps)


def test_times_that_coincide_are_kept_once(check: Callable) -> None:
    config = {"_class_name": INVERSE, "num_train_timesteps": 60, "use_karras_sigmas": True, "euler_at_final": True}
    plan = plan_from_diffusers(config, 50)
    assert plan.calls < 50
    check(config, 50)


def test_orders_beyond_the_steps_are_lowered_as_diffusers_lowers_them(check: Callable) -> None:
    for kind, steps in itertools.product((MULTI, SINGLE, INVERSE, EDM), (1, 2)):
        check({"_class_name": kind, "solver_order": 3}, steps)


def test_the_initial_scale_of_edm() -> None:
    plan = plan_from_diffusers({"_class_name": EDM}, 5)
    assert plan.init_scale == pytest.approx(math.hypot(80.0, 1.0))
    assert plan.in_scale[0] == pytest.approx(1 / math.hypot(80.0, 0.5))


def test_the_third_order_of_the_papers_can_be_asked_for() -> None:
    config = {"_class_name": MULTI, "solver_order": 3, "algorithm_type": "sde-dpmsolver++"}
    plans = [plan_from_diffusers(config, 20, third_order=t).digest() for t in ("diffusers", "released", "taylor")]
    assert len(set(plans)) == 3
    assert plan_from_diffusers(config, 20).digest() == plans[0]


REFUSED = [
    (MULTI, {"prediction_type": "flow_prediction"}, "needs the sigmas of a flow.*use_flow_sigmas = False"),
    (
        MULTI,
        {
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "algorithm_type": "dpmsolver",
            "final_sigmas_type": "sigma_min",
        },
        "flow_prediction is for solvers that integrate x0",
    ),
    (MULTI, {"prediction_type": "v_prediction", "use_flow_sigmas": True}, "leaves its norm out.*'flow_prediction'"),
    (MULTI, {"prediction_type": "score"}, "prediction_type has a value .*'score'.*'flow_prediction'"),
    (MULTI, {"variance_type": "learned_rage"}, "variance_type has a value .*'learned_range'"),
    (MULTI, {"third_order": "taylor"}, "third_order needs solver_order = 3.*'taylor'"),
    (MULTI, {"use_karras_sigmas": True, "use_beta_sigmas": True}, "only one ladder of sigmas.*karras.*beta"),
    (MULTI, {"mu": 0.5}, "mu is read with use_dynamic_shifting only"),
    (SINGLE, {"algorithm_type": "sde-dpmsolver"}, "algorithm_type has a value .*'sde-dpmsolver'"),
    (SINGLE, {"algorithm_type": "dpmsolver"}, "does not end at zero noise in diffusers"),
    (SINGLE, {"euler_at_final": True}, "no key of this name here.*euler_at_final"),
    (SINGLE, {"solver_order": 3, "third_order": "released"}, "third_order has a value .*'released'.*'taylor'"),
    (INVERSE, {"final_sigmas_type": "zero"}, "no key of this name here.*final_sigmas_type"),
    (INVERSE, {"algorithm_type": "sde-dpmsolver++"}, "noise rises takes no solver that adds noise"),
    (
        INVERSE,
        {"algorithm_type": "sde-dpmsolver++", "use_flow_sigmas": True, "solver_order": 3},
        "no third order of sde-dpmsolver\\+\\+",
    ),
    (EDM, {"algorithm_type": "dpmsolver"}, "algorithm_type has a value .*'dpmsolver'"),
    (EDM, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "no third order.*third_order='taylor'"),
    (EDM, {"prediction_type": "sample"}, "prediction_type has a value .*'sample'.*'epsilon'"),
    (EDM, {"sigma_min": 100.0}, "sigma_min must lie below sigma_max"),
    (EDM, {"sigma_data": 0.0}, "sigma_data must be positive"),
]


@pytest.mark.parametrize(("name", "keys", "text"), REFUSED)
def test_refused(name: str, keys: Config, text: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){text}"):
        plan_from_diffusers({"_class_name": name, **keys}, 10)
