"""Denoising score matching at discrete noise levels (SMLD), Song and Ermon 2019."""

from __future__ import annotations

import torch

from dpmrt.export.reference.losses import Model, spread


def smld_loss(
    score: Model, x0: torch.Tensor, level: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor
) -> torch.Tensor:
    """Squared error against the score of the noise, -noise / sigma, weighted by sigma^2 as the paper chooses.

    `level` (batch,) are places in `sigmas`. The model is told sigma, as diffusers' ScoreSdeVe tells it.

    >>> x0, noise, sigmas = torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.5, 2.0])
    >>> float(smld_loss(lambda x, sigma: -x / sigma[:, None] ** 2, x0, torch.tensor([1]), noise, sigmas))
    0.0
    """
    told = sigmas[level].to(x0.dtype)
    sigma = spread(told, x0)
    predicted = score(x0 + sigma * noise, told)
    return (sigma**2 * (predicted + noise / sigma) ** 2).mean()
