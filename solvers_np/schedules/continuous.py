"""Schedules of continuous time: variance preserving, sub-VP, variance exploding, EDM and rectified flow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from dpmrt.errors import OptionError
from dpmrt.solvers_np.levels import Floats, Rates
from dpmrt.solvers_np.options import one_of
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule, exploding_weights, vp_weights


def positive(**numbers: float) -> None:
    """Refuse a number that is not positive and finite."""
    for name, number in numbers.items():
        if not (number > 0 and math.isfinite(number)):
            raise OptionError(f"{name} must be positive", got=number, expected=f"{name} > 0")


def rising(**pair: float) -> None:
    """Refuse two numbers that are not positive, the first below the second."""
    (low, first), (high, second) = pair.items()
    positive(**pair)
    if not first < second:
        raise OptionError(
            f"{low} is not below {high}", got=f"{low}={first:g}, {high}={second:g}", expected=f"{low} < {high}"
        )


class ContinuousVP(NoiseSchedule):
    """Variance preserving. Subclasses give log alpha of u, and its inverse; the network's time is time_scale u."""

    prediction = "epsilon"

    def __init__(self, name: str, u_min: float, u_max: float, time_scale: float) -> None:
        rising(t_min=u_min, t_max=u_max)
        positive(time_scale=time_scale)
        self.name = name
        self.time_scale = time_scale
        self.t_min, self.t_max = u_min * time_scale, u_max * time_scale

    def log_alpha(self, u: Floats) -> Floats:
        """Return log alpha at u."""
        raise NotImplementedError

    def u_of_log_alpha(self, log_alpha: Floats) -> Floats:
        """Return where `log_alpha` is reached."""
        raise NotImplementedError

    def drift(self, u: Floats) -> Floats:
        """Return the slope of log alpha at u."""
        raise NotImplementedError

    def rates(self, t: ArrayLike) -> Rates:
        """Return the VP SDE at time t: diffusion = -2 drift, which is beta."""
        u = self._inside(t) / self.time_scale
        drift = self.drift(u)
        return Rates(u, drift, -2 * drift)

    def pace(self, t: ArrayLike) -> Floats:
        """Return du/dt, the same at every time."""
        return np.full(self._inside(t).shape, 1 / self.time_scale)

    def _log_alpha_at(self, t: ArrayLike) -> Floats:
        return self.log_alpha(self._inside(t) / self.time_scale)

    def alpha(self, t: ArrayLike) -> Floats:
        """Return the weight of the data at time t."""
        return np.asarray(np.exp(self._log_alpha_at(t)))

    def sigma(self, t: ArrayLike) -> Floats:
        """Return the weight of the noise at time t."""
        return np.asarray(np.sqrt(-np.expm1(2 * self._log_alpha_at(t))))

    def t_of_lambda(self, lambda_: ArrayLike) -> Floats:
        """Return the time at which `lambda_` is reached."""
        u = self.u_of_log_alpha(-0.5 * np.logaddexp(0.0, -2.0 * self._reached(lambda_)))
        return np.asarray(np.clip(u * self.time_scale, self.t_min, self.t_max))

    def weights(self, lambda_: ArrayLike) -> tuple[Floats, Floats]:
        """Return (alpha, sigma) where `lambda_` is reached."""
        return vp_weights(lambda_)


class LinearVP(ContinuousVP):
    """The VP SDE whose beta grows linearly over u in [0, 1] (Song et al. 2021, arXiv 2011.13456, eq. 11)."""

    def __init__(self, name: str, beta_min: float, beta_max: float, u_min: float, time_scale: float) -> None:
        positive(beta_min=beta_min, beta_max=beta_max)
        super().__init__(name, u_min, 1.0, time_scale)
        self.beta_min, self.beta_max = beta_min, beta_max

    def log_alpha(self, u: Floats) -> Floats:
        """Return log alpha at u."""
        return np.asarray(-0.25 * u**2 * (self.beta_max - self.beta_min) - 0.5 * u * self.beta_min)

    def u_of_log_alpha(self, log_alpha: Floats) -> Floats:
        """Return where `log_alpha` is reached: the root of a quadratic, in the form that does not cancel."""
        root = np.sqrt(self.beta_min**2 - 4 * (self.beta_max - self.beta_min) * log_alpha)
        return np.asarray(-4 * log_alpha / (self.beta_min + root))

    def drift(self, u: Floats) -> Floats:
        """Return -beta / 2 at u."""
        return np.asarray(-0.5 * (self.beta_min + u * (self.beta_max - self.beta_min)))


