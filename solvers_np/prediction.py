"""What a network predicts, as rows of weights: x0 and eps from {state, raw output}.

With x_t = alpha x0 + sigma eps: "epsilon" is eps, "sample" is x0, and "v_prediction" is
v = alpha eps - sigma x0 (Salimans and Ho 2022, appendix D).
"""

from __future__ import annotations

from dpmrt.errors import OptionError

PREDICTIONS = ("epsilon", "sample", "v_prediction")
Pair = tuple[float, float]


def _divide(numerator: float, denominator: float, prediction: str, wanted: str) -> float:
    if denominator == 0:
        raise OptionError(
            f"{wanted} cannot be had from a network that predicts {prediction!r} where its weight is zero",
            got="a time with no signal left" if wanted == "x0" else "a time with no noise left",
            expected="a grid inside the schedule, or a network that predicts v",
        )
    return numerator / denominator


def to_x0(prediction: str, alpha: float, sigma: float) -> Pair:
    """Return weights of (state, raw output) that make x0."""
    if prediction == "sample":
        return 0.0, 1.0
    if prediction == "v_prediction":
        return alpha, -sigma
    return _divide(1.0, alpha, prediction, "x0"), _divide(-sigma, alpha, prediction, "x0")


def to_eps(prediction: str, alpha: float, sigma: float) -> Pair:
    """Return weights of (state, raw output) that make eps."""
    if prediction == "epsilon":
        return 0.0, 1.0
    if prediction == "v_prediction":
        return sigma, alpha
    return _divide(1.0, sigma, prediction, "eps"), _divide(-alpha, sigma, prediction, "eps")


def x0_to_eps(alpha: float, sigma: float) -> Pair:
    """Return weights of (state, x0) that make eps."""
    return to_eps("sample", alpha, sigma)


def perfect_output(prediction: str, sigma: float) -> float:
    """Return what a network that knows x0 = 1 and eps = 0 answers."""
    return {"epsilon": 0.0, "sample": 1.0, "v_prediction": -sigma}[prediction]
