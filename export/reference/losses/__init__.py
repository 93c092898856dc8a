"""The losses that the samplers presuppose: pure functions of a network, data, times and noise, one file a kind.

A network is called as network(x, t), with one time a sample, and answers a tensor. Every loss is a mean over the
batch and over the entries of a sample, where papers often sum over the latter or halve: it changes no minimiser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

Model: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def spread(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return one value a sample, (batch,), shaped to multiply `like`, (batch, ...)."""
    return values.to(like.dtype).reshape(-1, *([1] * (like.ndim - 1)))
