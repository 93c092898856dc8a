"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with lambda(t) = log(alpha(t) / sigma(t))."""

from __future__ import annotations

import bisect
import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dpmrt.errors import OptionError
from dpmrt.solvers_np.levels import Floats as Floats
from dpmrt.solvers_np.levels import Level, Rates

if TYPE_CHECKING:
    from dpmrt.solvers_np.schedules.scaled import Scaled

#: a lambda this far outside, relative to its size, is the rounding of one at the end
ROUNDING = 1e-8


class NoiseSchedule:
    """What every schedule offers. Times are the ones that the network was trained with.

    Subclasses give `alpha`, `sigma` and `t_of_lambda`; grids reach from `t_max`, where the noise is greatest, to
    `t_min`, which is the greater number where a network's times run against the noise. `train_steps` is the number of
    training times of a network that knows whole ones only. `prediction` says what networks trained on the schedule
    usually predict; nothing is computed from it.
    """

    t_min: float
    t_max: float
    name: str = "custom"
    prediction: str | None = None

    @property
    def train_steps(self) -> int | None:
        """Return the number of training times, or None where time is continuous."""
        return None

    def alpha(self, t: ArrayLike) -> Floats:
        """Return the weight of the data at time t."""
        raise NotImplementedError

    def sigma(self, t: ArrayLike) -> Floats:
        """Return the weight of the noise at time t."""
        raise NotImplementedError

    def lambda_(self, t: ArrayLike) -> Floats:
        """Return half the log signal-to-noise ratio at time t."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.alpha(t)) - np.log(self.sigma(t)))

    def t_of_lambda(self, lambda_: ArrayLike) -> Floats:
        """Return the time at which `lambda_` is reached: the inverse of `lambda_(t)`."""
        raise NotImplementedError

    def in_scale(self, t: ArrayLike) -> Floats:
        """Return what the state is multiplied by before the network sees it at time t."""
        return np.ones(np.shape(t))

    def weights(self, lambda_: ArrayLike) -> tuple[Floats, Floats]:
        """Return (alpha, sigma) where `lambda_` is reached, by a formula in lambda where there is one."""
        t = self.t_of_lambda(lambda_)
        return self.alpha(t), self.sigma(t)

    def level(self, lambda_: float) -> Level:
        """Return the level at which `lambda_` is reached.

        >>> from dpmrt.solvers_np import make_schedule
        >>> level = make_schedule("linear").level(0.0)
        >>> round(level.t), round(level.alpha, 6), round(level.sigma, 6)
        (258, 0.707107, 0.707107)
        """
        t = self.t_of_lambda(lambda_)
        alpha, sigma = self.weights(lambda_)
        return Level(float(t), float(alpha), float(sigma), float(self.in_scale(t)))

    def spaced(self, start: float, end: float, count: int) -> Floats:
        """Return `count` times from start to end, even by the schedule's clock, which is time unless shifted."""
        return np.linspace(start, end, count)

    def counted(self, places: Floats) -> Floats:
        """Return the training times at places counted from the least noise."""
        return places

    def rates(self, t: ArrayLike) -> Rates:
        """Return the schedule's SDE at time t, in its own clock (Song et al. 2021, arXiv 2011.13456).

        >>> from dpmrt.solvers_np import make_schedule
        >>> drift = make_schedule("vp-linear").rates(1.0).drift      # -beta / 2
        >>> float(drift)
        -10.0
        """
        raise OptionError(
            "this schedule says nothing of its SDE",
            got=f"{self.name!r}, a {type(self).__name__}",
            expected="a named schedule, or a class with rates(t)",
        )

    def pace(self, t: ArrayLike) -> Floats:
        """Return du/dt: how fast the clock of `rates` goes by the network's time."""
        raise OptionError(
            "this schedule does not say how its clock goes",
            got=f"{self.name!r}, a {type(self).__name__}",
            expected="a named schedule, or a class with pace(t)",
        )

    def exploding(self) -> Scaled:
        """Return the same noise seen as variance exploding: the state divided by alpha."""
        from dpmrt.solvers_np.schedules.scaled import Scaled  # a subclass of this class, so its file imports this one

        return Scaled(self)

    @property
    def t_range(self) -> tuple[float, float]:
        """Return the first and the last time that can be asked for."""
        return self.t_min, self.t_max

    def _inside(self, t: ArrayLike) -> Floats:
        times, (low, high) = np.asarray(t, dtype=np.float64), self.t_range
        if not ((times >= low) & (times <= high)).all():
            raise OptionError("a time is outside the schedule", got=t, expected=f"{low:g} to {high:g}")
        return times

    @functools.cached_property
    def _lambda_range(self) -> tuple[float, float]:
        ends = self.lambda_(np.array(self.t_range)).tolist()
        return min(ends), max(ends)

    def _reached(self, lambda_: ArrayLike) -> Floats:
        """Return `lambda_` as an array, without the rounding that would leave the schedule."""
        array, (low, high) = np.asarray(lambda_, dtype=np.float64), self._lambda_range
        if not ((array >= low - ROUNDING * (1 + abs(low))) & (array <= high + ROUNDING * (1 + abs(high)))).all():
            raise OptionError("a lambda is outside the schedule", got=lambda_, expected=f"{low:.4f} to {high:.4f}")
        return np.asarray(np.clip(array, low, high))

    @staticmethod
    def from_betas(betas: ArrayLike, *, name: str = "custom") -> DiscreteVP:
        """Make a variance-preserving schedule from the per-step noise variances.

        >>> schedule = NoiseSchedule.from_betas([0.1, 0.2, 0.3])
        >>> [round(float(a), 4) for a in schedule.alpha([0, 1, 2]) ** 2]
        [0.9, 0.72, 0.504]
        """
        array = _table("betas", betas)
        if not ((array > 0) & (array < 1)).all():
            index = int(np.flatnonzero(~((array > 0) & (array < 1)))[0])
            raise OptionError(
                "a beta is outside (0, 1)", got=f"betas[{index}] = {array[index]}", expected="0 < beta < 1"
            )
        return DiscreteVP(np.asarray(np.cumprod(1.0 - array), dtype=np.float64), name=name)

    @staticmethod
    def from_alphas_cumprod(alphas_cumprod: ArrayLike, *, name: str = "custom") -> DiscreteVP:
        """Make a variance-preserving schedule from the cumulative products alpha(t)^2, largest first."""
        return DiscreteVP(_table("alphas_cumprod", alphas_cumprod), name=name)


