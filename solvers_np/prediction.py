"""What a network predicts, as rows of weights: x0 and eps from {state, raw output}.

With x_t = alpha x0 + sigma eps:

    epsilon       eps
    sample        x0
    v_prediction  alpha eps - sigma x0 (Salimans and Ho 2022, appendix D)
    flow          eps - x0, the velocity of rectified flow
    score         the gradient of log p, -eps / sigma
    edm           F of x0 = c_skip x + c_out F(c_in x) (Karras et al. 2022, eq. 7)

A network that reads a scaled state, in_scale * x, predicts what belongs to the scaled one. Where the scale makes the
state's variance one, as EDM's does, it holds the data's spread: in_scale^-2 = alpha^2 sigma_data^2 + sigma^2.
"""

from __future__ import annotations

import math

from dpmrt.errors import OptionError
from dpmrt.solvers_np.levels import Level

PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow", "score", "edm")
Pair = tuple[float, float]


def _divide(numerator: float, denominator: float, prediction: str, wanted: str) -> float:
    if denominator == 0:
        raise OptionError(
            f"{wanted} cannot be had from a network that predicts {prediction!r} where its weight is zero",
            got="a time with no signal left" if wanted == "x0" else "a time with no noise left",
            expected="a grid inside the schedule, or a network that predicts v",
        )
    return numerator / denominator


def to_x0(prediction: str, level: Level) -> Pair:
    """Return weights of (state, raw output) that make x0."""
    _, alpha, sigma, scale = level
    if prediction == "sample":
        return 0.0, 1.0
    if prediction == "flow":
        return 1.0 / (alpha + sigma), -sigma / (alpha + sigma)
    if prediction == "score":
        return _divide(1.0, alpha, prediction, "x0"), _divide(scale * sigma**2, alpha, prediction, "x0")
    if prediction == "epsilon":
        return _divide(1.0, alpha, prediction, "x0"), _divide(-sigma, alpha, prediction, "x0")
    state, raw = _velocity(prediction, level)
    return state, raw


def to_eps(prediction: str, level: Level) -> Pair:
    """Return weights of (state, raw output) that make eps."""
    if prediction == "epsilon":
        return 0.0, 1.0
    if prediction == "score":
        return 0.0, -level.in_scale * level.sigma
    if prediction == "flow":
        return 1.0 / (level.alpha + level.sigma), level.alpha / (level.alpha + level.sigma)
    if prediction == "v_prediction" and level.in_scale == 1:
        norm = level.alpha**2 + level.sigma**2
        return level.sigma / norm, level.alpha / norm
    state, raw = to_x0(prediction, level)
    return (
        _divide(1.0 - level.alpha * state, level.sigma, prediction, "eps"),
        _divide(-level.alpha * raw, level.sigma, prediction, "eps"),
    )


def to_score(prediction: str, level: Level) -> Pair:
    """Return weights of (state, raw output) that make the score of the state, -eps / sigma."""
    if level.sigma == 0:
        raise OptionError(
            "there is no score where no noise is left",
            got=f"sigma = 0 at t = {level.t:g}",
            expected="a network call at a time with some noise",
            fix="end the grid before it: final='zero' calls the network last at the lowest noise above 0",
        )
    if prediction == "score":
        return 0.0, level.in_scale
    state, raw = to_eps(prediction, level)
    return 0.0 - state / level.sigma, -raw / level.sigma


def x0_to_eps(level: Level) -> Pair:
    """Return weights of (state, x0) that make eps."""
    return to_eps("sample", level)


def perfect_output(prediction: str, level: Level) -> float:
    """Return what a network that knows x0 = 1 and eps = 0 answers."""
    if prediction == "flow":
        return -1.0
    state, raw = to_x0(prediction, level)
    return (1.0 - state * level.alpha) / raw if raw else 0.0


def _velocity(prediction: str, level: Level) -> Pair:
    """Return x0's weights for v, and for EDM's F, which is -v of data with a spread of sigma_data."""
    _, alpha, sigma, scale = level
    sign = 1.0 if prediction == "edm" else -1.0
    if scale == 1 and prediction == "v_prediction":
        norm = alpha**2 + sigma**2
        return alpha / norm, -sigma / norm
    # of a scale that makes the variance one, the difference is known without what its subtraction would lose
    unit = abs(scale**2 * (alpha**2 + sigma**2) - 1.0) < 1e-14
    spread = alpha**2 if unit else 1.0 / scale**2 - sigma**2
    if not (spread > 0 and alpha > 0):
        raise OptionError(
            f"the grid has no input scale that {prediction!r} could belong to",
            got=f"in_scale = {scale:g} at alpha = {alpha:g}, sigma = {sigma:g}",
            expected="1 / sqrt(alpha^2 sigma_data^2 + sigma^2), as of schedule 'edm'",
        )
    return spread * scale**2 / alpha, sign * math.sqrt(spread) * sigma * scale / alpha
