"""The forward SDEs of score-based models over t in (0, 1], for training in torch: the schedules of solvers_np."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dpmrt.solvers_np import NoiseSchedule, make_schedule

#: a schedule refuses times below its first; what is drawn for training begins later
_FIRST = 1e-6


@dataclass(frozen=True)
class SDE:
    """A forward SDE dx = f x dt + g dw over t in [0, 1], by its schedule: x_t = alpha x0 + sigma z."""

    schedule: NoiseSchedule

    def marginal(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return alpha and sigma at the times t, in float64."""
        times = t.double().numpy()
        return torch.from_numpy(self.schedule.alpha(times)), torch.from_numpy(self.schedule.sigma(times))

    def g2(self, t: torch.Tensor) -> torch.Tensor:
        """Return g(t)^2, in float64."""
        return torch.from_numpy(self.schedule.rates(t.double().numpy()).diffusion)

    def times_by_lambda(self, u: torch.Tensor, first: float) -> torch.Tensor:
        """Return times from `first` to 1 that are even in log(alpha / sigma) for even `u`.

        As g^2 / sigma^2 = -2 d lambda / dt, these are the times at which the likelihood's weight is to the usual one
        as the times' density is to 1: the importance sampling of Song, Durkan, Murray and Ermon 2021.
        """
        low, high = self._lambdas(first)
        return torch.from_numpy(self.schedule.t_of_lambda(high + (low - high) * u.double().numpy()))

    def density_by_lambda(self, t: torch.Tensor, first: float) -> torch.Tensor:
        """Return the density at t of the times that `times_by_lambda` gives for even numbers."""
        low, high = self._lambdas(first)
        return self.g2(t) / (2 * self.marginal(t)[1] ** 2 * (high - low))

    def _lambdas(self, first: float) -> tuple[float, float]:
        return float(self.schedule.lambda_(1.0)), float(self.schedule.lambda_(first))


def ve_sde(sigma_min: float = 0.01, sigma_max: float = 50.0) -> SDE:
    """Variance exploding: f = 0, and the variance grows by a constant factor a time.

    >>> [round(float(v), 3) for v in ve_sde(0.01, 50.0).marginal(torch.tensor([1.0]))]
    [1.0, 50.0]
    """
    return SDE(make_schedule("ve", sigma_min=sigma_min, sigma_max=sigma_max))


def vp_sde(beta_min: float = 0.1, beta_max: float = 20.0) -> SDE:
    """Variance preserving: f = -beta / 2, g^2 = beta, with beta linear in t.

    >>> round(float(vp_sde(0.1, 20.0).g2(torch.tensor([1.0]))), 6)
    20.0
    """
    return SDE(make_schedule("vp-linear", beta_min=beta_min, beta_max=beta_max, t_min=_FIRST))


def sub_vp_sde(beta_min: float = 0.1, beta_max: float = 20.0) -> SDE:
    """Sub-VP: f as for VP, g^2 = beta (1 - alpha^4), so that sigma is 1 - alpha^2.

    >>> bool(sub_vp_sde().g2(torch.tensor([0.1])) < vp_sde().g2(torch.tensor([0.1])))
    True
    """
    return SDE(make_schedule("sub-vp", beta_min=beta_min, beta_max=beta_max, t_min=_FIRST))
