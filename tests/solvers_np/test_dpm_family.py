"""DPM-Solver's family: orders beside those of the table of cases, forms against each other, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from problems import BIMODAL, GAUSSIANS, QUANTILES, encoding, graded, network

from dpmrt.errors import OptionError
from dpmrt.solvers_np import Grid, Level, Levels, compile_plan, make_schedule, plan_from_diffusers, run_plan
from dpmrt.solvers_np.solvers.dpm_singlestep import _grid_orders, _orders

VP = make_schedule("vp-linear")
START, END = 0.7, 0.2
TOLERANCE = 0.15


def slope(steps: Any, errors: list[float]) -> float:
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def error(solver: str, steps: int, *, power: float = 1.0, backwards: bool = False, **options: Any) -> float:
    grid = graded(VP, steps, START, END, power)
    grid = encoding(grid) if backwards else grid
    plan = compile_plan(solver, VP, steps, grid=grid, **options)
    x = run_plan(plan, network(BIMODAL, VP, "epsilon"), BIMODAL.at(QUANTILES, next(iter(grid.start))))
    return float(np.abs(x - BIMODAL.at(QUANTILES, grid.last)).max())


def measured(solver: str, steps: tuple[int, ...] = (40, 80, 160, 320), **options: Any) -> float:
    return slope(np.array(steps), [error(solver, n, **options) for n in steps])


@pytest.mark.parametrize("solver", ["dpmsolver", "dpmsolver++"])
def test_multistep_of_order_3_is_held_back_by_the_released_formula_alone(solver: str) -> None:
    third = {"order": 3, "lower_order_final": False, "power": 1.75}
    assert measured(solver, (160, 320, 640), **third) == pytest.approx(2.0, abs=TOLERANCE)
    assert measured(solver, third_order="taylor", **third) == pytest.approx(3.0, abs=TOLERANCE)


@pytest.mark.parametrize("solver", ["dpmsolver-singlestep-grid", "dpmsolver++singlestep-grid"])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
def test_grid_form_is_of_order_3_where_no_step_is_left_over(solver: str, solver_type: str) -> None:
    steps = (39, 81, 159, 321)
    assert measured(solver, steps, order=3, solver_type=solver_type) == pytest.approx(3.0, abs=TOLERANCE)
    lowered = measured(solver, steps, order=3, solver_type=solver_type, lower_order_final=True)
    assert lowered == pytest.approx(2.0, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"order": 2, "r1": 0.3}, 2.0),
        ({"order": 2, "r1": 1.0, "solver_type": "heun"}, 2.0),
        ({"order": 3, "r1": 0.5}, 3.0),
        ({"order": 3, "r1": 0.2, "solver_type": "heun"}, 3.0),
    ],
)
@pytest.mark.parametrize("solver", ["dpmsolver-singlestep", "dpmsolver++singlestep"])
def test_singlestep_with_other_inner_points(solver: str, options: dict[str, Any], order: float) -> None:
    assert measured(solver, (20, 40, 80), **options) == pytest.approx(order, abs=TOLERANCE)


@pytest.mark.parametrize("name", ["", "singlestep", "singlestep-grid"])
@pytest.mark.parametrize("family", ["dpmsolver", "dpmsolver++"])
def test_encoding_is_of_the_same_order(family: str, name: str) -> None:
    solver = family if not name else f"{family}{name}" if family.endswith("+") else f"{family}-{name}"
    final = {} if name == "singlestep" else {"lower_order_final": False}
    for order in (1, 2):
        found = measured(solver, (40, 80, 160), backwards=True, order=order, **final)
        assert found == pytest.approx(order, abs=TOLERANCE)


def test_there_and_back_again() -> None:
    grid = graded(VP, 40, START, END, 1.0)
    x, model = BIMODAL.at(QUANTILES, grid.last), network(BIMODAL, VP, "epsilon")
    up, down = (compile_plan("dpmsolver++singlestep", VP, 40, grid=g, order=3) for g in (encoding(grid), grid))
    np.testing.assert_allclose(run_plan(down, model, run_plan(up, model, x)), x, atol=1e-5)


def law(plan: Any, start: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the end for Gaussian data: the plan is an affine map of its start and its draws."""
    mean, spread = GAUSSIANS.mean[:, 0], GAUSSIANS.spread[:, 0]
    x = np.tile(start.alpha * mean, (2 + plan.draws, 1))
    x[1] += np.hypot(start.alpha * spread, start.sigma)
    noise = np.zeros((plan.draws, *x.shape))
    noise[np.arange(plan.draws), 2 + np.arange(plan.draws)] = 1.0
    end = run_plan(plan, network(GAUSSIANS, VP, "epsilon"), x, noise=noise)
    return end[0], ((end[1:] - end[0]) ** 2).sum(0)


