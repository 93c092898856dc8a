"""The hybrid loss of Nichol and Dhariwal 2021: the mean by the simple loss, the variance by the variational bound."""

from __future__ import annotations

import math

import torch

from dpmrt.export.reference.losses import Model, spread

#: the paper's weight of the bound, which is a sum over all times
VLB_WEIGHT = 0.001


def hybrid_loss(
    model: Model,
    x0: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    *,
    bins: int | None = None,
) -> torch.Tensor:
    """L_simple + 0.001 L_vlb of a network that answers eps and, behind it on the channel axis, v.

    The bound's gradient reaches v alone. With whole times drawn evenly, its sum over all of them is their number
    times the mean. `bins`, of data in [-1, 1], is how finely they were rounded; without, they are real numbers.
    """
    alpha, sigma = spread(alphas_cumprod[t].sqrt(), x0), spread((1 - alphas_cumprod[t]).sqrt(), x0)
    x = alpha * x0 + sigma * noise
    eps, v = model(x, t).chunk(2, dim=1)
    simple = torch.nn.functional.mse_loss(eps, noise)
    bound = vlb_terms(eps.detach(), v, x0, x, t, alphas_cumprod, bins=bins).mean()
    return simple + VLB_WEIGHT * len(alphas_cumprod) * bound


def vlb_terms(
    eps: torch.Tensor,
    v: torch.Tensor,
    x0: torch.Tensor,
    x: torch.Tensor,
    t: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    *,
    bins: int | None = None,
) -> torch.Tensor:
    """Return each sample's term of the bound at its time, (batch,), in bits an entry.

    KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)), and at the first time -log p(x0 | x_1).
    """
    before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
    betas = 1 - alphas_cumprod / before
    posterior = betas * (1 - before) / (1 - alphas_cumprod)
    # the first posterior has no variance and no logarithm: the second's stands for it, as in the authors' code
    small = torch.cat([posterior[1:2], posterior[1:]]).log()
    from_x0 = spread((before.sqrt() * betas / (1 - alphas_cumprod))[t], x0)
    from_x = spread(((alphas_cumprod / before).sqrt() * (1 - before) / (1 - alphas_cumprod))[t], x0)
    guess = (x - spread((1 - alphas_cumprod[t]).sqrt(), x0) * eps) / spread(alphas_cumprod[t].sqrt(), x0)
    # eq. 15 of the paper, with v in [-1, 1] in place of [0, 1]
    share = (v + 1) / 2
    log_variance = share * spread(betas.log()[t], x0) + (1 - share) * spread(small[t], x0)
    true, mean = from_x0 * x0 + from_x * x, from_x0 * guess + from_x * x
    divergence = _gaussian_kl(true, spread(small[t], x0), mean, log_variance)
    decoder = -_log_density(x0, mean, log_variance) if bins is None else -_log_bin(x0, mean, log_variance, bins)
    terms = torch.where(spread(t == 0, x0).bool(), decoder, divergence)
    return terms.flatten(1).mean(dim=1) / math.log(2.0)


def _gaussian_kl(
    mean: torch.Tensor, log_variance: torch.Tensor, mean_of: torch.Tensor, log_variance_of: torch.Tensor
) -> torch.Tensor:
    """KL(N(mean, .) || N(mean_of, .)), entry by entry, in nats."""
    spread_out = log_variance - log_variance_of
    return 0.5 * (spread_out.exp() - 1 - spread_out + (mean - mean_of) ** 2 * (-log_variance_of).exp())


def _log_density(x: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    return -0.5 * ((x - mean) ** 2 * (-log_variance).exp() + log_variance + math.log(2 * math.pi))


def _log_bin(x: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor, bins: int) -> torch.Tensor:
    """Log of the probability of the bin that x lies in; the outermost ones reach to infinity, as DDPM has it."""
    half, scale = 1.0 / (bins - 1), (-0.5 * log_variance).exp()
    above = torch.where(x > 1 - half, torch.inf, (x + half - mean) * scale)
    below = torch.where(x < -1 + half, -torch.inf, (x - half - mean) * scale)
    # differences of the tail that is nearer: cdf(b) - cdf(a) = cdf(-a) - cdf(-b)
    flip = below > 0
    low, high = torch.where(flip, -above, below), torch.where(flip, -below, above)
    return (torch.special.ndtr(high) - torch.special.ndtr(low)).clamp(min=1e-12).log()
