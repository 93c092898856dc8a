"""Gaussian data, whose scores are affine, and a short schedule, in float64."""

from __future__ import annotations

import torch

BETAS = torch.linspace(1e-3, 0.1, 50, dtype=torch.float64)
BARS = (1 - BETAS).cumprod(0)
MEAN, SPREAD = torch.tensor([0.7, -0.4], dtype=torch.float64), torch.tensor([0.5, 1.2], dtype=torch.float64)


def draw(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian data of known mean and spread, and noise."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(2, count, 2, generator=generator, dtype=torch.float64)
    return MEAN + SPREAD * normal[0], normal[1]


def exact_score(x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """The score of alpha x0 + sigma z for the Gaussian data."""
    return -(x - alpha * MEAN) / (alpha**2 * SPREAD**2 + sigma**2)
