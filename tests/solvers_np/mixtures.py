"""A mixture of Gaussians in the plane: its exact score at any level, and what samples of it must look like."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpmrt.solvers_np import NoiseSchedule

Array = np.ndarray
WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = np.array([[-1.5, 0.3], [0.9, 1.0], [0.4, -1.2]])
COVARIANCES = np.array([[[0.09, 0.03], [0.03, 0.16]], [[0.25, -0.1], [-0.1, 0.12]], [[0.05, 0.0], [0.0, 0.3]]])
MEAN = WEIGHTS @ MEANS
_SECOND = COVARIANCES + MEANS[:, :, None] * MEANS[:, None, :]
COVARIANCE = np.einsum("k,kij->ij", WEIGHTS, _SECOND) - np.outer(MEAN, MEAN)


def shares_and_pulls(x: Array, alpha: float, sigma: float) -> tuple[Array, list[Array]]:
    """Return each mode's share of the density at x, and the gradient of each mode's logarithm."""
    pulls, logs = [], []
    for weight, mean, covariance in zip(WEIGHTS, MEANS, COVARIANCES):
        inverse = np.linalg.inv(alpha**2 * covariance + sigma**2 * np.eye(2))
        d = x - alpha * mean
        pulls.append(-d @ inverse)
        logs.append(0.5 * (d * pulls[-1]).sum(1) + 0.5 * np.log(np.linalg.det(inverse)) + np.log(weight))
    shares = np.exp(np.array(logs) - np.max(logs, axis=0))
    return shares / shares.sum(0), pulls


def score_network(schedule: NoiseSchedule) -> Any:
    """Return the perfectly trained network: the score."""

    def model(x: Array, t: Array) -> Array:
        shares, pulls = shares_and_pulls(x, float(schedule.alpha(float(t[0]))), float(schedule.sigma(float(t[0]))))
        return sum(share[:, None] * pull for share, pull in zip(shares, pulls))

    return model


def errors(x: Array) -> dict[str, float]:
    """Return how many standard errors of as many exact samples mean, covariance and mode weights are off, at most."""
    exact = exact_samples(20_000)
    off = exact - MEAN
    products = off[:, :, None] * off[:, None, :]
    modes = shares_and_pulls(exact, 1.0, 0.0)[0]
    root = len(x) ** 0.5
    return {
        "mean": float((abs(x.mean(0) - MEAN) / off.std(0)).max() * root),
        "covariance": float((abs(np.cov(x.T) - COVARIANCE) / products.std(0)).max() * root),
        "weights": float((abs(shares_and_pulls(x, 1.0, 0.0)[0].mean(1) - WEIGHTS) / modes.std(1)).max() * root),
    }


def exact_samples(count: int) -> Array:
    rng = np.random.default_rng(123)
    mode = rng.choice(3, count, p=WEIGHTS)
    return MEANS[mode] + np.einsum(
        "nij,nj->ni", np.linalg.cholesky(COVARIANCES)[mode], rng.standard_normal((count, 2))
    )
