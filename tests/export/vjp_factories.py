"""Small networks whose products are exported: with a learned variance, with channels that are a condition."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SIDE = 4


def spec(taken: int, given: int) -> dict[str, Any]:
    """Return the spec of a network of so many channels."""
    return {
        "inputs": {
            "sample": {"shape": ["batch", taken, SIDE, SIDE], "argument": "x"},
            "timestep": {"shape": ["batch"], "argument": "t"},
        },
        "output": {"shape": ["batch", given, SIDE, SIDE]},
    }


class Small(nn.Module):  # type: ignore[misc]
    """Two convolutions, and the time between them."""

    def __init__(self, taken: int, given: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(taken, 6, 3, padding=1), nn.Conv2d(6, given, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the prediction."""
        return self.leave(torch.tanh(self.enter(x) + torch.cos(t / 300).view(-1, 1, 1, 1)))


class Sampled(Small):
    """A network with an operator whose gradient ONNX has not."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the prediction at places that lie where the pixels are."""
        grid = nn.functional.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)
        return super().forward(nn.functional.grid_sample(x, grid, align_corners=False), t)


def _seeded(make: Any) -> nn.Module:
    torch.manual_seed(1)
    return make()


def plain() -> nn.Module:
    return _seeded(lambda: Small(2, 2))


def variance() -> nn.Module:
    return _seeded(lambda: Small(2, 4))


def painted() -> nn.Module:
    return _seeded(lambda: Small(5, 2))


def sampled() -> nn.Module:
    return _seeded(lambda: Sampled(2, 2))


PLAIN_SPEC = spec(2, 2)
