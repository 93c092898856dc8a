"""The probability-flow ODE: exact transport, tolerances, calls counted and bounded, failures that keep the state."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact_models import GAUSS, SCHEDULES, TWO, Exact, at, started, transported
from scipy.integrate import solve_ivp

from dpmrt.errors import BudgetError, DivergedError, MissingExtraError, OptionError, SamplingCancelled, ToleranceError
from dpmrt.runtime import load
from dpmrt.runtime.drivers import find_driver
from dpmrt.runtime.ode.clock import Clock
from dpmrt.runtime.ode.field import VARIABLES, ProbabilityFlow
from dpmrt.runtime.ode.integrate import METHODS
from dpmrt.solvers_np import NoiseSchedule, make_schedule

ODE: Any = find_driver("ode")
SHAPE = (4, 6)


def noise(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def solve(model: Any, x: np.ndarray, **options: Any) -> Any:
    return ODE(model, x, noise=None, **{"rtol": 1e-9, "atol": 1e-9, "denoise": False, "max_calls": 20_000, **options})


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_noise_is_carried_where_the_exact_flow_carries_it(name: str, variable: str) -> None:
    schedule, prediction = SCHEDULES[name]
    model = Exact(TWO, schedule, prediction, SHAPE)
    driven = solve(model, noise(), variable=variable, method="DOP853")
    expected = transported(TWO, schedule, started(schedule, noise()), schedule.t_max, schedule.t_min)
    # where sigma is large, quantiles of a mixture are found to some 1e-10 of it
    np.testing.assert_allclose(driven.samples, expected, atol=2e-7)
    assert driven.report.calls == model.calls
    assert (driven.report.status, driven.report.variable) == ("done", variable)
    assert driven.report.t[0] == pytest.approx(schedule.t_max)
    assert driven.report.t[-1] == pytest.approx(schedule.t_min)
    assert np.all(np.diff(driven.report.lambda_) > 0)


def test_a_gaussian_is_scaled_and_shifted_in_closed_form() -> None:
    schedule = make_schedule("sub-vp")
    driven = solve(Exact(GAUSS, schedule, "score", SHAPE), noise(), end=0.25)
    first, last = at(schedule, 1.0), at(schedule, 0.25)
    spread = [np.hypot(level.alpha * GAUSS.spread[0], level.sigma) for level in (first, last)]
    x = first.sigma * noise() - first.alpha * GAUSS.mean[0]
    np.testing.assert_allclose(driven.samples, last.alpha * GAUSS.mean[0] + spread[1] / spread[0] * x, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_the_error_falls_with_the_tolerance_by_every_method(method: str) -> None:
    schedule, shape = make_schedule("vp-linear"), (3, 2)
    exact = transported(TWO, schedule, noise(1, shape), 1.0, schedule.t_min)
    errors, calls = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        model = Exact(TWO, schedule, "epsilon", shape)
        driven = solve(model, noise(1, shape), method=method, rtol=tolerance, atol=tolerance)
        errors.append(np.abs(driven.samples - exact).max())
        calls.append(driven.report.calls)
        assert driven.report.calls == model.calls
        assert (driven.report.jacobians > 0) == (method in ("Radau", "BDF"))
        assert errors[-1] < 300 * tolerance
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert calls[0] < calls[1] < calls[2]


@pytest.mark.parametrize("name", ["scaled_linear", "smld"])
def test_a_schedule_of_whole_times_is_followed_between_them(name: str) -> None:
    schedule = make_schedule(name)
    expected = transported(TWO, schedule, started(schedule, noise()), schedule.t_max, schedule.t_min)
    for variable, near in (("lambda", 1e-5), ("sigma", 1e-5), ("t", 1e-3)):
        driven = solve(Exact(TWO, schedule, "epsilon", SHAPE), noise(), variable=variable, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(driven.samples, expected, atol=near)


def test_rectified_flow_reaches_from_no_signal_to_no_noise() -> None:
    schedule = make_schedule("flow", train_steps=1000)
    model = Exact(TWO, schedule, "flow", SHAPE)
    driven = solve(model, noise(), end=0.0)
    assert driven.report.variable == "t"
    np.testing.assert_allclose(driven.samples, transported(TWO, schedule, noise(), 1000.0, 0.0), atol=1e-6)


def test_samples_have_the_moments_of_the_data() -> None:
    schedule = make_schedule("vp-linear")
    x = noise(3, (4000, 1))
    samples = solve(Exact(TWO, schedule, "epsilon", x.shape), x, rtol=1e-5, atol=1e-5, denoise=True).samples
    mean, second = float(TWO.weight @ TWO.mean), float(TWO.weight @ (TWO.mean**2 + TWO.spread**2))
    assert samples.mean() == pytest.approx(mean, abs=4 * np.sqrt((second - mean**2) / 4000))
    assert (samples < -0.2).mean() == pytest.approx(TWO.cdf(np.array(-0.2), at(schedule, 1e-3)), abs=0.03)


class Song(torch.nn.Module):
    """The ODE of Song et al. 2021, dx = (f(x, t) - g(t)^2 score / 2) dt, for the three SDEs and one Gaussian."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, t: float, x: torch.Tensor) -> torch.Tensor:
        time = torch.tensor(t, dtype=torch.float64)
        if self.kind == "ve":
            growth = torch.log(torch.tensor(50.0 / 0.01, dtype=torch.float64))
            sigma = 0.01 * torch.exp(time * growth)
            alpha, drift, diffusion = torch.ones(()), torch.zeros(()), 2 * sigma**2 * growth
        else:
            beta, total = 0.1 + time * 19.9, 0.1 * time + 0.5 * 19.9 * time**2
            alpha, drift = torch.exp(-total / 2), -beta / 2
            kept = 1 - torch.exp(-total)
            sigma = torch.sqrt(kept) if self.kind == "vp" else kept
            diffusion = beta if self.kind == "vp" else beta * (1 - torch.exp(-2 * total))
        mean, variance = alpha * GAUSS.mean[0], (alpha * GAUSS.spread[0]) ** 2 + sigma**2
        return drift * x - diffusion / 2 * -(x - mean) / variance


