"""Adaptive runs keep their tolerance and their bound on calls, and say what they did."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from adaptive_problems import Counted, exact
from hypothesis import example, given
from hypothesis import strategies as st
from problems import BIMODAL, GAUSSIANS, network

from dpmrt.errors import BudgetError
from dpmrt.solvers_np import (
    ADAPTIVE,
    AdaptiveReport,
    Grid,
    compile_plan,
    make_schedule,
    run_adaptive,
    run_plan,
)

VP = make_schedule("vp-linear")
FIXED = {
    "dpm-solver-12": "dpmsolver-singlestep",
    "dpm-solver-23": "dpmsolver-singlestep",
    "dpm-solver++12": "dpmsolver++singlestep",
    "dpm-solver++23": "dpmsolver++singlestep",
}


@pytest.mark.parametrize(
    "options",
    [{}, {"solver_type": "heun"}, {"clip": 0.8}, {"threshold": 0.7, "threshold_max": 1.5}, {"denoise_to_zero": True}],
    ids=lambda options: ",".join(options),
)
@pytest.mark.parametrize("solver", ADAPTIVE)
def test_a_run_is_what_the_fixed_solver_makes_of_its_steps(solver: str, options: dict[str, Any]) -> None:
    x, model = np.random.default_rng(1).standard_normal((3, 2, 4)), network(BIMODAL, VP, "v_prediction")
    samples, report = run_adaptive(solver, model, VP, x, prediction="v_prediction", rtol=0.02, **options)
    grid = Grid.through_times(VP, np.append(report.t[report.outcome == "accepted"], VP.t_min))
    order = ADAPTIVE[solver][1]
    options = {**options, "order": order, "prediction": "v_prediction"}
    plan = compile_plan(FIXED[solver], VP, len(grid), grid=grid, **options)
    np.testing.assert_allclose(samples, run_plan(plan, model, x), rtol=1e-9, atol=1e-9)
    assert report.calls == plan.calls + (order - 1) * report.count("rejected")


@given(
    solver=st.sampled_from(list(ADAPTIVE)),
    log_rtol=st.floats(-9, -0.5),
    max_calls=st.integers(2, 60),
    on_budget=st.sampled_from(["error", "finish"]),
    kind=st.sampled_from(["smooth", "jump", "noisy"]),
    controller=st.sampled_from(["lu", "pid"]),
    denoise=st.booleans(),
    patience=st.integers(1, 4),
    h_init=st.floats(1e-3, 20),
)
@example("dpm-solver-23", -9.0, 2, "finish", "noisy", "lu", True, 1, 0.05)
@example("dpm-solver-23", -9.0, 1, "finish", "jump", "lu", False, 1, 0.05)
def test_the_bound_on_calls_is_always_kept(
    solver: str,
    log_rtol: float,
    max_calls: int,
    on_budget: str,
    kind: str,
    controller: str,
    denoise: bool,
    patience: int,
    h_init: float,
) -> None:
    rng, smooth = np.random.default_rng(0), network(GAUSSIANS, VP, "epsilon")

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        eps = smooth(x, t)
        return eps + {"smooth": 0.0, "jump": float(t[0] < 0.4), "noisy": rng.standard_normal(x.shape)}[kind]

    asked = Counted(model)
    options = {"rtol": 10**log_rtol, "atol": 10**log_rtol, "max_calls": max_calls, "on_budget": on_budget}
    options |= {"denoise_to_zero": denoise, "patience": patience, "controller": controller, "h_init": h_init}
    try:
        samples, report = run_adaptive(solver, asked, VP, np.array([[0.3, -1.0, 0.7]]), **options)
    except BudgetError as error:
        if on_budget == "finish":
            raise
        samples, report, t = error.samples, error.report, error.t
    else:
        t = VP.t_min
        assert on_budget == "finish" or report.kept
    assert report.t_reached == t
    assert report.complete == (t == VP.t_min)
    assert asked.calls == report.calls <= max_calls
    assert np.isfinite(samples).all()
    taken = report.outcome != "rejected"
    way = float(VP.lambda_(report.t_reached) - VP.lambda_(VP.t_max))
    assert report.h[taken].sum() == pytest.approx(way, abs=1e-8)
    spent = [trial.calls for trial in report.trials]
    assert spent == sorted(set(spent)), "every step tried costs a call"


@pytest.mark.parametrize(("solver", "calls"), [("dpm-solver-23", 12), ("dpm-solver++12", 8), ("dpm-solver-12", 9)])
def test_a_hopeless_tolerance_finishes_in_the_even_steps_that_the_calls_pay_for(solver: str, calls: int) -> None:
    x, model = np.random.default_rng(2).standard_normal((2, 5)), Counted(network(BIMODAL, VP, "epsilon"))
    options = {"rtol": 1e-9, "atol": 1e-9, "on_budget": "finish", "max_calls": calls}
    samples, report = run_adaptive(solver, model, VP, x, **options)
    order = ADAPTIVE[solver][1]
    steps = math.ceil(calls / order)
    grid = Grid.through_times(
        VP, VP.t_of_lambda(np.linspace(float(VP.lambda_(1.0)), float(VP.lambda_(VP.t_min)), steps + 1))
    )
    plan = compile_plan(FIXED[solver], VP, steps, grid=grid, order=order, calls=calls)
    np.testing.assert_allclose(samples, run_plan(plan, network(BIMODAL, VP, "epsilon"), x), rtol=1e-8, atol=1e-8)
    assert model.calls == calls
    assert set(report.outcome) == {"forced"}
    assert not report.kept
    assert report.order.sum() == calls
    lowered = [trial.lowered for trial in report.trials if trial.order < order]
    assert lowered == ["budget"] * (calls % order > 0)
    assert np.isnan(report.error[report.order == 1]).all()


def test_a_budget_that_nearly_suffices_is_spent_where_the_error_is() -> None:
    first, last = exact(BIMODAL, VP, {})
    model = network(BIMODAL, VP, "epsilon")
    options = {"rtol": 1e-3, "atol": 1e-3}
    needed = run_adaptive("dpm-solver++23", model, VP, first, **options).report.calls
    errors = []
    for calls in (needed // 3, needed * 2 // 3, needed):
        made = run_adaptive("dpm-solver++23", model, VP, first, max_calls=calls, on_budget="finish", **options)
        assert made.report.calls <= calls
        errors.append(float(np.abs(made.samples - last).max()))
    assert errors[0] > 3 * errors[1] > 3 * errors[2]


def test_many_rejections_lower_the_order_until_steps_are_accepted_again() -> None:
    smooth, x = network(BIMODAL, VP, "epsilon"), np.random.default_rng(3).standard_normal((2, 5))

    def report_for(patience: int) -> AdaptiveReport:
        rng = np.random.default_rng(0)

        def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
            return smooth(x, t) + (0.4 < t[0] < 0.5) * rng.standard_normal(x.shape)

        return run_adaptive("dpm-solver-23", model, VP, x, rtol=1e-2, atol=1e-2, patience=patience).report

    report = report_for(3)
    lowered = np.array([bool(trial.lowered) for trial in report.trials])
    assert {trial.lowered for trial in report.trials} == {"", "rejections"}
    np.testing.assert_array_equal(report.order, np.where(lowered, 2, 3))
    first = int(np.flatnonzero(lowered)[0])
    assert (report.outcome[first - 3 : first] == "rejected").all()
    assert (report.outcome[: first - 3] == "accepted").any()
    assert report.order[-1] == 3
    again = first + int(np.flatnonzero(~lowered[first:])[0])
    assert (report.outcome[first:again] == "accepted").sum() == 3
    assert (report_for(1000).order == 3).all()


def test_the_report_is_a_table_and_plain_numbers() -> None:
    x, model = np.random.default_rng(4).standard_normal((2, 5)), Counted(network(BIMODAL, VP, "epsilon"))
    report = run_adaptive(
        "dpm-solver-23", model, VP, x, max_calls=13, on_budget="finish", rtol=1e-6, atol=1e-6
    ).report
    assert report.calls == model.calls == 13
    lines = report.table().splitlines()
    assert lines[0] == report.summary() == "dpm-solver-23: 13 network calls, 0 accepted, 0 rejected, 5 forced"
    assert lines[1].split() == ["t", "lambda", "h", "order", "error", "calls", "outcome"]
    assert lines[-1].endswith("13  forced (order lowered: budget)")
    assert len(lines) == 2 + len(report.trials)
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert [trial["order"] for trial in plain["trials"]] == report.order.tolist() == [3, 3, 3, 2, 2]
    assert plain["forced"] == 5
    assert plain["options"]["rtol"] == 1e-6
    assert "t_start" not in plain["options"]
    assert (plain["t_start"], plain["t_reached"]) == (VP.t_max, VP.t_min)


def test_a_callback_is_told_of_every_call_and_may_end_the_run() -> None:
    from dpmrt.errors import SamplingCancelled

    events: list[tuple[int, int, float]] = []

    def watch(event: Any) -> None:
        assert not event.x.flags.writeable
        events.append((event.index, event.total, event.t))
        if event.index == 7:
            event.cancel()

    with pytest.raises(SamplingCancelled):
        run_adaptive("dpm-solver-23", network(BIMODAL, VP, "epsilon"), VP, np.ones((1, 2)), callback=watch)
    assert [index for index, _, _ in events] == list(range(8))
    assert {total for _, total, _ in events} == {1000}
    assert events[0][2] == VP.t_max


def test_a_network_may_do_with_its_arrays_what_it_likes() -> None:
    plain, x = network(BIMODAL, VP, "epsilon"), np.random.default_rng(5).standard_normal((2, 5))

    def careless(state: np.ndarray, t: np.ndarray) -> np.ndarray:
        raw = plain(state, t)
        state[...], t[...] = np.nan, np.nan
        return raw

    kept = x.copy()
    ours = run_adaptive("dpm-solver++23", careless, VP, x).samples
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(ours, run_adaptive("dpm-solver++23", plain, VP, x).samples)
    assert not np.shares_memory(ours, x)
