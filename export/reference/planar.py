"""A small network of points in the plane, and the factories and specs by which `dpmrt export` makes it.

Plain torch modules: what is trained here stands for a user's own network, which is exported by a factory and a spec.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

WIDTH, BLOCKS, FEATURES = 64, 2, 32


class PlanarNetwork(nn.Module):  # type: ignore[misc]
    """A perceptron (batch, 2), (batch,) -> (batch, 2), or (batch, 4) with a learned variance behind the noise.

    Told the time, 0 to 999, it answers the noise or whatever else it is trained to. `by_sigma`, it is told sigma,
    scales its input to unit size, and answers a score: noise divided by -sigma.
    """

    def __init__(self, *, by_sigma: bool = False, learned_variance: bool = False) -> None:
        super().__init__()
        self.by_sigma = by_sigma
        frequencies = torch.exp(-math.log(2_000.0) * torch.arange(FEATURES // 2) / (FEATURES // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.time = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.enter = nn.Linear(2, WIDTH)
        self.inner = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(BLOCKS))
        self.outer = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(BLOCKS))
        self.leave = nn.Linear(WIDTH, 4 if learned_variance else 2)
        # the noise of a Gaussian is a multiple of the point: the network learns what is left
        self.multiple = nn.Linear(WIDTH, 1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Answer for points at their times."""
        clock = timestep.to(sample.dtype)[:, None]
        if self.by_sigma:
            # log sigma, from -5 to 5, as a time from 0 to 1000
            x, clock = sample / (1 + clock**2).sqrt(), 500 + 100 * clock.log()
        else:
            x = sample
        phase = clock * self.frequencies
        when = self.time(torch.cat([phase.sin(), phase.cos()], dim=1))
        h = self.enter(x)
        for inner, outer in zip(self.inner, self.outer):
            h = h + outer(nn.functional.silu(inner(nn.functional.silu(h + when))))
        answer = self.leave(nn.functional.silu(h))
        noise = answer[:, :2] + self.multiple(when) * x
        if self.by_sigma:
            return -noise / timestep.to(sample.dtype)[:, None]
        # bounded, the variance keeps to its range at points that no training showed
        return torch.cat([noise, answer[:, 2:].tanh()], dim=1)


def make() -> PlanarNetwork:
    """A network that is told the time."""
    return PlanarNetwork()


def make_by_sigma() -> PlanarNetwork:
    """A network of the score that is told sigma."""
    return PlanarNetwork(by_sigma=True)


def make_learned_variance() -> PlanarNetwork:
    """A network that is told the time and answers a variance behind the noise."""
    return PlanarNetwork(learned_variance=True)


def _spec(channels: int, times: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "inputs": {
            "sample": {"shape": ["batch", 2]},
            "timestep": {"shape": ["batch"], "values": "uniform", **times},
        },
        "output": {"shape": ["batch", channels]},
    }


SPEC = _spec(2, {"low": 0.0, "high": 999.0})
SPEC_BY_SIGMA = _spec(2, {"low": 0.01, "high": 10.0})
SPEC_LEARNED_VARIANCE = _spec(4, {"low": 0.0, "high": 999.0})