def off(solver: str, steps: int, **options: Any) -> float:
    grid = graded(VP, steps, START, END, 1.0)
    plan = compile_plan(solver, VP, steps, grid=grid, **options)
    mean, variance = law(plan, next(iter(grid.start)))
    alpha, sigma = grid.last.alpha, grid.last.sigma
    want = (alpha * GAUSSIANS.spread[:, 0]) ** 2 + sigma**2
    return float(np.hypot(mean - alpha * GAUSSIANS.mean[:, 0], variance - want).max())


@pytest.mark.parametrize("third_order", ["released", "taylor"])
@pytest.mark.parametrize("solver", ["sde-dpmsolver", "sde-dpmsolver++"])
def test_mean_and_variance_of_3m_tend_to_the_exact_ones_in_order_2(solver: str, third_order: str) -> None:
    options = {"order": 3, "third_order": third_order, "lower_order_final": False}
    found = [off(solver, n, **options) for n in (40, 80, 160)]
    assert found[-1] < 2e-4
    assert slope(np.array((40, 80, 160)), found) > 1.9


def test_diffusers_third_order_of_the_sde_is_worse_than_its_second() -> None:
    second, third = ({"order": k, "lower_order_final": False} for k in (2, 3))
    assert off("sde-dpmsolver++", 80, third_order="diffusers", **third) > 10 * off("sde-dpmsolver++", 80, **second)
    assert off("sde-dpmsolver++", 80, **third) < off("sde-dpmsolver++", 80, **second)


def test_diffusers_third_order_of_the_singlestep_sde_does_not_converge() -> None:
    options = {"order": 3, "solver_type": "heun"}
    assert off("sde-dpmsolver++singlestep-grid", 81, third_order="diffusers", **options) > 1.0
    assert off("sde-dpmsolver++singlestep-grid", 81, **options) < 0.2


def test_eta_joins_the_ode_to_the_sde() -> None:
    digests = {eta: compile_plan("sde-dpmsolver++", "linear", 9, eta=eta).digest() for eta in (0.0, 0.5, 1.0)}
    assert digests[0.0] == compile_plan("dpmsolver++", "linear", 9).digest()
    assert digests[1.0] == compile_plan("sde-dpmsolver++", "linear", 9).digest()
    assert len(set(digests.values())) == 3
    found = [off("sde-dpmsolver++", n, eta=0.5, lower_order_final=False) for n in (40, 80, 160)]
    assert slope(np.array((40, 80, 160)), found) == pytest.approx(2.0, abs=0.2)


