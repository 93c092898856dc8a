"""SMLD: the variance-exploding SDE at N noise levels, which networks know by number, the noisiest first."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from dpmrt.solvers_np.levels import Floats, Rates
from dpmrt.solvers_np.schedules.continuous import rising
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule, exploding_weights


class SMLD(NoiseSchedule):
    """alpha = 1, sigma geometric from sigma_max at time 0 to sigma_min at N - 1 (Song and Ermon 2019).

    Time is the label of NCSN's and score_sde's discrete networks, and runs against the noise: `t_max`, where grids
    start, is 0, and `t_min` is N - 1.
    """

    name = "smld"
    prediction = "score"

    def __init__(self, train_steps: int, sigma_min: float, sigma_max: float) -> None:
        rising(sigma_min=sigma_min, sigma_max=sigma_max)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.t_min, self.t_max = float(train_steps - 1), 0.0
        self._fall = math.log(sigma_max / sigma_min) / (train_steps - 1)

    @property
    def train_steps(self) -> int:
        """Return the number of noise levels."""
        return int(self.t_min) + 1

    @property
    def t_range(self) -> tuple[float, float]:
        """Return the first and the last time that can be asked for."""
        return self.t_max, self.t_min

    def alpha(self, t: ArrayLike) -> Floats:
        """Return the weight of the data, 1 at every time."""
        return np.ones(self._inside(t).shape)

    def sigma(self, t: ArrayLike) -> Floats:
        """Return the weight of the noise at time t."""
        return np.asarray(self.sigma_max * np.exp(-self._fall * self._inside(t)))

    def t_of_lambda(self, lambda_: ArrayLike) -> Floats:
        """Return the time at which `lambda_` is reached."""
        t = (self._reached(lambda_) + math.log(self.sigma_max)) / self._fall
        return np.asarray(np.clip(t, self.t_max, self.t_min))

    def weights(self, lambda_: ArrayLike) -> tuple[Floats, Floats]:
        """Return (1, sigma) where `lambda_` is reached."""
        return exploding_weights(lambda_)

    def rates(self, t: ArrayLike) -> Rates:
        """Return the VE SDE at time t, whose clock is 0 at the least noise and 1 at the most."""
        u, sigma = 1 - self._inside(t) / self.t_min, self.sigma(t)
        return Rates(u, np.zeros_like(u), 2 * self._fall * self.t_min * sigma**2)

    def pace(self, t: ArrayLike) -> Floats:
        """Return du/dt, below zero, as times run against the noise."""
        return np.full(self._inside(t).shape, -1 / self.t_min)

    def counted(self, places: Floats) -> Floats:
        """Return the training times at places counted from the least noise."""
        return np.asarray(self.t_min - places)