@pytest.mark.parametrize(("kind", "schedule"), [("ve", "ve"), ("vp", "vp-linear"), ("sub-vp", "sub-vp")])
@pytest.mark.parametrize("method", ["RK45", "DOP853"])
def test_song_s_drift_in_torch_through_solve_ivp_gives_the_same(kind: str, schedule: str, method: str) -> None:
    made = make_schedule(schedule)
    ode = Song(kind)
    begun = started(made, noise())
    peer = solve_ivp(
        lambda t, x: ode(t, torch.from_numpy(x)).numpy(),
        (made.t_max, made.t_min),
        begun.reshape(-1),
        method=method,
        rtol=1e-6,
        atol=1e-6,
    )
    driven = solve(Exact(GAUSS, made, "score", SHAPE), noise(), variable="t", method=method, rtol=1e-6, atol=1e-6)
    assert driven.report.calls == peer.nfev
    np.testing.assert_allclose(driven.report.t, peer.t, atol=1e-4)
    np.testing.assert_allclose(driven.samples.reshape(-1), peer.y[:, -1], atol=1e-8)


def test_denoising_gives_the_expected_data_and_counts_as_a_call() -> None:
    schedule = make_schedule("ve")
    plain, denoised = (
        solve(Exact(TWO, schedule, "score", SHAPE), noise(), end=0.5, denoise=denoise) for denoise in (False, True)
    )
    level = at(schedule, 0.5)
    expected = plain.samples - level.sigma * TWO.eps(plain.samples, level)
    np.testing.assert_allclose(denoised.samples, expected, atol=1e-12)
    assert denoised.report.calls == plain.report.calls + 1


