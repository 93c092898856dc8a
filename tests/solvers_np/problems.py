"""Data distributions whose diffusion is known in closed form, as networks and as exact solutions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.special import ndtr

from dpmrt.solvers_np import Grid, Level, Levels, NoiseSchedule

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Each entry of a sample is drawn on its own from sum_k weight_k N(mean_k, spread_k^2)."""

    weight: Array
    mean: Array
    spread: Array

    def parts(self, x: Array, level: Level) -> tuple[Array, Array, Array]:
        """Return each component's share of the density at x, and its mean and variance there."""
        mean = level.alpha * self.mean
        variance = (level.alpha * self.spread) ** 2 + level.sigma**2
        log = np.log(self.weight) - 0.5 * np.log(variance) - (x[..., None] - mean) ** 2 / (2 * variance)
        share = np.exp(log - log.max(-1, keepdims=True))
        return share / share.sum(-1, keepdims=True), mean, variance

    def eps(self, x: Array, level: Level) -> Array:
        """Return the expected noise in x: -sigma times the score."""
        share, mean, variance = self.parts(x, level)
        return level.sigma * (share * (x[..., None] - mean) / variance).sum(-1)

    def cdf(self, x: Array, level: Level) -> Array:
        _, mean, variance = self.parts(x, level)
        return (self.weight * ndtr((x[..., None] - mean) / np.sqrt(variance))).sum(-1)

    def at(self, probability: Array, level: Level) -> Array:
        """Return the exact solution of the probability flow, which in one dimension keeps every quantile."""
        low, high = np.full_like(probability, -50.0), np.full_like(probability, 50.0)
        for _ in range(200):
            middle = (low + high) / 2
            below = self.cdf(middle, level) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2


def network(data: Mixture, schedule: NoiseSchedule, prediction: str) -> Any:
    """Return the perfectly trained network: model(x, t), where x is the scaled state."""

    def model(x: Array, t: Array) -> Array:
        time = float(t[0])
        level = Level(time, *(float(f(time)) for f in (schedule.alpha, schedule.sigma, schedule.in_scale)))
        state = x / level.in_scale
        eps = data.eps(state, level)
        if prediction == "epsilon":
            return eps
        if prediction == "score":
            return -eps / (level.sigma * level.in_scale)
        x0 = (state - level.sigma * eps) / level.alpha
        if prediction == "v_prediction":
            return level.in_scale * (level.alpha * eps - level.sigma * x0)
        return {"sample": x0, "flow": eps - x0}[prediction]

    return model


def graded(schedule: NoiseSchedule, steps: int, start: float, end: float, power: float) -> Grid:
    """Steps in lambda that grow from the first as a power of their number; 1 makes them even."""
    low, high = float(schedule.lambda_(start)), float(schedule.lambda_(end))
    times = schedule.t_of_lambda(low + (high - low) * np.linspace(0, 1, steps + 1) ** power)
    times[0], times[-1] = start, end
    return Grid.through_times(schedule, np.asarray(times))


def encoding(grid: Grid) -> Grid:
    """Return the same grid run backwards: the noise rises."""

    def turned(levels: Levels) -> Levels:
        return Levels(*(column[::-1].copy() for column in (levels.t, levels.alpha, levels.sigma, levels.in_scale)))

    return Grid(turned(grid.end), turned(grid.start), schedule=grid.schedule)


#: one Gaussian an entry
GAUSSIANS = Mixture(np.ones(1), np.array([[0.4], [-0.8], [0.1]]), np.array([[0.7], [0.3], [1.4]]))
BIMODAL = Mixture(np.array([0.35, 0.65]), np.array([-1.1, 0.8]), np.array([0.45, 0.6]))
QUANTILES = np.array([[0.07, 0.22, 0.35, 0.5, 0.71, 0.93]])