def k_diffusion_3m(sigmas: np.ndarray, eta: float, x: float, answers: list[float], draws: list[float]) -> float:
    """DPM++ 3M SDE in k-diffusion's variables: the state over alpha, and sigma over alpha."""
    lambdas = -np.log(sigmas)
    for i in range(len(sigmas) - 1):
        h = lambdas[i + 1] - lambdas[i]
        z, d = (1 + eta) * h, answers[i]
        x = np.exp(-z) * x - np.expm1(-z) * d
        if i:
            slopes = [(answers[j] - answers[j - 1]) * h / (lambdas[j] - lambdas[j - 1]) for j in (i, max(i - 1, 1))]
            phi_2 = np.expm1(-z) / z + 1
            x += phi_2 * slopes[0]
        if i > 1:
            bend = (slopes[0] - slopes[1]) * h / (lambdas[i] - lambdas[i - 2])
            x += phi_2 * bend * (lambdas[i] - lambdas[i - 1]) / h - (phi_2 / z - 0.5) * bend
        x += draws[i] * sigmas[i + 1] * np.sqrt(-np.expm1(-2 * h * eta))
    return float(x)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_3m_sde_as_k_diffusion_computes_it(eta: float) -> None:
    sigmas = np.array([9.0, 5.0, 2.5, 1.1, 0.6, 0.2])
    grid = Grid.at_ratios(sigmas[:-1], np.arange(5.0, 0, -1), sigmas[-1], exploding=True)
    plan = compile_plan(
        "sde-dpmsolver++", "linear", 5, grid=grid, prediction="sample", order=3, eta=eta,
        solver_type="heun", lower_order_final=False,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x, answers, draws = 9 * rng.standard_normal(), rng.standard_normal(5).tolist(), rng.standard_normal((5, 1, 1))
    left = iter(answers)
    got = run_plan(plan, lambda x, t: np.full((1, 1), next(left)), np.array([[x]]), noise=draws)
    assert got[0, 0] == pytest.approx(k_diffusion_3m(sigmas, eta, x, answers, draws[:, 0, 0].tolist()), rel=1e-12)


@pytest.mark.parametrize("calls", range(2, 40))
def test_calls_are_divided_as_dpm_solver_fast_divides_them(calls: int) -> None:
    steps = calls // 3 + 1
    grid = graded(VP, steps, START, END, 1.0)
    plan = compile_plan("dpmsolver-singlestep", VP, steps, grid=grid, order=3, calls=calls)
    assert plan.calls == calls
    rest = {0: [3] * (steps - 2) + [2, 1], 1: [3] * (steps - 1) + [1], 2: [3] * (steps - 1) + [2]}[calls % 3]
    assert _orders(grid, 3, calls) == rest


@pytest.mark.parametrize("lowered", [True, False])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_order_of_each_step_is_diffusers(peer: Any, order: int, final: str, lowered: bool) -> None:
    for steps in range(order, 20):
        config = {"_class_name": "DPMSolverSinglestepScheduler", "solver_order": order, "final_sigmas_type": final}
        want = peer.scheduler({**config, "lower_order_final": lowered}, steps).order_list
        assert _grid_orders(steps, order, final == "zero" or (lowered and steps % order == 0)) == want


def test_singlestep_ends_on_zero_noise_with_order_1() -> None:
    for order in (1, 2, 3):
        plan = compile_plan("dpmsolver++singlestep", "linear", 6, order=order)
        assert plan.calls == 5 * order + 1
        assert plan.end == (1.0, 0.0)
    same = compile_plan("dpmsolver++singlestep", "linear", 6, order=1)
    assert same.digest() == compile_plan("dpmsolver++", "linear", 6, order=1).digest()


def test_the_defaults_take_a_single_step() -> None:
    for name in ("dpmsolver++", "sde-dpmsolver", "dpmsolver-singlestep-grid", "dpmsolver++singlestep"):
        assert compile_plan(name, "linear", 1).calls == 1


def test_lower_order_below_is_the_step_count_under_which_the_last_steps_are_lowered() -> None:
    def plan(steps: int, **options: Any) -> str:
        return compile_plan("dpmsolver++", "linear", steps, order=3, grid="logsnr", **options).digest()

    assert plan(12) == plan(12, lower_order_below=15) != plan(12, lower_order_below=10)
    assert plan(12, lower_order_below=10) == plan(12, lower_order_final=False)
    assert plan(9, lower_order_below=10) == plan(9)


def test_only_the_sign_of_the_bend_differs_in_diffusers_sde() -> None:
    for name in ("dpmsolver", "dpmsolver++", "sde-dpmsolver"):
        plans = [compile_plan(name, "linear", 20, order=3, third_order=t).digest() for t in ("released", "diffusers")]
        assert plans[0] == plans[1]
    config = {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3, "algorithm_type": "sde-dpmsolver++"}
    assert (
        plan_from_diffusers(config, 20).digest() != plan_from_diffusers(config, 20, third_order="released").digest()
    )


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "dpmsolver++",
        {"order": 3, "steps": 2},
        r"order is beyond the steps\n.*order=3 with 2 steps\n.*from 1 to 2\n.*leave out",
    ),
    ("sde-dpmsolver", {"order": 2, "steps": 1}, r"order is beyond the steps\n.*order=2 with 1 step\n"),
    ("dpmsolver-singlestep-grid", {"order": 3, "steps": 2}, r"order is beyond the steps"),
    ("dpmsolver", {"order": 0}, r"order is out of range\n.*0\n.*from 1 to 3"),
    (
        "dpmsolver++",
        {"third_order": "paper", "order": 3},
        r"third_order has a value .*\n.*'paper'\n.*'released', 'taylor'",
    ),
    ("dpmsolver++", {"third_order": "taylor"}, r"third_order needs order 3\n.*'taylor' with order=2"),
    ("dpmsolver++", {"eta": 0.5}, r"dpmsolver\+\+ takes no eta\n.*0.5\n.*sde-dpmsolver\+\+"),
    ("sde-dpmsolver++", {"eta": 1.5}, r"eta is out of range\n.*1.5\n.*0 \(the ODE\) to 1"),
    ("dpmsolver-singlestep", {"order": 4}, r"order is out of range\n.*4\n.*from 1 to 3"),
    ("dpmsolver-singlestep", {"solver_type": "bh1"}, r"solver_type has a value .*\n.*'bh1'\n.*'midpoint', 'heun'"),
    (
        "dpmsolver-singlestep",
        {"order": 1, "r1": 0.5},
        r"r1 is no place for the second call of a step\n.*r1=0.5 with order=1",
    ),
    ("dpmsolver-singlestep", {"r1": 0.0}, r"r1 is no place .*\n.*r1=0 with order=2\n.*0 < r1 <= 1 with order 2"),
    ("dpmsolver-singlestep", {"order": 3, "r1": 0.7}, r"r1 is no place .*\n.*r1=0.7 with order=3\n.*r1 < 2/3"),
    ("dpmsolver-singlestep", {"order": 3, "r2": 0.7}, r"neither solver .* has an option of this name\n.*'r2'"),
    ("dpmsolver-singlestep", {"calls": 5}, r"calls is out of range\n.*5\n.*from 6 to 11"),
    ("dpmsolver-singlestep", {"calls": 12}, r"calls is out of range\n.*12\n.*from 6 to 11"),
    ("dpmsolver-singlestep", {"denoise_to_zero": True}, r"denoise_to_zero needs a grid that ends inside"),
    (
        "dpmsolver++singlestep-grid",
        {"third_order": "released"},
        r"third_order has a value .*\n.*\n.*'taylor', 'diffusers'",
    ),
]


