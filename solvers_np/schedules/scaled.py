"""A schedule seen as variance exploding, the form in which Euler, Heun, LMS and their kin are written."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dpmrt.solvers_np.levels import Floats, Level, Rates
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule, exploding_weights


class Scaled(NoiseSchedule):
    """A schedule seen as variance exploding: same network, same times, with the state divided by alpha.

    There alpha is 1 and sigma the noise-to-signal ratio; the network still sees its own state, so `in_scale` takes
    the division back. Made by `schedule.exploding()`.
    """

    def __init__(self, inner: NoiseSchedule) -> None:
        self.inner = inner
        self.name = inner.name
        self.prediction = inner.prediction
        self.t_min, self.t_max = inner.t_min, inner.t_max

    @property
    def train_steps(self) -> int | None:
        """Return the number of training times, or None where time is continuous."""
        return self.inner.train_steps

    def alpha(self, t: ArrayLike) -> Floats:
        """Return the weight of the data, 1 at every time."""
        return np.ones(self.inner.alpha(t).shape)

    def sigma(self, t: ArrayLike) -> Floats:
        """Return the noise-to-signal ratio at time t; infinite where no signal is left."""
        with np.errstate(divide="ignore"):
            return np.asarray(self.inner.sigma(t) / self.inner.alpha(t))

    def lambda_(self, t: ArrayLike) -> Floats:
        """Return half the log signal-to-noise ratio at time t, which no scaling changes."""
        return self.inner.lambda_(t)

    def t_of_lambda(self, lambda_: ArrayLike) -> Floats:
        """Return the time at which `lambda_` is reached."""
        return self.inner.t_of_lambda(lambda_)

    def in_scale(self, t: ArrayLike) -> Floats:
        """Return what the state is multiplied by before the network sees it at time t."""
        return np.asarray(self.inner.alpha(t) * self.inner.in_scale(t))

    def weights(self, lambda_: ArrayLike) -> tuple[Floats, Floats]:
        """Return (1, sigma) where `lambda_` is reached."""
        return exploding_weights(lambda_)

    def level(self, lambda_: float) -> Level:
        """Return the level at which `lambda_` is reached."""
        t, alpha, _, in_scale = self.inner.level(lambda_)
        _, sigma = self.weights(lambda_)
        return Level(t, 1.0, float(sigma), alpha * in_scale)

    def counted(self, places: Floats) -> Floats:
        """Return the training times at places counted from the least noise."""
        return self.inner.counted(places)

    def rates(self, t: ArrayLike) -> Rates:
        """Return the SDE of the state divided by alpha: no drift, and the diffusion over alpha^2."""
        clock, drift, diffusion = self.inner.rates(t)
        with np.errstate(divide="ignore"):
            return Rates(clock, np.zeros_like(drift), np.asarray(diffusion / self.inner.alpha(t) ** 2))

    def pace(self, t: ArrayLike) -> Floats:
        """Return du/dt, which no scaling changes."""
        return self.inner.pace(t)

    def spaced(self, start: float, end: float, count: int) -> Floats:
        """Return `count` times from start to end, evenly spaced by the schedule's clock."""
        return self.inner.spaced(start, end, count)

    def exploding(self) -> Scaled:
        """Return the view itself."""
        return self

    @property
    def t_range(self) -> tuple[float, float]:
        """Return the first and the last time that can be asked for."""
        return self.inner.t_range