class SubVP(LinearVP):
    """The sub-VP SDE: alpha as in the VP SDE, sigma = 1 - alpha^2 (Song et al. 2021, arXiv 2011.13456, eq. 12)."""

    def sigma(self, t: ArrayLike) -> Floats:
        """Return the weight of the noise at time t."""
        return np.asarray(-np.expm1(2 * self._log_alpha_at(t)))

    def rates(self, t: ArrayLike) -> Rates:
        """Return the sub-VP SDE at time t: diffusion = beta (1 - alpha^4)."""
        u, drift, beta = super().rates(t)
        return Rates(u, drift, np.asarray(-beta * np.expm1(4 * self._log_alpha_at(t))))

    def t_of_lambda(self, lambda_: ArrayLike) -> Floats:
        """Return the time at which `lambda_` is reached."""
        u = self.u_of_log_alpha(-np.arcsinh(0.5 * np.exp(-self._reached(lambda_))))
        return np.asarray(np.clip(u * self.time_scale, self.t_min, self.t_max))

    def weights(self, lambda_: ArrayLike) -> tuple[Floats, Floats]:
        """Return (alpha, sigma) where `lambda_` is reached: the positive root of 1 - alpha^2 = alpha / e^lambda."""
        log_alpha = -np.arcsinh(0.5 * np.exp(-np.asarray(lambda_, dtype=np.float64)))
        return np.exp(log_alpha), -np.expm1(2 * log_alpha)


class CosineVP(ContinuousVP):
    """The cosine schedule over u (Nichol and Dhariwal 2021, eq. 17).

    It ends at t_max, not at 1: there alpha is 0 and lambda infinite, so that no x0 could be had from eps, and the
    last of the way there is steep. DPM-Solver's code stops at 0.9946.
    """

    def __init__(self, s: float, u_min: float, u_max: float, time_scale: float) -> None:
        positive(s=s)
        if not u_max < 1:
            raise OptionError("t_max must be below 1, where no signal is left", got=u_max, expected="t_max < 1")
        super().__init__("vp-cosine", u_min, u_max, time_scale)
        self.s = s
        self._first = math.log(math.cos(s / (1 + s) * math.pi / 2))

    def log_alpha(self, u: Floats) -> Floats:
        """Return log alpha at u."""
        return np.asarray(np.log(np.cos((u + self.s) / (1 + self.s) * (math.pi / 2))) - self._first)

    def u_of_log_alpha(self, log_alpha: Floats) -> Floats:
        """Return where `log_alpha` is reached."""
        return np.asarray(np.arccos(np.exp(log_alpha + self._first)) * (2 * (1 + self.s) / math.pi) - self.s)

    def drift(self, u: Floats) -> Floats:
        """Return the slope of log alpha at u."""
        by = math.pi / (2 * (1 + self.s))
        return np.asarray(-by * np.tan((u + self.s) * by))


