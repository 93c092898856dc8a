"""The loops of guided sampling in torch float64, written from the papers for the network of tiny_bundles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tiny_bundles import KERNEL, NULL, TABLE
from torch.nn import functional as F

Tensor = torch.Tensor
#: eps(x, t, call) of the guided network
Guided = Callable[[Tensor, float, int], Tensor]

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ALPHA_BAR = torch.cumprod(1 - BETAS, 0)


def network(x: Tensor, t: float, labels: Sequence[int] | None) -> Tensor:
    """Return what the tiny network answers; labels of None are the null label."""
    given = [NULL] * len(x) if labels is None else list(labels)
    out = F.conv2d(x, torch.tensor(KERNEL, dtype=torch.float64).reshape(1, 1, 3, 3), padding=1)
    return out + t * 0.0005 + torch.tensor(TABLE, dtype=torch.float64)[given].reshape(-1, 1, 1, 1)


def times(steps: int) -> list[int]:
    """Return the times of spacing "leading", Song et al. 2021 with diffusers' rounding."""
    return [k * (1000 // steps) for k in reversed(range(steps))]


def ddim(x: Any, eps_of: Guided, steps: int) -> Any:
    """Return DDIM's samples, Song et al. 2021, eq. 12 without noise; the last step ends at no noise."""
    x, plan = torch.as_tensor(np.asarray(x), dtype=torch.float64), times(steps)
    for k, t in enumerate(plan):
        a = ALPHA_BAR[t]
        b = ALPHA_BAR[plan[k + 1]] if k + 1 < steps else torch.tensor(1.0, dtype=torch.float64)
        eps = eps_of(x, float(t), k)
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        x = b.sqrt() * x0 + (1 - b).sqrt() * eps
    return x.detach().numpy()


def classifier_free(labels: Sequence[int], scale: Callable[[int, float], Any], rescale: float = 0.0) -> Guided:
    """Return Ho and Salimans' guidance with a scale for each call, and Lin et al.'s rescale (section 3.4)."""

    def eps_of(x: Tensor, t: float, call: int) -> Tensor:
        positive, negative = network(x, t, labels), network(x, t, None)
        w = torch.as_tensor(np.broadcast_to(scale(call, t), len(x)).copy(), dtype=torch.float64)
        guided = negative + w.reshape(-1, 1, 1, 1) * (positive - negative)
        std_positive = positive.std(dim=[1, 2, 3], keepdim=True)
        std_guided = guided.std(dim=[1, 2, 3], keepdim=True)
        rescaled = guided * (std_positive / std_guided)
        return rescale * rescaled + (1 - rescale) * guided

    return eps_of