@pytest.mark.parametrize("most", [2, 3, 7, 50])
@pytest.mark.parametrize("method", ["RK45", "LSODA", "Radau"])
def test_the_bound_is_kept_and_what_was_reached_is_on_the_way(most: int, method: str) -> None:
    schedule = make_schedule("vp-linear")
    model = Exact(TWO, schedule, "epsilon", SHAPE)
    with pytest.raises(BudgetError, match=f"not solved within {most} network calls") as caught:
        solve(model, noise(), method=method, max_calls=most, denoise=True)
    assert model.calls <= most - 1  # the last is kept for denoising
    assert caught.value.report.calls == model.calls
    assert caught.value.report.status == "budget"
    there = transported(TWO, schedule, noise(), 1.0, caught.value.t)
    np.testing.assert_allclose(caught.value.samples, there, atol=1e-6)
    assert "raise max_calls" in str(caught.value)


def test_every_call_is_told_and_may_be_the_last() -> None:
    model = Exact(TWO, make_schedule("ve"), "score", SHAPE)
    seen: list[tuple[int, int, float]] = []

    def callback(event: Any) -> None:
        assert not event.x.flags.writeable or event.index + 1 == model.calls
        seen.append((event.index, event.total, event.t))
        if len(seen) == 20:
            event.cancel()

    with pytest.raises(SamplingCancelled):
        solve(model, noise(), callback=callback, max_calls=500)
    assert model.calls == 20
    assert [index for index, _, _ in seen] == list(range(20))
    assert {total for _, total, _ in seen} == {500}


def test_a_field_that_no_step_can_follow_is_a_typed_error_with_the_state_before_it() -> None:
    class Singular(Exact):
        def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
            return super().__call__(x, t) + 1 / (t - 0.5)

    model = Singular(TWO, make_schedule("vp-linear"), "epsilon", SHAPE)
    with pytest.raises(ToleranceError, match="RK45 gave up") as caught:
        solve(model, noise(), variable="t", rtol=1e-6, atol=1e-6)
    assert caught.value.t == pytest.approx(0.5, abs=1e-3)
    assert "step size is less than spacing" in str(caught.value)
    assert np.isfinite(caught.value.samples).all()


@pytest.mark.parametrize("denoise", [True, False])
def test_nan_from_the_network_is_found_at_the_call_that_gives_it(denoise: bool) -> None:
    class Broken(Exact):
        def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
            raw = super().__call__(x, t)
            return raw * np.nan if (t <= 1e-3 if denoise else t < 0.3) else raw

    model = Broken(TWO, make_schedule("vp-linear"), "epsilon", SHAPE)
    with pytest.raises(DivergedError, match="the network returned NaN or infinity") as caught:
        solve(model, noise(), denoise=denoise)
    assert caught.value.report.status == "diverged"
    assert np.isfinite(caught.value.samples).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "Euler"}, "method has a value that is not possible"),
        ({"variable": "angle"}, "variable has a value that is not possible"),
        ({"rtol": -1.0}, "rtol is no tolerance"),
        ({"atol": float("nan")}, "atol must be a finite number"),
        ({"rtol": 2.0}, "rtol is out of range"),
        ({"end": 0.0}, "a time is outside the schedule"),
        ({"end": 1e-4}, "expected: 0.001 to 1"),
        ({"max_calls": 1}, "max_calls is out of range"),
        ({"steps": 20}, "solver 'ode' has no option of this name"),
        ({"denoise": 1}, "denoise must be True or False"),
    ],
)
def test_bad_options_are_refused_before_the_first_call(options: dict[str, Any], text: str) -> None:
    model = Exact(TWO, make_schedule("vp-linear"), "epsilon", SHAPE)
    with pytest.raises(OptionError) as caught:
        solve(model, noise(), **options)
    assert text in str(caught.value)
    assert model.calls == 0


