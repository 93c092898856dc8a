"""Every prediction is one statement about the same x0 and eps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmrt.errors import OptionError
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.prediction import PREDICTIONS, perfect_output, to_eps, to_x0, x0_to_eps

X0, EPS, DATA = 0.7, -1.3, 0.5


def levels(prediction: str) -> list[Level]:
    angle = np.linspace(0.05, 1.5, 7)
    preserving = [Level(0.0, math.cos(a), math.sin(a)) for a in angle]
    exploding = [Level(0.0, 1.0, s, 1 / math.hypot(1, s)) for s in (0.01, 0.5, 3.0, 80.0)]
    if prediction == "edm":
        return [Level(0.0, 1.0, s, 1 / math.hypot(DATA, s)) for s in (0.002, 0.5, 3.0, 80.0)]
    if prediction == "flow":
        return [Level(0.0, 1 - s, s) for s in (0.01, 0.3, 0.99)]
    return [*preserving, *exploding, *([Level(0.0, 1 - s, s) for s in (0.1, 0.6)] if prediction != "score" else [])]


def answer(prediction: str, level: Level) -> float:
    """What an exact network says, from the definitions of the papers."""
    _, a, s, c = level
    if prediction in ("epsilon", "sample"):
        return EPS if prediction == "epsilon" else X0
    if prediction == "flow":
        return EPS - X0
    if prediction == "score":
        return -EPS / (c * s)
    if prediction == "edm":
        return (X0 - DATA**2 / (DATA**2 + s**2) * (X0 + s * EPS)) / (s * DATA / math.hypot(s, DATA))
    return c * a * EPS - c * s * X0


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_x0_and_eps_come_back(prediction: str) -> None:
    for level in levels(prediction):
        x, raw = level.alpha * X0 + level.sigma * EPS, answer(prediction, level)
        for convert, want in ((to_x0, X0), (to_eps, EPS)):
            state, weight = convert(prediction, level)
            assert state * x + weight * raw == pytest.approx(want, rel=1e-9), level
        state, weight = x0_to_eps(level)
        assert state * x + weight * X0 == pytest.approx(EPS, rel=1e-9)


@given(prediction=st.sampled_from(PREDICTIONS), sigma=st.floats(1e-3, 0.999))
def test_a_perfect_output_is_x0_of_one(prediction: str, sigma: float) -> None:
    level = Level(0.0, math.sqrt(1 - sigma**2), sigma)
    state, raw = to_x0(prediction, level)
    assert state * level.alpha + raw * perfect_output(prediction, level) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(
    ("convert", "prediction", "level", "text"),
    [
        (to_x0, "epsilon", Level(9.0, 0.0, 1.0), "x0 cannot be had from a network that predicts 'epsilon'"),
        (to_x0, "score", Level(9.0, 0.0, 1.0), "x0 cannot be had from a network that predicts 'score'"),
        (to_eps, "sample", Level(0.0, 1.0, 0.0), "eps cannot be had from a network that predicts 'sample'"),
        (to_x0, "edm", Level(0.0, 1.0, 2.0), "no input scale that 'edm' could belong to"),
        (to_x0, "v_prediction", Level(0.0, 1.0, 2.0, 0.9), "no input scale that 'v_prediction' could belong to"),
    ],
)
def test_where_there_is_no_answer(convert: object, prediction: str, level: Level, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        convert(prediction, level)  # type: ignore[operator]