class DiscreteVP(NoiseSchedule):
    """Variance preserving, known at the training times 0, 1, ..., N-1.

    Exact at those times; between them log alpha is linear in t, as DPM-Solver has it for discrete-time networks
    (Lu et al. 2022, arXiv 2206.00927). Before a last time without signal, where log alpha has no end, alpha is.
    """

    prediction = "epsilon"

    def __init__(self, alphas_cumprod: Floats, *, name: str = "custom") -> None:
        array = np.array(alphas_cumprod, dtype=np.float64)
        inside = (array >= 0) & (array < 1)
        inside[:-1] &= array[:-1] > 0
        if not inside.all():
            index = int(np.flatnonzero(~inside)[0])
            raise OptionError(
                "a cumulative alpha is outside (0, 1)",
                got=f"alphas_cumprod[{index}] = {array[index]}",
                expected="0 < value < 1 (0 at the last time only)",
            )
        if not (np.diff(array) < 0).all():
            index = int(np.flatnonzero(~(np.diff(array) < 0))[0])
            raise OptionError(
                "the cumulative alphas do not decrease",
                got=f"[{index}] = {array[index]}, [{index + 1}] = {array[index + 1]}",
                expected="each smaller than the one before",
            )
        array.flags.writeable = False
        self.alphas_cumprod = array
        self.name = name
        self.t_min = 0.0
        self.t_max = float(len(array) - 1)
        with np.errstate(divide="ignore"):
            self._log_alpha = 0.5 * np.log(array)

    @property
    def train_steps(self) -> int:
        """Return the number of training times."""
        return len(self.alphas_cumprod)

    def _alphas_cumprod(self, t: ArrayLike) -> Floats:
        times = self._inside(t)
        low = np.minimum(times.astype(np.int64), self.train_steps - 2)
        weight = times - low
        inner = (weight > 0) & (weight < 1)
        safe = np.where(inner, weight, 0.5)
        between = np.exp(2 * ((1 - safe) * self._log_alpha[low] + safe * self._log_alpha[low + 1]))
        if self.alphas_cumprod[-1] == 0:
            between = np.where(low == self.train_steps - 2, (1 - safe) ** 2 * self.alphas_cumprod[-2], between)
        knot = self.alphas_cumprod[np.rint(times).astype(np.int64)]
        return np.where(inner, between, knot)

    def alpha(self, t: ArrayLike) -> Floats:
        """Return the weight of the data at time t."""
        return np.asarray(np.sqrt(self._alphas_cumprod(t)))

    def sigma(self, t: ArrayLike) -> Floats:
        """Return the weight of the noise at time t."""
        return np.asarray(np.sqrt(1.0 - self._alphas_cumprod(t)))

    def t_of_lambda(self, lambda_: ArrayLike) -> Floats:
        """Return the time at which `lambda_` is reached."""
        target = -0.5 * np.logaddexp(0.0, -2.0 * self._reached(lambda_))
        t = np.interp(-target, -self._log_alpha, np.arange(self.train_steps, dtype=np.float64))
        if self.alphas_cumprod[-1] == 0:
            before = self._log_alpha[-2]
            t = np.where(target < before, self.t_max - np.exp(np.minimum(target - before, 0.0)), t)
        return np.asarray(t)

    def weights(self, lambda_: ArrayLike) -> tuple[Floats, Floats]:
        """Return (alpha, sigma) where `lambda_` is reached."""
        return vp_weights(lambda_)

    def rates(self, t: ArrayLike) -> Rates:
        """Return the SDE of which DDPM's chain is a discretisation: drift -beta / 2 and diffusion beta a time."""
        times = self._inside(t)
        kept = self.alphas_cumprod / np.append(1.0, self.alphas_cumprod[:-1])
        beta = np.interp(times, np.arange(self.train_steps), 1 - kept)
        return Rates(times, -beta / 2, beta)

    def pace(self, t: ArrayLike) -> Floats:
        """Return du/dt: 1, as time is the clock."""
        return np.ones(self._inside(t).shape)

    def level(self, lambda_: float) -> Level:
        """Return the level at which `lambda_` is reached: as `t_of_lambda` and `weights`, a tenth as long for one."""
        low, high = self._lambda_range
        if not low <= lambda_ <= high:
            lambda_ = float(self._reached(lambda_))
        log_alpha, log_sigma = -0.5 * _softplus(-2.0 * lambda_), -0.5 * _softplus(2.0 * lambda_)
        falls = self._falls
        if math.isinf(falls[-1]) and -log_alpha > falls[-2]:
            t = self.t_max - math.exp(log_alpha + falls[-2])
        else:
            above = min(max(bisect.bisect_right(falls, -log_alpha), 1), len(falls) - 1)
            below, step = falls[above - 1], falls[above] - falls[above - 1]
            t = above - 1 + ((-log_alpha - below) / step if math.isfinite(step) else 0.0)
        t = min(max(t, self.t_min), self.t_max)
        # a training time is met up to rounding, and is then whole, for networks that take no others
        return Level(float(round(t)) if abs(t - round(t)) < 1e-10 else t, math.exp(log_alpha), math.exp(log_sigma))

    @functools.cached_property
    def _falls(self) -> list[float]:
        return [-value for value in self._log_alpha.tolist()]


