"""The simple loss of DDPM, Ho, Jain and Abbeel 2020: what was mixed into the data is to be named."""

from __future__ import annotations

import torch

from dpmrt.errors import OptionError
from dpmrt.export.reference.losses import Model, spread


def denoising_loss(
    model: Model,
    x0: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    target: str = "epsilon",
) -> torch.Tensor:
    """Squared error of the model at whole training times `t` (batch,), against eps, x0 or v = alpha eps - sigma x0.

    >>> x0, noise, t = torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([0, 1])
    >>> float(denoising_loss(lambda x, t: x, x0, t, noise, torch.tensor([1.0, 0.25])))
    0.625
    """
    alpha, sigma = spread(alphas_cumprod[t].sqrt(), x0), spread((1 - alphas_cumprod[t]).sqrt(), x0)
    targets = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x0, "sample": x0}
    if target not in targets:
        raise OptionError("unknown target of denoising", got=target, expected=", ".join(targets))
    return torch.nn.functional.mse_loss(model(alpha * x0 + sigma * noise, t), targets[target])
