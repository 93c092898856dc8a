"""Adams weights, UniPC, DEIS, SA-Solver, PNDM and iPNDM: what the table of cases and diffusers do not measure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from measure import law_errors, plan_for
from problems import BIMODAL, QUANTILES, encoding, graded, network

from dpmrt.errors import OptionError
from dpmrt.solvers_np import Case, Grid, Level, compile_plan, make_schedule, run_plan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solvers.adams import exponential_step, moments, weights_for
from dpmrt.solvers_np.solvers.pndm import multistep

VP = make_schedule("vp-linear")
START, END = 0.7, 0.2
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(40)


def integral(f: Any) -> float:
    return float((WEIGHTS * f((POINTS + 1) / 2)).sum() / 2)


def error(solver: str, steps: int, power: float = 1.0, turn: bool = False, **options: Any) -> float:
    grid = graded(VP, steps, START, END, power)
    grid = encoding(grid) if turn else grid
    x = run_plan(
        compile_plan(solver, VP, steps, grid=grid, **options),
        network(BIMODAL, VP, "epsilon"),
        BIMODAL.at(QUANTILES, next(iter(grid.start))),
    )
    return float(np.abs(x - BIMODAL.at(QUANTILES, grid.last)).max())


def measured(solver: str, steps: tuple[int, ...], power: float = 1.0, *, turn: bool = False, **options: Any) -> float:
    errors = [error(solver, n, power, turn, **options) for n in steps]
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


# Weights.


@given(
    nodes=st.lists(st.floats(-6, 1), min_size=1, max_size=5, unique=True),
    z=st.floats(-4, 4),
)
def test_weights_integrate_the_polynomial_through_the_nodes(nodes: list[float], z: float) -> None:
    assume(all(abs(a - b) > 0.1 for i, a in enumerate(nodes) for b in nodes[:i]))
    weights = weights_for(nodes, moments(len(nodes), z))
    for j, node in enumerate(nodes):
        others = [n for n in nodes if n != node]

        def basis(u: np.ndarray, node: float = node, others: list[float] = others) -> np.ndarray:
            return np.exp(z * (1 - u)) * math.prod(((u - n) / (node - n) for n in others), start=1.0)

        exact = integral(basis)
        largest = max(abs(w) for w in weights)
        assert weights[j] == pytest.approx(exact, rel=1e-9, abs=1e-9 * largest)


def test_even_nodes_give_the_weights_of_adams() -> None:
    tables = {
        1: [1.0],
        2: [1.5, -0.5],
        3: [23 / 12, -16 / 12, 5 / 12],
        4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    }
    for count, table in tables.items():
        rows = PlanWriter(start=Level(0.0, 1.0, 1.0))
        past = []
        for _ in range(count):
            past.insert(0, rows.call(Level(0.0, 1.0, 1.0)))
            rows.move(rows.x)
        assert [multistep(past)[next(iter(q.weights))] for q in past] == pytest.approx(table, rel=1e-14)
    corrected = weights_for([1, 0, -1, -2], moments(4, 0.0))
    assert corrected == pytest.approx([9 / 24, 19 / 24, -5 / 24, 1 / 24], rel=1e-14)


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0, 1.5])
@pytest.mark.parametrize("buffers_x0", [True, False])
def test_a_step_keeps_the_law_of_a_known_x0(buffers_x0: bool, tau: float) -> None:
    """With x = alpha x0 + sigma eps, x0 known: mean and variance are those of the next level."""
    here, there = (VP.level(lambda_) for lambda_ in (-0.4, 0.3))
    step = exponential_step(here, there, buffers_x0=buffers_x0, tau=tau)
    if buffers_x0:
        assert step.state * here.alpha + step.scale * moments(1, step.z)[0] == pytest.approx(there.alpha, rel=1e-12)
        assert (step.state * here.sigma) ** 2 + step.noise**2 == pytest.approx(there.sigma**2, rel=1e-12)
    else:
        assert step.state * here.alpha == pytest.approx(there.alpha, rel=1e-12)
        if not tau:
            assert step.state * here.sigma + step.scale * moments(1, step.z)[0] == pytest.approx(there.sigma)


def test_a_step_onto_no_noise_has_the_limit_s_weights() -> None:
    here, end = VP.level(1.0), Level(math.nan, 1.0, 0.0)
    x0, eps = (exponential_step(here, end, buffers_x0=b) for b in (True, False))
    assert (x0.state, x0.scale, x0.noise, x0.constant) == (0.0, 1.0, 0.0, True)
    assert (eps.state, eps.scale) == pytest.approx((1 / here.alpha, -here.sigma / here.alpha))
    near = exponential_step(here, Level(math.nan, 1.0, 1e-6), buffers_x0=False)
    assert near.scale * moments(1, near.z)[0] == pytest.approx(eps.scale, rel=1e-5)


# Orders.


@pytest.mark.parametrize(
    ("solver", "options", "power", "order"),
    [
        ("deis", {"order": 4}, 2.25, 4.0),
        ("unipc", {"order": 4}, 1.85, 5.0),
        ("unipc", {"order": 4, "predict_x0": False}, 1.85, 5.0),
        ("unipc", {"order": 4, "corrector": False}, 2.25, 4.0),
        ("sa-solver", {"tau": 0.0, "predictor_order": 4, "corrector_order": 0}, 2.25, 4.0),
        ("sa-solver", {"tau": 0.0, "predictor_order": 1, "corrector_order": 1}, 1.0, 1.0),
    ],
)
def test_orders_above_and_below_the_usual(solver: str, options: dict[str, Any], power: float, order: float) -> None:
    steps = (48, 96, 192) if order < 4 else (128, 256, 512) if order < 5 else (64, 128, 256)
    assert measured(solver, steps, power, lower_order_final=False, **options) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(
    ("solver", "options", "order"),
    [
        ("unipc", {"order": 2}, 3.0),
        ("unipc", {"order": 1, "predict_x0": False}, 2.0),
        ("deis", {"order": 2}, 2.0),
        ("sa-solver", {"tau": 0.0}, 2.0),
        ("pndm", {}, 2.0),
        ("pndm", {"skip_prk_steps": True}, 2.0),
        ("ipndm", {}, 2.0),
    ],
)
def test_encoding_is_of_the_same_order(solver: str, options: dict[str, Any], order: float) -> None:
    final = {} if solver.endswith("pndm") else {"lower_order_final": False}
    power = 3.5 / 3 if order == 3 else 1.0
    found = measured(solver, (64, 128, 256), power, turn=True, **final, **options)
    assert found == pytest.approx(order, abs=0.3)


def test_the_corrector_lowers_the_error_at_no_further_call() -> None:
    for order in (1, 2, 3):
        plain, corrected = (
            error("unipc", 80, order=order, corrector=c, lower_order_final=False) for c in (False, True)
        )
        assert corrected < plain / 2
        assert compile_plan("unipc", "linear", 20, order=order).calls == 20


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_the_weak_order_of_sa_solver_stays_2_above_order_2(tau: float) -> None:
    errors = law_errors("sa-solver", Case({"predictor_order": 3, "corrector_order": 3, "tau": tau}, 2.0), "epsilon")
    assert errors[-1] < 1e-4
    assert 1.8 < np.log2(errors[0] / errors[-1]) / 2 < 2.6


# One solver against another.


@pytest.mark.parametrize("grid", ["trailing", "logsnr", "karras"])
def test_deis_is_dpm_solver_s_taylor_form(grid: str) -> None:
    for order in (1, 2):
        ours = compile_plan("deis", "linear", 9, grid=grid, order=order)
        kind = {"order": order, "solver_type": "heun"}
        theirs = compile_plan("dpmsolver", "linear", 9, grid=grid, **kind)
        np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-9, atol=1e-12)
    third = {"order": 3, "third_order": "taylor", "solver_type": "heun"}
    ours, theirs = (
        compile_plan(name, "linear", 20, grid="logsnr", **o)
        for name, o in (("deis", {"order": 3}), ("dpmsolver", third))
    )
    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-8, atol=1e-10)


def test_unip_of_order_2_and_bh1_is_dpm_solver_pp_midpoint_with_another_slope() -> None:
    """UniP's slope weighs h/2, DPM-Solver++'s midpoint (1 - e^-h)/2, which is bh2."""
    bh2 = compile_plan("unipc", "linear", 20, grid="logsnr", order=2, corrector=False, lower_order_final=False)
    midpoint = compile_plan("dpmsolver++", "linear", 20, grid="logsnr", order=2, lower_order_final=False)
    np.testing.assert_allclose(bh2.weights, midpoint.weights, rtol=1e-9, atol=1e-12)


def test_sa_solver_without_noise_is_unipc_bh1() -> None:
    same = {"grid": "logsnr", "lower_order_final": False}
    for order in (1, 2, 3):
        sa = compile_plan(
            "sa-solver", "linear", 12, tau=0.0, predictor_order=order, corrector_order=order + 1, **same
        )
        unipc = compile_plan("unipc", "linear", 12, order=order, solver_type="bh1", **same)
        np.testing.assert_allclose(sa.weights, unipc.weights, rtol=1e-12, atol=1e-14)


def test_order_1_is_ddim() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3))

    def end(name: str, **options: Any) -> np.ndarray:
        return run_plan(compile_plan(name, "linear", 8, **options), lambda x, t: np.tanh(x), x)

    ddim = end("ddim")
    for name, options in (
        ("deis", {"order": 1}),
        ("ipndm", {"order": 1}),
        ("unipc", {"order": 1, "corrector": False}),
        ("unipc", {"order": 1, "corrector": False, "predict_x0": False}),
        ("sa-solver", {"tau": 0.0, "predictor_order": 1, "corrector_order": 0}),
    ):
        np.testing.assert_allclose(end(name, **options), ddim, rtol=1e-10)


def test_variants_of_unipc_differ_in_slopes_of_two_values_only() -> None:
    for order in (1, 2):
        plans = [compile_plan("unipc", "linear", 9, order=order, solver_type=k).digest() for k in ("bh1", "bh2")]
        assert plans[0] != plans[1]
    three = [
        compile_plan("unipc", "linear", 9, grid="logsnr", order=3, solver_type=k, lower_order_final=False).weights
        for k in ("bh1", "bh2")
    ]
    assert not np.allclose(three[0][:4], three[1][:4], rtol=1e-6)  # the start goes through orders 1 and 2
    np.testing.assert_allclose(three[0][6:], three[1][6:], rtol=1e-12)


def test_steps_left_as_predicted() -> None:
    every = compile_plan("unipc", "linear", 6, disable_corrector=list(range(6)))
    assert every.digest() == compile_plan("unipc", "linear", 6, corrector=False).digest()
    first = compile_plan("unipc", "linear", 6, disable_corrector=[0])
    plain = compile_plan("unipc", "linear", 6)
    assert first.weights[0].tolist() == plain.weights[0].tolist()
    assert first.weights[1].tolist() != plain.weights[1].tolist()
    last = compile_plan("unipc", "linear", 6, disable_corrector=[5])
    assert last.digest() == plain.digest()  # no call follows that could correct it


# Rows, slots and noise.


@pytest.mark.parametrize("steps", [12, 200])
def test_slots_do_not_grow_with_the_steps(steps: int) -> None:
    def slots(name: str, **options: Any) -> int:
        return compile_plan(name, "linear", steps, **options).slots

    for order in (1, 2, 3, 5):
        assert slots("unipc", order=order) == order + 1
        assert slots("unipc", order=order, predict_x0=False) == order + 1
        assert slots("deis", order=order) == order
    assert slots("sa-solver") == 3
    assert slots("sa-solver", predictor_order=3, corrector_order=4) == 4
    assert slots("pndm") == 6
    assert slots("pndm", skip_prk_steps=True) == 4
    assert slots("ipndm") == 4


def test_calls_of_pndm() -> None:
    prk, plms = compile_plan("pndm", "linear", 10), compile_plan("pndm", "linear", 10, skip_prk_steps=True)
    assert (prk.calls, plms.calls) == (19, 11)
    assert plms.timesteps[1] == plms.timesteps[2]
    t = prk.timesteps
    assert t[1] == t[2]
    assert t[0] > t[1] > t[3] == t[4]
    assert compile_plan("pndm", "linear", 1, skip_prk_steps=True).calls == 1


def test_tau_acts_between_two_times() -> None:
    plan = compile_plan("sa-solver", "linear", 20, tau=0.8, tau_between=(200, 800))
    inside = (plan.timesteps >= 200) & (plan.timesteps <= 800)
    assert ((plan.noise != 0) == inside).all()
    assert plan.draws == inside.sum()
    turned = compile_plan("sa-solver", "linear", 20, tau=0.8, tau_between=(800, 200))
    assert turned.digest() == plan.digest()
    assert compile_plan("sa-solver", "linear", 20, tau=0.0).draws == 0
    assert compile_plan("sa-solver", "linear", 20).draws == 19  # none in the step onto no noise


def test_a_step_onto_no_noise_is_of_order_1() -> None:
    for name in ("unipc", "sa-solver"):
        plan = compile_plan(name, "linear", 6, lower_order_final=False)
        assert plan.weights[-1].tolist() == [0.0, *(float(k == plan.quantity[-1]) for k in range(plan.slots))]
    for options in ({}, {"predict_x0": False}):
        case = Case({"order": 3, "lower_order_final": False, **options}, 1.0)
        assert np.isfinite(
            plan_for("unipc", case, Grid.at_times(make_schedule("linear"), np.arange(9)[::-1] * 100.0)).weights
        ).all()


def test_a_limit_makes_eps_that_of_the_limited_x0() -> None:
    def last(name: str, **options: Any) -> np.ndarray:
        x = np.full((1, 2), 3.0)
        return run_plan(compile_plan(name, "linear", 6, **options), lambda x, t: 0 * x, x)

    for name in ("unipc", "deis", "pndm", "ipndm"):
        assert np.abs(last(name)).max() > 1.0
        assert np.abs(last(name, clip=1.0)).max() <= 1.0 + 1e-12
    assert np.abs(last("unipc", predict_x0=False, threshold=0.9)).max() <= 1.0 + 1e-12


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("unipc", {"order": 7}, r"order is out of range\n.*7\n.*from 1 to 6"),
    ("unipc", {"order": 4, "steps": 3}, r"order is beyond the steps\n.*order=4 with 3 steps"),
    ("unipc", {"order": 0}, r"order is out of range\n.*0\n.*from 1 to"),
    ("unipc", {"solver_type": "vary_coeff"}, r"solver_type has a value .*\n.*'vary_coeff'\n.*'bh1', 'bh2'"),
    ("unipc", {"disable_corrector": [6]}, r"disable_corrector names a step that there is not\n.*6 of 6.*\n.*0 to 5"),
    ("unipc", {"disable_corrector": [0.5]}, r"disable_corrector names a step that there is not\n.*0.5"),
    ("unipc", {"variant": "bh2"}, r"neither solver .* has an option of this name\n.*'variant'"),
    ("deis", {"order": 7}, r"order is out of range"),
    ("deis", {"order": 4, "steps": 3}, r"order is beyond the steps"),
    ("sa-solver", {"predictor_order": 4, "steps": 3}, r"order is beyond the steps"),
    ("sa-solver", {"predictor_order": 7}, r"order is out of range"),
    ("sa-solver", {"corrector_order": -1}, r"corrector_order is out of range\n.*-1\n.*from 0 to"),
    ("sa-solver", {"tau": -0.5}, r"tau is out of range\n.*-0.5\n.*0 \(no noise\)"),
    ("sa-solver", {"tau_between": (1.0, 2.0, 3.0)}, r"tau_between must be two times\n"),
    ("sa-solver", {"second_order": "half"}, r"second_order has a value .*\n.*\n.*'released', 'taylor'"),
    ("pndm", {"steps": 3}, r"Runge-Kutta start takes three steps.*\n.*steps=3\n.*at least 4\n.*skip_prk_steps=True"),
    ("ipndm", {"order": 5}, r"order is out of range\n.*5\n.*from 1 to 4"),
    ("ipndm", {"clip": -1.0}, r"clip must be a positive limit"),
]


@pytest.mark.parametrize(("solver", "options", "text"), REFUSED)
def test_refused(solver: str, options: dict[str, Any], text: str) -> None:
    given = {key: value for key, value in options.items() if key != "steps"}
    with pytest.raises(OptionError, match=text):
        compile_plan(solver, "linear", options.get("steps", 6), **given)


def test_sa_solver_encodes_only_without_noise() -> None:
    grid = encoding(graded(VP, 6, START, END, 1.0))
    with pytest.raises(OptionError, match=r"noise rises takes no steps of 'sa-solver' .*\n.*tau > 0\n.*tau=0"):
        compile_plan("sa-solver", VP, 6, grid=grid)


@pytest.mark.parametrize("solver", ["unipc", "deis", "sa-solver", "pndm", "ipndm"])
def test_ends_without_signal_are_refused(solver: str) -> None:
    flow = make_schedule("flow")
    with pytest.raises(OptionError, match=r"infinite where no signal is left\n.*alpha = 0 at the first time"):
        compile_plan(solver, flow, 6, grid="uniform", prediction="flow", t_start=flow.t_max)


@pytest.mark.parametrize("name", ["unipc", "deis", "dpmsolver++", "lms"])
def test_an_order_beyond_the_steps_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"order is beyond the steps\n.*order=3 with 2 steps\n.*from 1 to 2"):
        compile_plan(name, "linear", 2, order=3)
