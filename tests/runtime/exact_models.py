"""Networks whose data are known exactly, as models for drivers and as products for likelihoods; all in float64."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dpmrt.solvers_np import Level, NoiseSchedule, make_schedule

sys.path.insert(0, str(Path(__file__).parents[1] / "solvers_np"))
from problems import Mixture

Array = np.ndarray
GAUSS = Mixture(np.array([1.0]), np.array([0.4]), np.array([0.3]))
TWO = Mixture(np.array([0.3, 0.7]), np.array([-1.0, 0.8]), np.array([0.25, 0.4]))

#: schedules by the name of a test, with what their networks predict
SCHEDULES: dict[str, tuple[NoiseSchedule, str]] = {
    "ve": (make_schedule("ve"), "score"),
    "ve, by sigma": (make_schedule("ve", network_time="sigma"), "epsilon"),
    "vp": (make_schedule("vp-linear"), "score"),
    "vp, 999 t": (make_schedule("vp-linear", time_scale=999.0), "v_prediction"),
    "sub-vp": (make_schedule("sub-vp"), "score"),
    "cosine": (make_schedule("vp-cosine"), "sample"),
    "edm": (make_schedule("edm"), "edm"),
}


def at(schedule: NoiseSchedule, t: float) -> Level:
    """Return the level at a time."""
    return Level(t, *(float(f(t)) for f in (schedule.alpha, schedule.sigma, schedule.in_scale)))


def answer(data: Mixture, prediction: str, seen: Array, level: Level) -> Array:
    """Return what a perfect network gives for the scaled state that it sees, also where no signal is left."""
    alpha, sigma, scale = level.alpha, level.sigma, level.in_scale
    x = seen / scale
    share, mean, variance = data.parts(x, level)
    x0 = (share * (data.mean + alpha * data.spread**2 / variance * (x[..., None] - mean))).sum(-1)
    eps = data.eps(x, level)
    if prediction == "edm":
        half = 0.5
        skip, out = half**2 / (sigma**2 + half**2), sigma * half / np.hypot(sigma, half)
        return (x0 - skip * x) / out
    return {
        "epsilon": eps,
        "score": -eps / (sigma * scale) if sigma else eps,
        "sample": x0,
        "v_prediction": alpha * eps - sigma * x0,
        "flow": eps - x0,
    }[prediction]


class Exact:
    """model(x, t) of a perfect network; counts its calls itself."""

    precision, whole_times = "fp64", False

    def __init__(self, data: Mixture, schedule: NoiseSchedule, prediction: str, shape: tuple[int, ...]) -> None:
        self.data, self.schedule, self.prediction, self.shape = data, schedule, prediction, shape
        self.calls = 0

    def __call__(self, x: Array, t: float) -> Array:
        assert x.shape == self.shape
        assert x.dtype == np.float64
        self.calls += 1
        return self._answer(x, t)

    def _answer(self, x: Array, t: float) -> Array:
        return answer(self.data, self.prediction, x, at(self.schedule, t))


class ExactProduct(Exact):
    """product(x, t, v): every entry of the output depends on its own entry of x alone, so that J is diagonal."""

    def __call__(self, x: Array, t: float, v: Array) -> tuple[Array, Array]:  # type: ignore[override]
        raw = super().__call__(x, t)
        h = 1e-5
        slope = (self._answer(x + h, t) - self._answer(x - h, t)) / (2 * h)
        return raw, v * slope


def transported(data: Mixture, schedule: NoiseSchedule, x: Array, start: float, end: float) -> Array:
    """Return where the exact flow takes the entries of x from one time to another: it keeps every quantile."""
    level, quantile = at(schedule, end), data.cdf(x, at(schedule, start))
    low = np.full_like(quantile, -9 * (1 + level.sigma))
    high = -low
    for _ in range(120):
        middle = (low + high) / 2
        below = data.cdf(middle, level) < quantile
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def started(schedule: NoiseSchedule, x: np.ndarray) -> np.ndarray:
    """Unit noise as a state at the first time: 1 where the variance is kept, and else sigma."""
    sigma, alpha = float(schedule.sigma(schedule.t_max)), float(schedule.alpha(schedule.t_max))
    return x if abs(alpha**2 + sigma**2 - 1) < 1e-6 else sigma * x


def density(data: Mixture, x: Array, level: Level) -> Array:
    """Return the log density of each entry at a level."""
    mean, variance = level.alpha * data.mean, (level.alpha * data.spread) ** 2 + level.sigma**2
    log = np.log(data.weight / np.sqrt(2 * np.pi * variance)) - (x[..., None] - mean) ** 2 / (2 * variance)
    return np.logaddexp.reduce(log, axis=-1)
