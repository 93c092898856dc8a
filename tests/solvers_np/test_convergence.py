"""Every case of every solver converges at the order it declares, whatever the network predicts."""

from __future__ import annotations

import numpy as np
import pytest
from measure import (
    STEPS,
    VP,
    cases,
    even_in_time,
    flow_end,
    flow_errors,
    grid_for,
    is_stochastic,
    label,
    law_end,
    law_errors,
    slope,
)
from problems import BIMODAL, QUANTILES

from dpmrt.solvers_np import SOLVERS, Case, Level
from dpmrt.solvers_np.prediction import PREDICTIONS
from dpmrt.solvers_np.solvers.dpm_multistep import THIRD_ORDERS

TOLERANCE = 0.15
ODE = [pytest.param(*pair, id=label(*pair)) for pair in cases() if not is_stochastic(*pair)]
SDE = [pytest.param(*pair, id=label(*pair)) for pair in cases() if is_stochastic(*pair)]


@pytest.mark.parametrize(("name", "case"), ODE)
def test_deterministic_solvers_follow_the_probability_flow(name: str, case: Case) -> None:
    errors = flow_errors(name, case, "epsilon")
    print(f"{label(name, case)}: {slope(errors):.2f}, errors {errors}")
    assert slope(errors) == pytest.approx(case.order, abs=TOLERANCE), errors


@pytest.mark.parametrize(("name", "case"), SDE)
def test_stochastic_solvers_draw_from_the_exact_law(name: str, case: Case) -> None:
    errors = law_errors(name, case, "epsilon")
    print(f"{label(name, case)}: weak {slope(errors):.2f}, errors {errors}")
    assert errors[-1] < 0.05
    assert slope(errors) == pytest.approx(case.order, abs=TOLERANCE), errors


@pytest.mark.parametrize(("name", "case"), [*ODE, *SDE])
def test_the_end_is_the_same_whatever_the_network_predicts(name: str, case: Case) -> None:
    grid = grid_for(name, case, STEPS[0])
    end = law_end if is_stochastic(name, case) else flow_end
    expected = end(name, case, "epsilon", grid)
    for prediction in PREDICTIONS:
        if prediction not in ("epsilon", "edm"):
            np.testing.assert_allclose(end(name, case, prediction, grid), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["ddim", "dpmsolver", "dpmsolver++"])
def test_encoding_has_the_same_order(name: str) -> None:
    for case in SOLVERS[name].cases[:2]:
        errors = flow_errors(name, case, "epsilon", backwards=True)
        assert slope(errors) == pytest.approx(case.order, abs=TOLERANCE), errors


@pytest.mark.parametrize("name", ["ddim", "dpmsolver", "dpmsolver++", "unipc", "flow-heun"])
def test_steps_even_in_time_have_the_same_order(name: str) -> None:
    for case in SOLVERS[name].cases[:3]:
        if case.starts_at is None:
            errors = flow_errors(name, case, "epsilon", make=even_in_time)
            assert slope(errors) == pytest.approx(case.order, abs=TOLERANCE), (case, errors)


@pytest.mark.parametrize("name", ["dpmsolver", "dpmsolver++"])
def test_order_3_as_released_is_held_back_by_its_formula_not_by_its_start(name: str) -> None:
    released, taylor = (Case({"order": 3, "third_order": third}, 3.0, starts_at=1.0) for third in THIRD_ORDERS[:2])
    assert slope(flow_errors(name, released, "epsilon")) < 2.5
    assert slope(flow_errors(name, taylor, "epsilon")) == pytest.approx(3.0, abs=TOLERANCE)


def test_the_exact_solution_solves_the_probability_flow() -> None:
    t, d = 0.4, 1e-5
    before, level, after = (Level(s, float(VP.alpha(s)), float(VP.sigma(s))) for s in (t - d, t, t + d))
    x = BIMODAL.at(QUANTILES, level)
    rate = float(np.log(after.alpha / before.alpha) / (2 * d))
    drift = rate * x - rate / level.sigma * BIMODAL.eps(x, level)  # Lu et al. 2022a: f x + g^2 / (2 sigma) eps
    change = BIMODAL.at(QUANTILES, after) - BIMODAL.at(QUANTILES, before)
    np.testing.assert_allclose(change / (2 * d), drift, rtol=1e-6, atol=1e-8)