def _softplus(value: float) -> float:
    """Return log(1 + e^value)."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def vp_weights(lambda_: ArrayLike) -> tuple[Floats, Floats]:
    """Return (alpha, sigma) with alpha^2 + sigma^2 = 1 and log(alpha / sigma) = `lambda_`."""
    array = np.asarray(lambda_, dtype=np.float64)
    return np.exp(-0.5 * np.logaddexp(0.0, -2.0 * array)), np.exp(-0.5 * np.logaddexp(0.0, 2.0 * array))


def exploding_weights(lambda_: ArrayLike) -> tuple[Floats, Floats]:
    """Return (1, sigma) with -log(sigma) = `lambda_`."""
    sigma = np.exp(-np.asarray(lambda_, dtype=np.float64))
    return np.ones_like(sigma), np.asarray(sigma)


def _table(label: str, values: ArrayLike) -> Floats:
    array: Any = np.asarray(values)
    if array.ndim != 1 or array.size < 2 or array.dtype.kind not in "fiu":
        raise OptionError(
            f"{label} must be a row of at least two numbers", got=f"shape {array.shape}, dtype {array.dtype}"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise OptionError(
            f"{label} holds NaN or infinity", got=f"index {int(np.flatnonzero(~np.isfinite(array))[0])}"
        )
    return np.asarray(array)
