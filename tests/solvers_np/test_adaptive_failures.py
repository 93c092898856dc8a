"""What an adaptive run refuses, and what it hands over when it ends early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from problems import BIMODAL, network

from dpmrt.errors import (
    ArrayError,
    BudgetError,
    DivergedError,
    NonFiniteError,
    OptionError,
    PartialError,
    ToleranceError,
)
from dpmrt.solvers_np import make_schedule, run_adaptive

VP = make_schedule("vp-linear")
EXACT = network(BIMODAL, VP, "epsilon")
X = np.random.default_rng(0).standard_normal((2, 5))


class Counted:
    """A network that counts how often it is asked, and answers NaN from the call `bad` on."""

    def __init__(self, bad: float = np.inf) -> None:
        self.calls, self._bad = 0, bad

    def __call__(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        self.calls += 1
        return EXACT(x, t) if self.calls < self._bad else np.full_like(x, np.nan)


def continued(error: PartialError, **options: Any) -> np.ndarray:
    """Go on from where a run ended."""
    return run_adaptive("dpm-solver-23", EXACT, VP, error.samples, t_start=error.t, **options).samples


def test_calls_that_run_out_leave_the_state_to_go_on_from() -> None:
    tight = {"rtol": 1e-3, "atol": 1e-3}
    with pytest.raises(BudgetError, match="the network calls ran out before the end was reached") as caught:
        run_adaptive("dpm-solver-23", EXACT, VP, X, max_calls=31, **tight)
    error = caught.value
    assert isinstance(error, RuntimeError)
    text = str(error)
    assert f"got:      {error.report.calls} of 31 calls, at t = {error.t:g}" in text
    assert "expected: t = 0.001, lambda = " in text
    assert "raise max_calls, atol or rtol, or choose on_budget='finish'" in text
    assert error.report.summary().endswith(f"stopped at t = {error.t:g}")
    whole = run_adaptive("dpm-solver-23", EXACT, VP, X, **tight).samples
    np.testing.assert_allclose(continued(error, **tight), whole, atol=2e-3)


def test_the_last_calls_go_into_a_pair_of_lower_order() -> None:
    with pytest.raises(BudgetError) as caught:
        run_adaptive("dpm-solver-23", EXACT, VP, X, max_calls=5, rtol=1e-3, atol=1e-3)
    report = caught.value.report
    assert report.order.tolist() == [3, 2]
    assert report.trials[-1].lowered == "budget"
    assert report.calls == 5


def test_one_call_is_too_few_for_a_step_with_an_error() -> None:
    model = Counted()
    with pytest.raises(BudgetError, match="0 of 1 calls"):
        run_adaptive("dpm-solver-12", model, VP, X, max_calls=1)
    assert model.calls == 0


@pytest.mark.parametrize("solver", ["dpm-solver-23", "dpm-solver++12"])
def test_nan_from_the_network_leaves_the_state_from_before(solver: str) -> None:
    model = Counted(bad=12)
    with pytest.raises(
        NonFiniteError, match=r"the network returned NaN or infinity\n  got: +call 12 of 1000, t = "
    ) as caught:
        run_adaptive(solver, model, VP, X, rtol=1e-3, atol=1e-3)
    error = caught.value
    assert isinstance(error, DivergedError)
    assert model.calls == error.report.calls == 12
    assert np.isfinite(error.samples).all()
    assert error.t < VP.t_max
    whole = run_adaptive(solver, EXACT, VP, X, rtol=1e-3, atol=1e-3).samples
    np.testing.assert_allclose(continued(error, rtol=1e-3, atol=1e-3), whole, atol=1e-2)


def test_nan_in_the_last_call_leaves_the_state_at_the_end() -> None:
    calls = run_adaptive("dpm-solver-23", EXACT, VP, X).report.calls
    with pytest.raises(DivergedError) as caught:
        run_adaptive("dpm-solver-23", Counted(bad=calls + 1), VP, X, denoise_to_zero=True)
    assert caught.value.t == VP.t_min


@pytest.mark.parametrize("calls", [1, 2, 1000])
def test_a_state_that_overflows_is_told_from_a_network_that_does(calls: int) -> None:
    options = {"h_init": 5.0, "max_calls": calls, "on_budget": "finish"}
    with pytest.raises(DivergedError, match="the state became NaN or infinite") as caught:
        run_adaptive("dpm-solver-23", lambda x, t: np.full_like(x, 3e38), VP, X.astype(np.float32), **options)
    assert np.isfinite(caught.value.samples).all()


def test_tolerances_below_the_rounding_of_the_state_are_refused_at_once() -> None:
    model, tight = Counted(), {"rtol": 1e-9, "atol": 1e-9}
    with pytest.raises(ToleranceError, match="it is below the rounding of float32") as caught:
        run_adaptive("dpm-solver-23", model, VP, X.astype(np.float32), **tight)
    assert model.calls == 0
    assert "expected: an rtol above 1.2e-07 or an atol above" in str(caught.value)
    assert str(caught.value).endswith("fix:      raise one of them, or pass float64")
    np.testing.assert_array_equal(caught.value.samples, X.astype(np.float32))
    with pytest.raises(ToleranceError, match=r"float64\n(.*\n)+  fix: +raise one of them$"):
        run_adaptive("dpm-solver-23", model, VP, X, rtol=1e-17, atol=1e-17)


def test_a_network_that_is_never_twice_the_same_meets_no_tight_tolerance() -> None:
    rng = np.random.default_rng(0)

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return EXACT(x, t) + (t[0] < 0.6) * rng.standard_normal(x.shape)

    with pytest.raises(ToleranceError, match="the step size fell below what float32 resolves") as caught:
        run_adaptive("dpm-solver-23", model, VP, X.astype(np.float32), rtol=2e-7, atol=2e-7, max_calls=10_000)
    error = caught.value
    assert isinstance(error, ArithmeticError)
    assert 0.5 < error.t < 0.65
    assert error.report.trials[-1].outcome == "rejected"
    assert error.report.order[-1] == 2
    assert np.isfinite(error.samples).all()
    assert "an error of " in str(error)


def test_states_that_are_none() -> None:
    for x, text in (
        (np.ones(3), "the shape needs a batch axis and at least one more"),
        (np.ones((0, 3)), "the shape needs a batch axis"),
        (np.ones((1, 3), int), "the initial state has the wrong dtype"),
    ):
        with pytest.raises(ArrayError, match=text):
            run_adaptive("dpm-solver-23", EXACT, VP, x)
    with pytest.raises(NonFiniteError, match="the initial state holds NaN or infinity"):
        run_adaptive("dpm-solver-23", EXACT, VP, np.full((1, 2), np.inf))
    with pytest.raises(ArrayError, match=r"the network's output has the wrong shape\n  got: +\(2, 4\)"):
        run_adaptive("dpm-solver-23", lambda x, t: x[:, 1:], VP, X)
    with pytest.raises(OptionError, match=r"unknown adaptive solver\n(.*\n)+  fix: +did you mean 'dpm-solver-23'\?"):
        run_adaptive("dpm-solver23", EXACT, VP, X)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"atol": 0.0}, r"atol is out of range\n  got: +0\.0\n  expected: a finite number above 0"),
        ({"rtol": -1.0}, r"rtol is out of range\n  got: +-1\.0\n  expected: a finite number at least 0"),
        ({"h_init": 0.0}, "h_init is out of range"),
        ({"h_init": 1e-12}, r"h_init is below what float64 resolves\n  got: +1e-12\n  expected: at least 1\.0e-09"),
        ({"theta": 1.0}, r"theta is out of range\n  got: +1\.0\n  expected: a finite number above 0 and below 1"),
        ({"rtol": "small"}, r"solver 'dpm-solver-23': rtol must be a finite number\n  got: +'small'"),
        ({"rtoll": 0.1}, r"no option of this name\n  got: +'rtoll'\n(.*\n)+  fix: +did you mean 'rtol'\?"),
        ({"max_calls": 0}, r"max_calls is out of range\n  got: +0\n  expected: a whole number of at least 1"),
        ({"max_calls": 1, "denoise_to_zero": True}, "expected: a whole number of at least 2"),
        ({"controller": "p"}, "controller has a value that is not possible"),
        ({"norm": "mean"}, "expected: one of 'max', 'rms'"),
        ({"on_budget": "stop"}, "expected: one of 'error', 'finish'"),
        ({"pcoeff": 0.1}, r"controller 'lu' has no option of this name\n  got: +pcoeff\n  expected: theta\n"),
        ({"controller": "pid", "theta": 0.8}, r"controller 'pid' has no option of this name\n  got: +theta"),
        ({"controller": "pid", "accept_safety": 1.5}, "accept_safety is out of range"),
        ({"clip": 1.0, "threshold": 0.9}, "clip and threshold exclude each other"),
        ({"t_start": 2.0}, "a time is outside the schedule"),
        ({"t_start": 0.5, "t_end": 0.5}, "t_start and t_end are one noise level"),
        ({"prediction": "noise"}, "prediction has a value that is not possible"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_wrong_requests_fail_before_the_first_call(options: dict[str, Any], text: str) -> None:
    model = Counted()
    with pytest.raises(OptionError, match=text):
        run_adaptive("dpm-solver-23", model, VP, np.ones((1, 2)), **options)
    assert model.calls == 0


@pytest.mark.parametrize(
    ("span", "text"),
    [
        ({}, r"got: +alpha = 0 at t_start = 1000\n(.*\n)+  fix: +pass another t_start, as 999"),
        (
            {"t_start": 900.0, "t_end": 0.0},
            r"got: +sigma = 0 at t_end = 0\n(.*\n)+  fix: +pass another t_end",
        ),
    ],
)
def test_ends_without_signal_or_noise_are_refused(span: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        run_adaptive("dpm-solver-23", lambda x, t: x, make_schedule("flow"), np.ones((1, 2)), **span)
