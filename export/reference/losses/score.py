"""Score matching in continuous time, Song et al. 2021 (arXiv 2011.13456), weighted as the likelihood or not."""

from __future__ import annotations

import torch

from dpmrt.export.reference.losses import Model, spread
from dpmrt.export.reference.sdes import SDE


def score_loss(
    score: Model,
    x0: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    sde: SDE,
    *,
    likelihood_weighting: bool = False,
    density: torch.Tensor | None = None,
) -> torch.Tensor:
    """Squared error against the score of the noise at times `t` (batch,) of the SDE, by a weight of the time.

    The weight is sigma^2, or with `likelihood_weighting` g^2, which makes the loss a bound on the log-likelihood
    (Song, Durkan, Murray and Ermon 2021). It is divided by the `density` from which the times were drawn; 1 where
    they are even.

    >>> from dpmrt.export.reference.sdes import vp_sde
    >>> x0, noise, t = torch.zeros(4, 2), torch.ones(4, 2), torch.linspace(0.1, 1, 4)
    >>> float(score_loss(lambda x, t: 0 * x, x0, t, noise, vp_sde()))
    1.0
    """
    alpha, sigma = (spread(values, x0) for values in sde.marginal(t))
    missed = score(alpha * x0 + sigma * noise, t.to(x0.dtype)) + noise / sigma
    weight = sde.g2(t) if likelihood_weighting else sde.marginal(t)[1] ** 2
    return (spread(weight if density is None else weight / density, x0) * missed**2).mean()


def score_of_epsilon(model: Model, sde: SDE, time_scale: float) -> Model:
    """Return the score that a network of the noise stands for, -eps / sigma; it is told time_scale times t."""

    def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return -model(x, time_scale * t) / spread(sde.marginal(t)[1], x)

    return score


def score_by_sigma(model: Model, sde: SDE) -> Model:
    """Return the score of a network of the score that is told sigma in place of t."""
    return lambda x, t: model(x, sde.marginal(t)[1].to(x.dtype))
