"""Level: how much signal and noise the state holds, and how the network is asked there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Level(NamedTuple):
    """A state x = alpha x_0 + sigma eps, for which the network is called with (in_scale * x, t).

    `t` is NaN where the network has no time, as where no noise is left.

    >>> Level(t=500.0, alpha=0.6, sigma=0.8).ratio
    1.3333333333333335
    """

    t: float
    alpha: float
    sigma: float
    in_scale: float = 1.0

    @property
    def ratio(self) -> float:
        """Return noise over signal, infinite where no signal is left."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def lambda_(self) -> float:
        """Return log(alpha / sigma), infinite where either is none."""
        if not self.alpha or not self.sigma:
            return math.inf if self.alpha else -math.inf
        return math.log(self.alpha) - math.log(self.sigma)

    @property
    def share(self) -> float:
        """Return the share of the noise in the variance, sigma^2 / (alpha^2 + sigma^2)."""
        return self.sigma**2 / (self.alpha**2 + self.sigma**2)


class Rates(NamedTuple):
    """The SDE dx = drift x du + sqrt(diffusion) dw that a schedule's levels follow, at one or at many times.

    `clock` is its time u, which rises with the noise; it need not be the network's. With d/du written as ',
    drift = alpha' / alpha and diffusion = (sigma^2)' - 2 drift sigma^2.
    """

    clock: Floats
    drift: Floats
    diffusion: Floats


@dataclasses.dataclass(frozen=True, eq=False)
class Levels:
    """Levels as columns, one row after another."""

    t: Floats
    alpha: Floats
    sigma: Floats
    in_scale: Floats

    @staticmethod
    def of(t: ArrayLike, alpha: ArrayLike, sigma: ArrayLike, in_scale: ArrayLike = 1.0) -> Levels:
        """Make columns of equal length from arrays and numbers."""
        columns = (np.asarray(c, np.float64) for c in (t, alpha, sigma, in_scale))
        return Levels(*(np.ascontiguousarray(c) for c in np.broadcast_arrays(*columns)))

    def __len__(self) -> int:
        return len(self.t)

    def __iter__(self) -> Iterator[Level]:
        columns = (self.t, self.alpha, self.sigma, self.in_scale)
        return map(Level, *(column.tolist() for column in columns))

    def part(self, start: int | None, stop: int | None = None) -> Levels:
        """Return the rows from `start` up to `stop`, as slices count."""
        rows = slice(start, stop)
        return Levels(self.t[rows], self.alpha[rows], self.sigma[rows], self.in_scale[rows])

    def then(self, last: Level) -> Levels:
        """Return these rows and one more."""
        columns = (self.t, self.alpha, self.sigma, self.in_scale)
        return Levels(*(np.append(column, value) for column, value in zip(columns, last)))

    @property
    def lambda_(self) -> Floats:
        """Return log(alpha / sigma), infinite where either is none."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.alpha) - np.log(self.sigma))

    @property
    def ratio(self) -> Floats:
        """Return noise over signal, infinite where no signal is left."""
        with np.errstate(divide="ignore"):
            return np.asarray(self.sigma / self.alpha)