def test_tolerances_below_what_the_network_resolves_are_refused() -> None:
    model = Exact(TWO, make_schedule("vp-linear"), "epsilon", SHAPE)
    for precision, tolerance in (("fp32", 1e-7), ("fp16", 1e-4), ("bf16", 5e-3), ("fp64", 1e-14)):
        model.precision = precision
        with pytest.raises(OptionError, match="not precise enough to meet these tolerances"):
            solve(model, noise(), rtol=tolerance, atol=tolerance)
    assert model.calls == 0


@pytest.mark.parametrize("method", ["Radau", "BDF", "LSODA"])
def test_a_matrix_that_no_memory_holds_is_refused(method: str) -> None:
    model = Exact(TWO, make_schedule("vp-linear"), "epsilon", (3, 4, 64, 64))
    with pytest.raises(OptionError, match="a matrix of all by all"):
        solve(model, noise(0, model.shape), method=method)
    assert model.calls == 0


def test_a_network_of_whole_times_is_refused() -> None:
    model = Exact(TWO, make_schedule("linear"), "epsilon", SHAPE)
    model.whole_times = True
    with pytest.raises(OptionError, match="takes whole timesteps"):
        solve(model, noise())


def test_a_score_where_no_noise_is_left_and_x0_where_no_signal_is() -> None:
    schedule = make_schedule("flow", train_steps=1000)
    with pytest.raises(OptionError, match="a time with no noise left"):
        solve(Exact(TWO, schedule, "sample", SHAPE), noise(), end=0.0)
    with pytest.raises(OptionError, match="t = 1000: a time with no signal left"):
        solve(Exact(TWO, schedule, "score", SHAPE), noise(), end=1.0)
    for variable, end, left in (("lambda", 10.0, "signal"), ("sigma", 10.0, "signal")):
        with pytest.raises(OptionError, match=f"no {left} is left at this time"):
            solve(Exact(TWO, schedule, "flow", SHAPE), noise(), end=end, variable=variable)


def test_without_scipy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.integrate", None)
    with pytest.raises(MissingExtraError, match="driver `ode` needs a package") as caught:
        solve(Exact(TWO, make_schedule("ve"), "score", SHAPE), noise())
    assert "pip install 'dpmrt[ode]'" in str(caught.value)


@pytest.mark.parametrize("name", ["vp", "sub-vp", "ve", "edm", "cosine"])
def test_the_clock_gives_the_schedule_s_own_rates(name: str) -> None:
    schedule, _ = SCHEDULES[name]
    clock = Clock(schedule)
    low, high = schedule.t_range
    for t in (low, low + 0.01 * (high - low), 0.5 * (low + high), high):
        h = min(1e-6 * (high - low), 1e-3 * max(t, 1e-3))
        a, b = max(t - h, low), min(t + h, high)
        level, signal, growth = clock.at(t)
        assert (level.alpha, level.sigma) == (float(schedule.alpha(t)), float(schedule.sigma(t)))
        for rate, f in ((signal, schedule.alpha), (growth, schedule.sigma)):
            secant = float(f(b) - f(a)) / (b - a)
            assert rate == pytest.approx(secant, rel=2e-3, abs=1e-6 * float(schedule.sigma(high)))


def test_the_clock_takes_rates_from_the_schedule_and_quotients_where_it_has_none() -> None:
    """Beta's own slope to the last digits, which no quotient has; a schedule of one's own, and the flow's ends."""
    named = make_schedule("vp-linear")

    class Own(NoiseSchedule):
        name, t_min, t_max = "own", named.t_min, named.t_max
        alpha, sigma = staticmethod(named.alpha), staticmethod(named.sigma)  # type: ignore[assignment]

    for t in (0.02, 0.3, 0.9):
        level, signal, growth = Clock(named).at(t)
        beta = 0.1 + t * 19.9
        assert signal == pytest.approx(-beta / 2 * level.alpha, rel=1e-14)
        assert growth == pytest.approx(beta / 2 * level.alpha**2 / level.sigma, rel=1e-12)
        assert Clock(Own()).at(t)[1:] == pytest.approx((signal, growth), rel=1e-8)
        assert Clock(Own()).at(t)[1] != signal
    flow = make_schedule("flow", train_steps=1000)
    for t in (0.0, 1e-9, 0.05, 0.2, 500.0, 999.8, 999.95, 1000.0):
        assert Clock(flow).at(t)[1:] == pytest.approx((-0.001, 0.001), rel=1e-8)


