"""The loss of a classifier that reads noisy data, for guidance (Dhariwal and Nichol 2021)."""

from __future__ import annotations

import torch

from dpmrt.export.reference.losses import Model, spread


def noisy_cross_entropy(
    classifier: Model,
    x0: torch.Tensor,
    labels: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    alphas_cumprod: torch.Tensor,
) -> torch.Tensor:
    """Cross entropy of the logits for data noised to whole training times `t` (batch,).

    >>> x0, t, labels = torch.ones(1, 2), torch.tensor([0]), torch.tensor([1])
    >>> round(float(noisy_cross_entropy(lambda x, t: x, x0, labels, t, 0 * x0, torch.tensor([1.0]))), 4)
    0.6931
    """
    alpha, sigma = spread(alphas_cumprod[t].sqrt(), x0), spread((1 - alphas_cumprod[t]).sqrt(), x0)
    return torch.nn.functional.cross_entropy(classifier(alpha * x0 + sigma * noise, t.float()), labels)
