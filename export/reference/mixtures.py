"""Gaussian mixtures: data whose noised scores, means and covariances are known exactly. NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GaussianMixture:
    """sum_k weights[k] N(means[k], covariances[k]): weights (k,), means (k, d), covariances (k, d, d).

    >>> PLANAR.sample(3, seed=0).shape, PLANAR.mean.round(3).tolist()
    ((3, 2), [0.125, -0.03])
    """

    weights: Floats
    means: Floats
    covariances: Floats

    @property
    def mean(self) -> Floats:
        """The mean (d,)."""
        return np.asarray(self.weights @ self.means)

    @property
    def covariance(self) -> Floats:
        """The covariance (d, d): that within the components and that of their means."""
        apart = self.means - self.mean
        between = np.einsum("k,ki,kj->ij", self.weights, apart, apart)
        return np.asarray(np.einsum("k,kij->ij", self.weights, self.covariances) + between)

    def sample(self, count: int, *, seed: int = 0) -> Floats:
        """Draw (count, d) samples; the same seed draws the same."""
        rng = np.random.default_rng(seed)
        which = rng.choice(len(self.weights), size=count, p=self.weights)
        roots = np.linalg.cholesky(self.covariances)
        normal = rng.standard_normal((count, self.means.shape[1]))
        return np.asarray(self.means[which] + np.einsum("nij,nj->ni", roots[which], normal))

    def shares(self, x: Floats, alpha: float = 1.0, sigma: float = 0.0) -> Floats:
        """Return p(component | x) (n, k) for x = alpha x0 + sigma z (n, d)."""
        logs = np.log(self.weights) + self._log_densities(x, alpha, sigma)
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def score(self, x: Floats, alpha: float = 1.0, sigma: float = 0.0) -> Floats:
        """Return the gradient of the log-density of alpha x0 + sigma z at x (n, d)."""
        inner = np.linalg.inv(self._noised(alpha, sigma))
        pulls = -np.einsum("kij,nkj->nki", inner, x[:, None] - alpha * self.means)
        return np.asarray(np.einsum("nk,nki->ni", self.shares(x, alpha, sigma), pulls))

    def epsilon(self, x: Floats, alpha: float, sigma: float) -> Floats:
        """Return the expected noise in x: what a perfectly trained network of eps answers."""
        return -sigma * self.score(x, alpha, sigma)

    def mode_weights(self, x: Floats) -> Floats:
        """Return the share (k,) of samples x (n, d) that is nearest, by p(component | x), to each component."""
        return np.bincount(self.shares(x).argmax(axis=1), minlength=len(self.weights)) / len(x)

    def _noised(self, alpha: float, sigma: float) -> Floats:
        return alpha**2 * self.covariances + sigma**2 * np.eye(self.means.shape[1])

    def _log_densities(self, x: Floats, alpha: float, sigma: float) -> Floats:
        noised = self._noised(alpha, sigma)
        apart = x[:, None] - alpha * self.means
        distance = np.einsum("nki,kij,nkj->nk", apart, np.linalg.inv(noised), apart)
        return np.asarray(-0.5 * (distance + np.linalg.slogdet(noised)[1]))


def _component(angle: float, long: float, short: float) -> Floats:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(turn @ np.diag([long**2, short**2]) @ turn.T)


#: three components of unequal weight, apart and aslant: what the small networks are trained on
PLANAR = GaussianMixture(
    weights=np.array([0.5, 0.3, 0.2]),
    means=np.array([[1.0, 0.6], [-1.15, 0.3], [-0.15, -2.1]]),
    covariances=np.stack([_component(0.6, 0.4, 0.2), _component(-0.4, 0.3, 0.25), _component(1.5, 0.25, 0.45)]),
)