@pytest.mark.parametrize("name", ["linear", "squaredcos_cap_v2"])
def test_the_clock_of_whole_times_is_smooth_monotone_and_exact_at_them(name: str) -> None:
    schedule = make_schedule(name)
    clock = Clock(schedule)
    for t in (0.0, 1.0, 500.0, 998.0, 999.0):
        level = clock.at(t)[0]
        assert (level.alpha, level.sigma) == (float(schedule.alpha(t)), float(schedule.sigma(t)))
    fine = np.linspace(990, 999, 181)
    rows = [clock.at(t) for t in fine]
    alphas = np.array([level.alpha for level, _, _ in rows])
    assert np.all(np.diff(alphas) < 0)
    assert all(abs(level.alpha**2 + level.sigma**2 - 1) < 1e-12 for level, _, _ in rows)
    # the rate is that of the curve which it goes with
    whole = np.trapezoid([signal for _, signal, _ in rows], fine)
    assert whole == pytest.approx(alphas[-1] - alphas[0], rel=1e-3)
    with pytest.raises(OptionError, match="outside the schedule"):
        clock.at(999.5)


def test_a_field_names_the_places_of_its_times() -> None:
    schedule = make_schedule("vp-linear")
    for variable, place in (("t", 0.5), ("lambda", float(schedule.lambda_(0.5)))):
        assert ProbabilityFlow(schedule, "epsilon", variable).place(0.5) == pytest.approx(place)
    ratio = float(schedule.sigma(0.5) / schedule.alpha(0.5))
    assert ProbabilityFlow(schedule, "epsilon", "sigma").place(0.5) == pytest.approx(ratio)


def test_digits_are_sampled_by_name_with_guidance_and_a_report(tmp_path: Path) -> None:
    guided: dict[str, Any] = {"seed": 4, "label": 7, "guidance": 2.0}
    with load("digits") as pipeline:
        driven = pipeline.drive(solver="ode", rtol=3e-3, atol=3e-3, **guided)
        reference = pipeline.sample(steps=40, solver="dpmsolver++", grid="logsnr", **guided)
        loose: dict[str, Any] = {"solver": "ode", "rtol": 0.2, "atol": 0.2, **guided}
        np.testing.assert_array_equal(pipeline.drive(**loose).samples, pipeline.sample(**loose))
        report = driven.report
        assert np.sqrt(np.mean((driven.samples - reference) ** 2)) < 0.05
        with pytest.raises(OptionError, match="not precise enough"):
            pipeline.sample(solver="ode", rtol=1e-8, atol=1e-8)
    assert driven.samples.dtype == np.float32
    told = report.to_json()
    assert told["calls"] == report.calls > told["steps"] > 3
    assert len(told["t"]) == len(told["lambda_"]) == len(told["called"]) == told["steps"] + 1
    assert report.plot(tmp_path / "course.png").stat().st_size > 2000


def test_the_command_line_reaches_it(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from dpmrt.runtime.cli import main

    options = [f"--option={pair}" for pair in ("rtol=0.1", "atol=0.1", "method=RK23")]
    asked = ["sample", "digits", "-o", str(tmp_path / "a.npy"), "--solver", "ode", *options]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    assert " network calls, " in done.output
    done = CliRunner().invoke(main, [*asked, "--option=max_calls=4"])
    assert done.exit_code == 1
    assert "not solved within 4 network calls" in done.output
