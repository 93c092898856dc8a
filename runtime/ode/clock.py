"""How fast signal and noise change with the network's time, for any schedule that gives alpha(t) and sigma(t)."""

from __future__ import annotations

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np import Level, NoiseSchedule
from dpmrt.solvers_np.levels import Floats

#: of (alpha, sigma), a smaller share than this has rates that cancel or are none
_LEAST = 1e-4
#: the step of the difference quotient, of the schedule's length; its error is of fourth order in it
_STEP = 1e-5
_NODES = np.arange(-2.0, 3.0)
_FIT = np.linalg.inv(np.vander(_NODES, increasing=True))


class Clock:
    """A schedule with rates: (level, d alpha / dt, d sigma / dt) at any time.

    In continuous time these are the schedule's own, or, of one that does not give them and close to no signal or no
    noise, difference quotients. A schedule that is known at whole times only has kinks there, which adaptive solvers
    would stop at; so a cubic goes through its training times, as smooth as it needs to be. What cubic and quotients
    work on is the angle atan2(sigma, alpha) and the logarithm of the length of (alpha, sigma), which are finite where
    no signal and where no noise is left.

    >>> from dpmrt.solvers_np import make_schedule
    >>> level, signal, noise = Clock(make_schedule("flow", train_steps=1000)).at(250.0)
    >>> round(signal, 6), round(noise, 6)
    (-0.001, 0.001)
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        self._schedule = schedule
        self._knots: Floats | None = None
        self._own = schedule.train_steps is None and _gives_rates(schedule)
        if schedule.train_steps is not None:
            self._knots = np.arange(schedule.t_range[0], schedule.t_range[1] + 0.5)
            self._values = self._polar(self._knots)
            self._slopes = np.stack([_slopes(row) for row in self._values])

    def at(self, t: float) -> tuple[Level, float, float]:
        """Return the level at `t`, and how alpha and sigma change there."""
        if self._own and (known := self._rates(t)) is not None:
            return known
        (angle, length), (turn, growth) = self._between(t) if self._knots is not None else self._differences(t)
        scale = np.exp(length)
        alpha, sigma = scale * np.cos(angle), scale * np.sin(angle)
        if self._knots is None or float(t).is_integer():
            alpha, sigma = self._schedule.alpha(t), self._schedule.sigma(t)
        level = Level(float(t), float(alpha), float(sigma), float(self._schedule.in_scale(t)))
        return level, float(growth * alpha - turn * sigma), float(growth * sigma + turn * alpha)

    def _rates(self, t: float) -> tuple[Level, float, float] | None:
        """Return what the SDE says: alpha' = drift alpha, and (sigma^2)' = diffusion + 2 drift sigma^2."""
        alpha, sigma = float(self._schedule.alpha(t)), float(self._schedule.sigma(t))
        if min(alpha, sigma) < _LEAST * np.hypot(alpha, sigma):
            return None
        pace = float(self._schedule.pace(t))
        _, drift, diffusion = (float(rate) for rate in self._schedule.rates(t))
        level = Level(float(t), alpha, sigma, float(self._schedule.in_scale(t)))
        return level, pace * drift * alpha, pace * (diffusion / (2 * sigma) + drift * sigma)

    def _polar(self, t: Floats) -> Floats:
        alpha, sigma = self._schedule.alpha(t), self._schedule.sigma(t)
        return np.stack([np.arctan2(sigma, alpha), np.log(np.hypot(alpha, sigma))])

    def _differences(self, t: float) -> tuple[Floats, Floats]:
        low, high = self._schedule.t_range
        step = _STEP * (high - low)
        # at an end, all five nodes lie on one side
        middle = min(max(t, low + 2 * step), high - 2 * step)
        nodes = np.clip(middle + step * _NODES, low, high)
        u = (t - middle) / step
        powers = np.array([0.0, 1.0, 2 * u, 3 * u**2, 4 * u**3])
        return self._polar(np.array([t]))[:, 0], self._polar(nodes) @ _FIT.T @ powers / step

    def _between(self, t: float) -> tuple[Floats, Floats]:
        """Return values and slopes of the cubic with the slopes of `_slopes` at the training times."""
        self._schedule.alpha(t)  # refuses a time outside
        low = min(int(t - self._knots[0]), self._values.shape[1] - 2) if self._knots is not None else 0
        u = t - low
        (a, b), (da, db) = self._values[:, low : low + 2].T, self._slopes[:, low : low + 2].T
        rise = b - a
        value = a + u * (da + u * ((3 * rise - 2 * da - db) + u * (da + db - 2 * rise)))
        return value, da + u * (2 * (3 * rise - 2 * da - db) + 3 * u * (da + db - 2 * rise))


def _gives_rates(schedule: NoiseSchedule) -> bool:
    try:
        schedule.rates(schedule.t_max)
        schedule.pace(schedule.t_max)
    except OptionError:
        return False
    return True


def _slopes(values: Floats) -> Floats:
    """Return slopes at evenly spaced knots that keep the cubic between two of them monotone where they are."""
    secants = np.diff(values)
    least = np.minimum(np.abs(np.append(secants[:1], secants)), np.abs(np.append(secants, secants[-1:])))
    return np.clip(np.gradient(values), -3 * least, 3 * least)
