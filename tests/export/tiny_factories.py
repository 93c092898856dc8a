"""Factories of networks that are not diffusers', and what goes wrong with some."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

FEATURES, WIDTH, POOLED = 3, 8, 5

SPEC: dict[str, Any] = {
    "inputs": {
        "sample": {"shape": ["batch", FEATURES, "length"], "argument": "x"},
        "timestep": {"shape": ["batch"], "argument": "when"},
        "pooled": {"shape": ["batch", POOLED], "argument": "extras.text.pooled", "guided": True},
    },
    "output": {"shape": ["batch", FEATURES, "length"], "pick": ["result", 0]},
    "axes": {"length": {"size": 16, "multiple": 2}},
    "arguments": {"halved": True},
}
NOT_A_SPEC = 3


class Result:
    """What this network returns its output in."""

    def __init__(self, result: tuple[Tensor]) -> None:
        self.result = result


class Sequences(nn.Module):  # type: ignore[misc]
    """A denoiser of sequences, (batch, features, length)."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.enter = nn.Conv1d(FEATURES, WIDTH, 3, padding=1, dtype=dtype)
        self.time = nn.Linear(2, WIDTH, dtype=dtype)
        self.text = nn.Linear(POOLED, WIDTH, dtype=dtype)
        self.leave = nn.Conv1d(WIDTH, FEATURES, 3, padding=1, dtype=dtype)

    def forward(self, x: Tensor, when: Tensor, *, extras: dict[str, Any], halved: bool = False) -> Result:
        """Predict the noise in `x`."""
        angle = when / 100
        time = self.time(torch.stack([angle.sin(), angle.cos()], dim=-1))
        hidden = self.enter(x) + (time + self.text(extras["text"]["pooled"]))[..., None]
        if halved:
            hidden = nn.functional.avg_pool1d(hidden, 2).repeat_interleave(2, dim=-1)
        return Result((self.leave(nn.functional.silu(hidden)),))


def make() -> nn.Module:
    torch.manual_seed(0)
    return Sequences()


def make_half() -> nn.Module:
    torch.manual_seed(0)
    return Sequences(torch.float16)


def make_nothing() -> str:
    return "a network"


def make_trouble() -> nn.Module:
    raise OSError("the licence server is down")