@pytest.mark.parametrize(("solver", "options", "text"), REFUSED)
def test_refused(solver: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        compile_plan(solver, "linear", **{"steps": 6, **options})


@pytest.mark.parametrize("solver", ["sde-dpmsolver", "sde-dpmsolver++", "sde-dpmsolver++singlestep-grid"])
def test_what_adds_noise_does_not_encode(solver: str) -> None:
    grid = encoding(graded(VP, 6, START, END, 1.0))
    with pytest.raises(
        OptionError, match=r"noise rises takes no solver that adds noise\n.*sde-dpm.*\n.*dpmsolver\+\+"
    ):
        compile_plan(solver, VP, 6, grid=grid)


@pytest.mark.parametrize("solver", ["dpmsolver", "dpmsolver++", "dpmsolver++singlestep"])
def test_ends_without_signal_or_noise_are_refused(solver: str) -> None:
    schedule = make_schedule("linear")
    to_zero = encoding(Grid.at_times(schedule, np.array([500.0, 200.0])))
    with pytest.raises(OptionError, match=r"cannot start where there is no noise\n.*sigma = 0 at the first time"):
        compile_plan(solver, schedule, 2, grid=to_zero)
    rising = Levels.of([100.0, 200.0], [0.9, 0.5], [0.4, 0.8])
    to_noise = Grid(rising, rising.part(1).then(Level(300.0, 0.0, 1.0)))
    with pytest.raises(OptionError, match=r"needs some signal\n.*alpha = 0 at the last time\n(.|\n)*'ddim'"):
        compile_plan(solver, schedule, 2, grid=to_noise)
