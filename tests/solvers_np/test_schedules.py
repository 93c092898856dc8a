"""Schedules: betas against diffusers, zero SNR, continuous time against its formulas, inverses, levels and views."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmrt.errors import OptionError
from dpmrt.solvers_np import SCHEDULES, NoiseSchedule, make_schedule
from dpmrt.solvers_np.schedules.flow import flow_mu
from dpmrt.solvers_np.schedules.scaled import Scaled

DISCRETE = [name for name in SCHEDULES if "train_steps" in SCHEDULES[name].__annotations__ and name != "flow"]
CONTINUOUS = sorted(set(SCHEDULES) - set(DISCRETE))
BETAS = [name for name in DISCRETE if name != "smld"]
#: every schedule, and each option that changes a formula
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in SCHEDULES),
    *((name, {"zero_snr": True, "train_steps": 50}) for name in BETAS),
    ("vp-linear", {"time_scale": 999.0, "t_min": 1e-5}),
    ("vp-linear", {"beta_min": 3.0, "beta_max": 3.0}),
    ("vp-linear", {"beta_min": 20.0, "beta_max": 0.1}),
    ("sub-vp", {"time_scale": 999.0}),
    ("vp-cosine", {"t_max": 0.9999}),
    ("ve", {"network_time": "sigma"}),
    ("edm", {"sigma_max": 700.0, "sigma_data": 1.0}),
    ("flow", {"shift": 3.0}),
    ("flow", {"mu": 0.8, "train_steps": 100}),
]


def label(variant: tuple[str, dict[str, Any]]) -> str:
    return "-".join([variant[0], *(f"{key}={value}" for key, value in variant[1].items())])


# Discrete time.


@pytest.mark.parametrize("total", [10, 1000])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_the_table_is_that_of_diffusers(name: str, zero_snr: bool, total: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    ends = {} if name == "squaredcos_cap_v2" else {"beta_start": 0.0003, "beta_end": 0.015}
    theirs = diffusers.DDPMScheduler(
        beta_schedule=name, num_train_timesteps=total, rescale_betas_zero_snr=zero_snr, **ends
    ).alphas_cumprod.numpy()
    ours = make_schedule(name, train_steps=total, zero_snr=zero_snr, **ends)
    np.testing.assert_allclose(ours.alpha(np.arange(total)) ** 2, theirs, rtol=3e-5, atol=1e-8)


def test_the_alias_is_the_same_schedule() -> None:
    assert SCHEDULES["cosine_beta"] is SCHEDULES["squaredcos_cap_v2"]


@pytest.mark.parametrize("name", BETAS)
def test_zero_snr_keeps_the_first_alpha_and_ends_without_signal(name: str) -> None:
    plain, rescaled = make_schedule(name), make_schedule(name, zero_snr=True)
    t = np.arange(1000)
    before, after = plain.alpha(t), rescaled.alpha(t)
    assert after[-1] == 0.0
    assert float(rescaled.sigma(999)) == 1.0
    # algorithm 1 is affine in sqrt(alpha bar)
    np.testing.assert_allclose(after, before[0] * (before - before[-1]) / (before[0] - before[-1]), rtol=1e-9, atol=0)


def test_before_a_last_time_without_signal_alpha_is_linear() -> None:
    schedule = make_schedule("linear", zero_snr=True)
    last = float(schedule.alpha(998))
    assert schedule.alpha([998.25, 998.5, 998.75]) == pytest.approx([0.75 * last, 0.5 * last, 0.25 * last], rel=1e-12)
    assert schedule.level(-math.inf) == (999.0, 0.0, 1.0, 1.0)


def test_from_alphas_cumprod_is_from_betas() -> None:
    betas = np.array([0.1, 0.4, 0.2])
    one, other = NoiseSchedule.from_betas(betas), NoiseSchedule.from_alphas_cumprod(np.cumprod(1 - betas))
    np.testing.assert_array_equal(one.alpha([0, 0.5, 2]), other.alpha([0, 0.5, 2]))


# Continuous time.

T = np.linspace(0.01, 0.99, 50)


def test_vp_linear_integrates_its_beta() -> None:
    schedule = make_schedule("vp-linear", beta_min=0.2, beta_max=10.0)
    for t in T:
        u = np.linspace(0, t, 1001)
        integral = np.trapezoid(0.2 + u * 9.8, u)
        assert float(schedule.alpha(t)) == pytest.approx(math.exp(-integral / 2), rel=1e-9)
        assert float(schedule.sigma(t)) == pytest.approx(math.sqrt(1 - math.exp(-integral)), rel=1e-9)


def test_vp_linear_is_the_limit_of_the_linear_betas() -> None:
    discrete = make_schedule("linear", train_steps=100_000, beta_start=1e-6, beta_end=2e-4)
    continuous = make_schedule("vp-linear")
    np.testing.assert_allclose(discrete.lambda_(T * 1e5 - 1), continuous.lambda_(T), atol=2e-3)


def test_vp_cosine() -> None:
    schedule = make_schedule("vp-cosine")
    bar = np.cos((T + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alpha(T) ** 2, bar, rtol=1e-12)
    np.testing.assert_allclose(schedule.sigma(T) ** 2, 1 - bar, rtol=1e-12)
    assert (schedule.t_min, schedule.t_max) == (1e-3, 0.9946)


def test_sub_vp() -> None:
    schedule, vp = make_schedule("sub-vp"), make_schedule("vp-linear")
    np.testing.assert_array_equal(schedule.alpha(T), vp.alpha(T))
    np.testing.assert_allclose(schedule.sigma(T), 1 - vp.alpha(T) ** 2, rtol=1e-12)


def test_time_scale_is_the_network_s() -> None:
    one, other = make_schedule("vp-linear"), make_schedule("vp-linear", time_scale=999.0)
    np.testing.assert_allclose(one.lambda_(T), other.lambda_(999 * T), rtol=1e-12)
    assert other.t_max == 999.0


def test_ve() -> None:
    schedule, by_sigma = make_schedule("ve"), make_schedule("ve", network_time="sigma")
    np.testing.assert_allclose(schedule.sigma([0, 0.5, 1]), [0.01, math.sqrt(0.5), 50], rtol=1e-12)
    np.testing.assert_array_equal(schedule.alpha([0, 0.5, 1]), 1.0)
    np.testing.assert_array_equal(by_sigma.sigma([0.01, 3.0]), [0.01, 3.0])
    np.testing.assert_allclose(by_sigma.spaced(50, 0.01, 9), schedule.sigma(schedule.spaced(1, 0, 9)), rtol=1e-12)


def test_edm() -> None:
    schedule = make_schedule("edm")
    sigmas = np.array([0.002, 0.5, 80.0])
    times = np.log(sigmas) / 4
    np.testing.assert_allclose(schedule.sigma(times), sigmas, rtol=1e-12)
    np.testing.assert_allclose(schedule.in_scale(times), 1 / np.sqrt(sigmas**2 + 0.25), rtol=1e-12)
    assert schedule.level(-math.log(2.0)) == pytest.approx((math.log(2.0) / 4, 1.0, 2.0, 1 / math.sqrt(4.25)))


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_flow_spaces_its_times_as_diffusers_shifts_them(shift: float) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    schedule = make_schedule("flow", shift=shift)
    ends = theirs.timesteps[[0, -1]].tolist()
    assert [schedule.t_max, schedule.t_min] == pytest.approx(ends, rel=1e-5)
    spaced = schedule.spaced(schedule.t_max, schedule.t_min, 1000)
    np.testing.assert_allclose(spaced, theirs.timesteps.numpy(), rtol=1e-5)
    np.testing.assert_allclose(schedule.sigma(spaced), theirs.sigmas.numpy()[:1000], rtol=1e-5)
    np.testing.assert_allclose(schedule.alpha(spaced) + schedule.sigma(spaced), 1.0, rtol=1e-15)


def test_mu_is_the_logarithm_of_the_shift() -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    theirs.set_timesteps(8, mu=0.9)
    schedule = make_schedule("flow", mu=0.9)
    np.testing.assert_allclose(schedule.spaced(schedule.t_max, schedule.t_min, 8), theirs.timesteps, rtol=1e-5)
    assert make_schedule("flow", shift=math.exp(0.9)).t_min == schedule.t_min


def test_mu_of_an_image_is_on_flux_s_line() -> None:
    pipeline = pytest.importorskip("diffusers.pipelines.flux.pipeline_flux")
    for tokens in (256, 1024, 4096, 9216):
        assert flow_mu(tokens) == pytest.approx(pipeline.calculate_shift(tokens), rel=1e-12)
    assert flow_mu(150, low=(100, 0.0), high=(200, 1.0)) == pytest.approx(0.5)


# What all share.


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_lambda_inverts_and_its_weights_are_the_schedule_s(variant: tuple[str, dict[str, Any]]) -> None:
    schedule = make_schedule(variant[0], **variant[1])
    low, high = float(schedule.lambda_(schedule.t_max)), float(schedule.lambda_(schedule.t_min))
    # in the double t of rectified flow 1 - sigma has lost its digits further down
    lambdas = np.linspace(max(low, -9.0), high, 997)

    @given(st.floats(0, 1))
    def inverts(part: float) -> None:
        lambda_ = lambdas[0] + part * (lambdas[-1] - lambdas[0])
        assert float(schedule.lambda_(schedule.t_of_lambda(lambda_))) == pytest.approx(lambda_, rel=0, abs=1e-9)
        level = schedule.level(lambda_)
        assert level.lambda_ == pytest.approx(lambda_, rel=0, abs=1e-12)
        assert level.alpha == pytest.approx(float(schedule.alpha(level.t)), rel=1e-9)
        assert level.sigma == pytest.approx(float(schedule.sigma(level.t)), rel=1e-9)
        assert level.in_scale == pytest.approx(float(schedule.in_scale(level.t)), rel=1e-9)

    inverts()
    times = schedule.t_of_lambda(lambdas.reshape(-1, 1))
    assert times.shape == (997, 1)
    assert (np.diff(times[:, 0]) * (schedule.t_max - schedule.t_min) < 0).all()
    np.testing.assert_allclose(schedule.lambda_(times)[:, 0], lambdas, atol=1e-9)
    np.testing.assert_allclose(
        schedule.t_of_lambda(schedule.lambda_([schedule.t_max, schedule.t_min])),
        [schedule.t_max, schedule.t_min],
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_the_exploding_view_is_the_state_over_alpha(variant: tuple[str, dict[str, Any]]) -> None:
    schedule = make_schedule(variant[0], **variant[1])
    view = schedule.exploding()
    t = np.linspace(schedule.t_min, schedule.t_max, 7)[:-1]
    np.testing.assert_array_equal(view.alpha(t), 1.0)
    np.testing.assert_allclose(view.sigma(t), schedule.sigma(t) / schedule.alpha(t), rtol=1e-15)
    np.testing.assert_allclose(view.in_scale(t), schedule.alpha(t) * schedule.in_scale(t), rtol=1e-15)
    np.testing.assert_array_equal(view.lambda_(t), schedule.lambda_(t))
    inner, level = schedule.level(0.3), view.level(0.3)
    assert level == pytest.approx((inner.t, 1.0, math.exp(-0.3), inner.alpha * inner.in_scale), rel=1e-12)
    if abs(inner.alpha**2 + inner.sigma**2 - 1) < 1e-12:
        assert level.in_scale == pytest.approx(1 / math.hypot(1.0, level.sigma), rel=1e-12)
    assert (view.t_min, view.t_max, view.train_steps, view.name) == (
        schedule.t_min,
        schedule.t_max,
        schedule.train_steps,
        schedule.name,
    )
    assert isinstance(view, Scaled)
    assert view.exploding() is view


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_says_what_it_is(name: str) -> None:
    schedule = make_schedule(name)
    assert schedule.name == ("squaredcos_cap_v2" if name == "cosine_beta" else name)
    assert schedule.prediction == {"ve": "score", "smld": "score", "edm": "edm", "flow": "flow"}.get(name, "epsilon")
    assert schedule.train_steps == (1000 if name in DISCRETE else None)


ERRORS = [
    (
        lambda: make_schedule("linear", beta_start=0.0),
        r"a beta is outside \(0, 1\)\n.*beta_start = 0.0\n.*0 < beta < 1",
    ),
    (lambda: make_schedule("scaled_linear", beta_start=-0.1), r"a beta is outside \(0, 1\)\n.*beta_start = -0.1"),
    (lambda: make_schedule("exponential", beta_end=1.0), r"a beta is outside \(0, 1\)\n.*beta_end = 1.0"),
    (lambda: make_schedule("cosine", beta_max=1.0), r"a beta is outside \(0, 1\)\n.*beta_max = 1.0"),
    (lambda: make_schedule("cosine", s=-1.0), r"s is negative\n.*-1.0"),
    (lambda: make_schedule("sigmoid", beta_end=math.nan), r"'sigmoid': beta_end must be a finite number\n.*nan"),
    (lambda: make_schedule("linear", zero_snr=1), r"zero_snr must be True or False\n.*1"),
    (
        lambda: make_schedule("piecewise_linear", knots=[(0, 0.1), (0.5, 0.2)]),
        r"the knots do not cross the schedule\n.*\[0.0, 0.5\]\n.*u rising from 0 to 1",
    ),
    (
        lambda: make_schedule("piecewise_linear", knots=[(0, 0.1), (0.6, 0.2), (0.5, 0.2), (1, 0.1)]),
        "the knots do not cross the schedule",
    ),
    (
        lambda: make_schedule("piecewise_linear", knots=[(0, 0.1), (0.5, 1.2), (1, 0.1)]),
        r"a beta is outside \(0, 1\)\n.*knots\[1\] = 1.2",
    ),
    (lambda: make_schedule("piecewise_linear", knots=[0.1, 0.2]), r"knots must be a row of pairs of finite numbers"),
    (
        lambda: make_schedule("piecewise_linear", knots="ab"),
        r"knots must be a row of pairs of finite numbers\n.*'ab'",
    ),
    (lambda: make_schedule("piecewise_linear", knots=[(0, math.nan), (1, 0.1)]), r"knots must be a row of pairs"),
    (lambda: make_schedule("vp-linear", beta_min=0), r"beta_min must be positive\n.*0\n.*beta_min > 0"),
    (lambda: make_schedule("vp-linear", t_min=1.0), r"t_min is not below t_max\n.*t_min=1, t_max=1"),
    (lambda: make_schedule("vp-cosine", t_max=1.0), r"t_max must be below 1, where no signal is left\n.*1.0"),
    (lambda: make_schedule("vp-linear", time_scale=-1.0), r"time_scale must be positive"),
    (lambda: make_schedule("ve", sigma_min=3, sigma_max=2), r"sigma_min is not below sigma_max\n.*=3, sigma_max=2"),
    (lambda: make_schedule("ve", network_time="u"), r"network_time has a value .*\n.*'u'\n.*'t', 'sigma'"),
    (lambda: make_schedule("edm", sigma_data=0), r"sigma_data must be positive"),
    (lambda: make_schedule("edm").level(8.0), r"a lambda is outside the schedule\n.*8.0\n.*-4.3820 to 6.2146"),
    (lambda: make_schedule("flow", shift=0), r"shift must be positive\n.*0"),
    (
        lambda: make_schedule("flow", shift=2.0, mu=0.5),
        r"shift and mu exclude each other\n.*mu=0.5\n.*\n.*shift=1.649",
    ),
    (lambda: make_schedule("flow", mu=1e4), r"mu is out of range\n.*10000.0\n.*-700 to 700"),
    (lambda: make_schedule("flow", train_steps=1), r"train_steps is out of range\n.*1\n.*from 2 to 1000000"),
    (lambda: make_schedule("flow").sigma(1000.5), r"a time is outside the schedule\n.*1000.5\n.*0 to 1000"),
    (lambda: make_schedule("vp-linear").alpha(1e-4), r"a time is outside the schedule\n.*0.0001\n.*0.001 to 1"),
    (lambda: make_schedule("vp-linear").level(math.nan), "a lambda is outside the schedule"),
    (lambda: flow_mu(0), r"tokens must be positive\n.*0"),
    (lambda: flow_mu(9, low=(5, 0.1), high=(5, 0.2)), r"low_tokens is not below high_tokens"),
]


@pytest.mark.parametrize(("call", "text"), ERRORS)
def test_a_wrong_parameter_is_refused(call: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        call()


@given(
    name=st.sampled_from(["linear", "scaled_linear", "cosine", "squaredcos_cap_v2"]),
    part=st.floats(0, 1),
    zero=st.booleans(),
)
def test_one_level_is_what_the_arrays_say(name: str, part: float, zero: bool) -> None:
    schedule = make_schedule(name, zero_snr=zero)
    low, high = max(float(schedule.lambda_(999)), -20.0), float(schedule.lambda_(0))
    lambda_ = low + part * (high - low)
    level, (alpha, sigma) = schedule.level(lambda_), schedule.weights(lambda_)
    assert level.t == pytest.approx(float(schedule.t_of_lambda(lambda_)), rel=1e-12, abs=1e-9)
    assert (level.alpha, level.sigma) == pytest.approx((float(alpha), float(sigma)), rel=1e-13)
