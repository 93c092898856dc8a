"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with lambda(t) = log(alpha(t) / sigma(t))."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpmrt.errors import OptionError

Floats = NDArray[np.float64]


class NoiseSchedule:
    """What every schedule offers. Times are the ones that the network was trained with.

    Subclasses give `alpha`, `sigma` and `t_of_lambda`; `t_min` and `t_max` bound the times they know.
    """

    t_min: float
    t_max: float
    name: str = "custom"

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
    (Lu et al. 2022, arXiv 2206.00927).
    """

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

    def _check(self, t: ArrayLike) -> Floats:
        times = np.asarray(t, dtype=np.float64)
        if not ((times >= self.t_min) & (times <= self.t_max)).all():
            raise OptionError("a time is outside the schedule", got=t, expected=f"{self.t_min:g} to {self.t_max:g}")
        return times

    def _alphas_cumprod(self, t: ArrayLike) -> Floats:
        times = self._check(t)
        low = np.minimum(times.astype(np.int64), self.train_steps - 2)
        weight = times - low
        inner = (weight > 0) & (weight < 1)
        safe = np.where(inner, weight, 0.5)
        between = np.exp(2 * ((1 - safe) * self._log_alpha[low] + safe * self._log_alpha[low + 1]))
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
        target = -0.5 * np.logaddexp(0.0, -2.0 * np.asarray(lambda_, dtype=np.float64))
        first, last = self._log_alpha[0], self._log_alpha[-1]
        slack = 1e-12 * (1 + abs(first))
        if not ((target <= first + slack) & (target >= last - 1e-9 * abs(last))).all():
            raise OptionError(
                "a lambda is outside the schedule",
                got=lambda_,
                expected=f"{float(self.lambda_(self.t_max)):.4f} to {float(self.lambda_(self.t_min)):.4f}",
            )
        return np.asarray(np.interp(-target, -self._log_alpha, np.arange(self.train_steps, dtype=np.float64)))


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
