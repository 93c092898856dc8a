"""The hybrid loss: the bound by independent formulas, its exact minimiser, and what has no gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch
from gaussian_data import BARS, BETAS, SPREAD, draw, exact_score
from scipy.special import ndtr

from dpmrt.export.reference.losses.learned_range import VLB_WEIGHT, hybrid_loss, vlb_terms


def posterior_of(index: int) -> tuple[float, float, float, float]:
    """Weights of (x0, x_t) in the mean of q(x_{t-1} | x_t, x0), its variance, and beta, by Bayes' rule."""
    before, beta = float(BARS[index - 1]), float(BETAS[index])
    precision = (1 - beta) / beta + 1 / (1 - before)
    return (
        math.sqrt(before) / (1 - before) / precision,
        math.sqrt(1 - beta) / beta / precision,
        1 / precision,
        beta,
    )


def test_the_bound_of_fixed_inputs() -> None:
    x0, noise = draw(3)
    index, v, eps = 20, torch.tensor([[0.4, -0.9]] * 3).double(), 0.5 * noise
    x = BARS[index].sqrt() * x0 + (1 - BARS[index]).sqrt() * noise
    a, b, variance, beta = posterior_of(index)
    guess = (x - (1 - BARS[index]).sqrt() * eps) / BARS[index].sqrt()
    share = (v + 1) / 2
    ours = torch.distributions.Normal(a * guess + b * x, (beta**share * variance ** (1 - share)).sqrt())
    true = torch.distributions.Normal(a * x0 + b * x, torch.full_like(x, variance).sqrt())
    want = torch.distributions.kl_divergence(true, ours).mean(1) / math.log(2)
    found = vlb_terms(eps, v, x0, x, torch.full((3,), index), BARS)
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("bins", [None, 256])
def test_the_bound_at_the_first_time_is_the_likelihood_of_the_data(bins: int | None) -> None:
    x0 = torch.tensor([[-1.0, 0.2], [1.0, 0.9]]).double()
    noise, v = torch.tensor([[0.3, -0.2], [1.0, 2.0]]).double(), torch.zeros(2, 2).double()
    x = BARS[0].sqrt() * x0 + (1 - BARS[0]).sqrt() * noise
    # the mean is the guessed x0 alone; the variance lies half way, in logarithms, from the second's to beta
    mean = ((x - (1 - BARS[0]).sqrt() * 0.9 * noise) / BARS[0].sqrt()).numpy()
    deviation = math.sqrt(math.sqrt(posterior_of(1)[2] * float(BETAS[0])))
    data = x0.numpy()
    if bins is None:
        want = ((data - mean) ** 2 / (2 * deviation**2) + np.log(deviation * math.sqrt(2 * math.pi))).mean(1)
    else:
        above = np.where(data > 0.999, 1.0, ndtr((data + 1 / 255 - mean) / deviation))
        below = np.where(data < -0.999, 0.0, ndtr((data - 1 / 255 - mean) / deviation))
        want = -np.log(above - below).mean(1)
    found = vlb_terms(0.9 * noise, v, x0, x, torch.zeros(2, dtype=torch.long), BARS, bins=bins)
    np.testing.assert_allclose(found.numpy() * math.log(2), want, rtol=1e-9)


def test_the_bound_of_rounded_data_is_finite_with_its_gradient_in_the_tails() -> None:
    x0, v = torch.tensor([[-1.0, 1.0, 0.0]]).double(), torch.zeros(1, 3).double().requires_grad_()
    x = x0.flip(1) + 5
    terms = vlb_terms(torch.zeros(1, 3).double(), v, x0, x, torch.tensor([0]), BARS, bins=256)
    terms.sum().backward()
    assert torch.isfinite(terms).all()
    assert torch.isfinite(v.grad).all()


def test_the_hybrid_is_the_simple_loss_and_a_thousandth_of_the_bound() -> None:
    x0, noise = draw(5)
    t = torch.tensor([0, 1, 7, 30, 49])
    raw = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = BARS[t, None].sqrt() * x0 + (1 - BARS[t, None]).sqrt() * noise
    bound = vlb_terms(raw[:, :2], raw[:, 2:], x0, x, t, BARS).mean()
    want = ((raw[:, :2] - noise) ** 2).mean() + VLB_WEIGHT * len(BARS) * bound
    assert float(hybrid_loss(lambda x, t: raw, x0, t, noise, BARS)) == pytest.approx(float(want), rel=1e-12)
    assert VLB_WEIGHT == 0.001


def test_the_bound_has_no_gradient_in_the_mean() -> None:
    x0, noise = draw(8)
    t = torch.arange(8) * 6
    eps, v = (torch.full((8, 2), value, dtype=torch.float64, requires_grad=True) for value in (0.3, 0.1))
    hybrid_loss(lambda x, t: torch.cat([eps, v], dim=1), x0, t, noise, BARS).backward()
    torch.testing.assert_close(eps.grad, 2 * (eps.detach() - noise) / 16)
    assert (v.grad != 0).all()


def test_the_bound_is_minimised_by_the_exact_reverse_variance() -> None:
    """For Gaussian data p(x_{t-1} | x_t) is Gaussian: its variance is that of q, and what x0 adds."""
    x0, noise = draw(100_000)
    index = 35
    alpha, sigma = float(BARS[index].sqrt()), float((1 - BARS[index]).sqrt())
    x = alpha * x0 + sigma * noise
    a, _, small, beta = posterior_of(index)
    eps = -sigma * exact_score(x, alpha, sigma)
    of_x0 = 1 / (1 / SPREAD**2 + alpha**2 / sigma**2)
    exact = small + a**2 * of_x0
    share = (exact.log() - math.log(small)) / (math.log(beta) - math.log(small))
    v = (2 * share - 1).requires_grad_()
    t = torch.full((len(x0),), index)
    losses = [
        float(vlb_terms(eps, (v + move).expand(len(x0), 2), x0, x, t, BARS).mean().detach())
        for move in (-0.2, 0, 0.2)
    ]
    assert losses[1] < min(losses[0], losses[2])
    here, high = (
        torch.autograd.grad(vlb_terms(eps, at.expand(len(x0), 2), x0, x, t, BARS).mean(), at)[0]
        for at in (v, (v.detach() + 0.2).requires_grad_())
    )
    assert (here.abs() < 0.1 * high.abs()).all()
