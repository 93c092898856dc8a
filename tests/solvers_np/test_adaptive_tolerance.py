"""The error of an adaptive run falls with its tolerance and stays near it, in float64 and float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adaptive_problems import exact, level_at
from problems import BIMODAL, QUANTILES, Mixture, network

from dpmrt.solvers_np import ADAPTIVE, NoiseSchedule, make_schedule, run_adaptive

VP = make_schedule("vp-linear")
#: schedules of other shapes of the state and of time, and where a run starts on them
SPANS: dict[str, tuple[NoiseSchedule, dict[str, Any]]] = {
    "vp-linear": (VP, {}),
    "sub-vp": (make_schedule("sub-vp"), {}),
    "ve": (make_schedule("ve", sigma_max=10.0), {}),
    "exploding": (make_schedule("scaled_linear").exploding(), {}),
    "cosine": (make_schedule("cosine"), {"t_start": 990.0}),
    "flow": (make_schedule("flow"), {"t_start": 995.0}),
}


@pytest.mark.parametrize("data", [BIMODAL, Mixture(np.ones(1), np.array([0.4]), np.array([0.7]))], ids=["two", "one"])
@pytest.mark.parametrize("solver", ADAPTIVE)
def test_the_error_falls_with_the_tolerance_and_stays_near_it(solver: str, data: Mixture) -> None:
    first, last = exact(data, VP, {})
    tolerances, errors = np.array([1e-2, 1e-3, 1e-4, 1e-5]), []
    for rtol in tolerances:
        samples, report = run_adaptive(solver, network(data, VP, "epsilon"), VP, first, rtol=rtol, atol=rtol)
        errors.append(float(np.abs(samples - last).max()))
        assert report.kept
    slope = np.polyfit(np.log(tolerances), np.log(errors), 1)[0]
    print(f"{solver}: {slope:.2f}, errors over tolerance {np.array(errors) / tolerances}")
    assert 0.75 < slope < 1.25
    assert (errors < 5 * tolerances).all()


@pytest.mark.parametrize("controller", ["lu", "pid"])
@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("solver", ADAPTIVE)
def test_the_tolerance_is_kept_on_every_kind_of_schedule(solver: str, name: str, controller: str) -> None:
    (schedule, span), rtol = SPANS[name], 1e-3
    first, last = exact(BIMODAL, schedule, span)
    options = {"rtol": rtol, "atol": rtol, "controller": controller, **span}
    samples, report = run_adaptive(solver, network(BIMODAL, schedule, "epsilon"), schedule, first, **options)
    assert np.abs(samples - last).max() < 5 * rtol
    assert report.kept
    assert report.t_reached == schedule.t_min


@pytest.mark.parametrize("solver", ["dpm-solver-23", "dpm-solver++23"])
def test_what_is_encoded_to_a_tolerance_comes_back_to_it(solver: str) -> None:
    x, model = BIMODAL.at(QUANTILES, level_at(VP, 0.05)), network(BIMODAL, VP, "epsilon")
    ends, tight = {"t_start": 0.05, "t_end": 1.0}, {"rtol": 1e-5, "atol": 1e-5}
    noise, up = run_adaptive(solver, model, VP, x, **ends, **tight)
    np.testing.assert_allclose(noise, BIMODAL.at(QUANTILES, level_at(VP, 1.0)), atol=1e-4)
    back, down = run_adaptive(solver, model, VP, noise, t_start=1.0, t_end=0.05, **tight)
    np.testing.assert_allclose(back, x, atol=1e-4)
    assert (up.h < 0).all()
    assert (down.h > 0).all()


def test_float32_takes_the_steps_of_float64_and_ends_within_rounding() -> None:
    first, _ = exact(BIMODAL, VP, {})
    seen: set[tuple[Any, Any]] = set()
    model = network(BIMODAL, VP, "epsilon")

    def watched(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        seen.add((x.dtype, t.dtype))
        return np.asarray(model(x, t)).astype(x.dtype)

    options = {"rtol": 1e-2, "atol": 1e-3}
    wide, of_wide = run_adaptive("dpm-solver++23", watched, VP, first, **options)
    narrow, of_narrow = run_adaptive("dpm-solver++23", watched, VP, first.astype(np.float32), **options)
    assert (wide.dtype, narrow.dtype) == (np.float64, np.float32)
    assert seen == {(np.dtype(d), np.dtype(d)) for d in (np.float32, np.float64)}
    assert (of_wide.dtype, of_narrow.dtype) == ("float64", "float32")
    assert abs(of_wide.calls - of_narrow.calls) <= 4
    np.testing.assert_allclose(narrow, wide, atol=2e-3)
    half = run_adaptive("dpm-solver++23", watched, VP, first.astype(np.float16), **options)
    assert half.samples.dtype == np.float32


def test_a_short_step_s_error_is_known_in_float32() -> None:
    # the difference of two states would be rounding alone: 1e-7, some 1e5 times what the step's error is
    x, model = BIMODAL.at(QUANTILES, level_at(VP, 0.5)), network(BIMODAL, VP, "epsilon")
    span = {"t_start": 0.5, "t_end": 0.4999, "atol": 1e-6, "rtol": 1e-6, "h_init": 1.0}
    wide, narrow = (
        run_adaptive("dpm-solver-12", model, VP, x.astype(d), **span).report.error for d in (np.float64, np.float32)
    )
    np.testing.assert_allclose(narrow, wide, rtol=0.2)
