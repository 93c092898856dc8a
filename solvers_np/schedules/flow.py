"""Rectified flow: a straight line from data to noise, and the shift of its times with resolution."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from dpmrt.errors import OptionError
from dpmrt.solvers_np.levels import Floats, Rates
from dpmrt.solvers_np.options import within
from dpmrt.solvers_np.schedules.continuous import positive, rising
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule

Range = tuple[float, float]
#: where exp(mu) and its inverse are finite
MOST_MU = 700.0


class RectifiedFlow(NoiseSchedule):
    """alpha = 1 - sigma; the network's time is sigma, times the number of training times (Liu et al. 2022).

    What is shifted is the spacing of the times, not what they mean: even ones, u, become sigma = shift u / (1 +
    (shift - 1) u), more of them with much noise where shift > 1 (Esser et al. 2024, eq. 23). Every time
    from 0 on can be asked for; grids end at the lowest of N even ones, u = 1 / N, unless told otherwise.
    """

    name = "flow"
    prediction = "flow"

    def __init__(self, train_steps: int, shift: float) -> None:
        positive(shift=shift)
        self.shift = shift
        self.time_scale = float(train_steps)
        self.t_max = float(train_steps)
        self.t_min = float(self._shifted(np.float64(1 / train_steps))) * train_steps

    def _shifted(self, u: Floats | np.float64) -> Floats:
        return np.asarray(self.shift * u / (1 + (self.shift - 1) * u))

    def alpha(self, t: ArrayLike) -> Floats:
        """Return the weight of the data at time t."""
        return np.asarray(1 - self.sigma(t))

    def sigma(self, t: ArrayLike) -> Floats:
        """Return the weight of the noise at time t."""
        return np.asarray(self._inside(t) / self.time_scale)

    def t_of_lambda(self, lambda_: ArrayLike) -> Floats:
        """Return the time at which `lambda_` is reached."""
        return np.asarray(self.weights(self._reached(lambda_))[1] * self.time_scale)

    def weights(self, lambda_: ArrayLike) -> tuple[Floats, Floats]:
        """Return (alpha, sigma) where `lambda_` is reached."""
        array = np.asarray(lambda_, dtype=np.float64)
        return np.exp(-np.logaddexp(0.0, -array)), np.exp(-np.logaddexp(0.0, array))

    def rates(self, t: ArrayLike) -> Rates:
        """Return the SDE with these levels, in sigma: drift -1 / alpha and diffusion 2 sigma / alpha."""
        sigma = self.sigma(t)
        with np.errstate(divide="ignore"):
            return Rates(sigma, -1 / (1 - sigma), 2 * sigma / (1 - sigma))

    def pace(self, t: ArrayLike) -> Floats:
        """Return d sigma / dt, the same at every time."""
        return np.full(self._inside(t).shape, 1 / self.time_scale)

    def spaced(self, start: float, end: float, count: int) -> Floats:
        """Return `count` times from start to end, evenly spaced before the shift."""
        ends = self._inside([start, end]) / self.time_scale
        first, last = ends / (self.shift - (self.shift - 1) * ends)
        u = np.linspace(first, last, count)
        return np.asarray(self._shifted(u) * self.time_scale)

    @property
    def t_range(self) -> Range:
        """Return the first and the last time that can be asked for."""
        return 0.0, self.t_max


def flow_mu(tokens: float, *, low: Range = (256, 0.5), high: Range = (4096, 1.15)) -> float:
    """Return the mu of an image of so many tokens, on the line through two (tokens, mu); shift is exp(mu).

    The defaults are Flux's; at 16 pixels a token an image of 1024 x 1024 has 4096 tokens.

    >>> flow_mu(4096), round(flow_mu(1024), 4)
    (1.15, 0.63)
    """
    positive(tokens=tokens)
    rising(low_tokens=low[0], high_tokens=high[0])
    slope = (high[1] - low[1]) / (high[0] - low[0])
    return high[1] + (tokens - high[0]) * slope


def shift_of(shift: float, mu: float | None) -> float:
    """Return the shift that was asked for, by itself or as its logarithm."""
    if mu is None:
        return shift
    within("mu", mu, -MOST_MU, MOST_MU)
    if shift != 1.0:
        raise OptionError(
            "shift and mu exclude each other",
            got=f"shift={shift:g}, mu={mu:g}",
            expected="one of the two",
            fix=f"leave out shift; mu={mu:g} is shift={math.exp(mu):.4g}",
        )
    return math.exp(mu)