class VarianceExploding(NoiseSchedule):
    """The VE SDE: alpha = 1, sigma geometric over u in [0, 1] (Song et al. 2021, arXiv 2011.13456, eq. 9).

    The network's time is u, or, as for the networks of score_sde, sigma itself.
    """

    name = "ve"
    prediction = "score"

    def __init__(self, sigma_min: float, sigma_max: float, network_time: str) -> None:
        rising(sigma_min=sigma_min, sigma_max=sigma_max)
        one_of("network_time", network_time, ("t", "sigma"))
        self.by_sigma = network_time == "sigma"
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.t_min, self.t_max = (sigma_min, sigma_max) if self.by_sigma else (0.0, 1.0)

    def alpha(self, t: ArrayLike) -> Floats:
        """Return the weight of the data, 1 at every time."""
        return np.ones(self._inside(t).shape)

    def sigma(self, t: ArrayLike) -> Floats:
        """Return the weight of the noise at time t."""
        times = self._inside(t)
        return times if self.by_sigma else np.asarray(self.sigma_min * (self.sigma_max / self.sigma_min) ** times)

    def t_of_lambda(self, lambda_: ArrayLike) -> Floats:
        """Return the time at which `lambda_` is reached."""
        log_sigma = -self._reached(lambda_)
        u = (log_sigma - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)
        return np.asarray(np.clip(np.exp(log_sigma) if self.by_sigma else u, self.t_min, self.t_max))

    def weights(self, lambda_: ArrayLike) -> tuple[Floats, Floats]:
        """Return (1, sigma) where `lambda_` is reached."""
        return exploding_weights(lambda_)

    def rates(self, t: ArrayLike) -> Rates:
        """Return the VE SDE at time t: diffusion = 2 log(sigma_max / sigma_min) sigma^2 in u, whatever time is."""
        sigma, span = self.sigma(t), math.log(self.sigma_max / self.sigma_min)
        u = np.asarray(np.log(sigma / self.sigma_min) / span)
        return Rates(u, np.zeros_like(u), 2 * span * sigma**2)

    def pace(self, t: ArrayLike) -> Floats:
        """Return du/dt: 1, or the slope of the logarithm where time is sigma."""
        times = self._inside(t)
        span = math.log(self.sigma_max / self.sigma_min)
        return np.asarray(1 / (times * span)) if self.by_sigma else np.ones(times.shape)

    def spaced(self, start: float, end: float, count: int) -> Floats:
        """Return `count` times from start to end, evenly spaced in u."""
        return np.geomspace(start, end, count) if self.by_sigma else np.linspace(start, end, count)


class EDM(NoiseSchedule):
    """The setting of EDM: alpha = 1, the network's time is log(sigma) / 4 (Karras et al. 2022, table 1)."""

    name = "edm"
    prediction = "edm"

    def __init__(self, sigma_min: float, sigma_max: float, sigma_data: float) -> None:
        rising(sigma_min=sigma_min, sigma_max=sigma_max)
        positive(sigma_data=sigma_data)
        self.sigma_data = sigma_data
        self.t_min, self.t_max = math.log(sigma_min) / 4, math.log(sigma_max) / 4

    def alpha(self, t: ArrayLike) -> Floats:
        """Return the weight of the data, 1 at every time."""
        return np.ones(self._inside(t).shape)

    def sigma(self, t: ArrayLike) -> Floats:
        """Return the weight of the noise at time t."""
        return np.asarray(np.exp(4 * self._inside(t)))

    def t_of_lambda(self, lambda_: ArrayLike) -> Floats:
        """Return the time at which `lambda_` is reached."""
        return np.asarray(np.clip(-self._reached(lambda_) / 4, self.t_min, self.t_max))

    def rates(self, t: ArrayLike) -> Rates:
        """Return the SDE of EDM, whose clock is sigma: diffusion = 2 sigma."""
        sigma = self.sigma(t)
        return Rates(sigma, np.zeros_like(sigma), 2 * sigma)

    def pace(self, t: ArrayLike) -> Floats:
        """Return d sigma / dt."""
        return 4 * self.sigma(t)

    def in_scale(self, t: ArrayLike) -> Floats:
        """Return c_in, which gives the network a state of variance 1."""
        return np.asarray(1 / np.hypot(self.sigma(t), self.sigma_data))

    def weights(self, lambda_: ArrayLike) -> tuple[Floats, Floats]:
        """Return (1, sigma) where `lambda_` is reached."""
        return exploding_weights(lambda_)
