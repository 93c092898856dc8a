"""Classifiers of a few hundred weights, each with an operator whose gradient must be exportable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn import functional as F

from dpmrt.export.classifier import ClassifierSource

CLASSES = 5


class Timed(nn.Module):
    """`body` on x shifted by the time, then one logit for each class."""

    def __init__(self, body: Any, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.body = body
        self.shift = nn.Linear(2, shape[0])
        with torch.no_grad():
            features = body.eval()(torch.zeros(1, *shape)).flatten(1).shape[1]
        self.head = nn.Linear(features, CLASSES)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        phase = t[:, None] / 1000
        shift = self.shift(torch.cat([phase.sin(), phase.cos()], dim=1))
        return self.head(self.body(x + shift.view(*shift.shape, *[1] * (x.ndim - 2))).flatten(1))


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Attention(nn.Module):
    """Self-attention over the pixels, by torch's function or spelt out."""

    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.fused = fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, dim=-1)
        if self.fused:
            return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
        return torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1) @ v


class Encoder(nn.Module):
    """The downward half of a diffusers UNet and a pool, as large noise-aware classifiers are made."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DModel(
            sample_size=16,
            in_channels=3,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        when = self.unet.time_embedding(self.unet.time_proj(t))
        h = self.unet.conv_in(x)
        for block in self.unet.down_blocks:
            h, _ = block(h, when)
        return self.head(self.unet.mid_block(h, when).mean((2, 3)))


class MultiHead(nn.Module):
    """nn.MultiheadAttention, which has a path of its own for inference."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


def _lively_batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


IMAGE, LINE, VOLUME = (4, 9, 10), (4, 13), (2, 5, 6, 7)

BODIES: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "convolution, stride 2": (IMAGE, lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1)),
    "convolution, everything": (
        IMAGE,
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(3, 2), padding=(2, 1), dilation=(2, 3), groups=2),
    ),
    "convolution, 1-D": (LINE, lambda: nn.Conv1d(4, 6, 4, stride=3, padding=2)),
    "convolution, 3-D": (VOLUME, lambda: nn.Conv3d(2, 4, 3, stride=2, padding=1, groups=2)),
    "convolution, depthwise": (IMAGE, lambda: nn.Conv2d(4, 4, 3, padding="same", groups=4)),
    "transposed convolution": (IMAGE, lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)),
    "group norm and SiLU": (IMAGE, lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU())),
    "GELU": (IMAGE, lambda: nn.GELU()),
    "GELU, tanh": (IMAGE, lambda: nn.GELU("tanh")),
    "ReLU and leaky ReLU": (IMAGE, lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.LeakyReLU(), nn.ReLU(inplace=True))),
    "Mish, ELU, hardswish": (IMAGE, lambda: nn.Sequential(nn.Mish(), nn.ELU(), nn.Hardswish())),
    "layer norm": (IMAGE, lambda: nn.LayerNorm(IMAGE)),
    "batch norm": (IMAGE, _lively_batch_norm),
    "attention, fused": (IMAGE, lambda: Attention(4, fused=True)),
    "attention, softmax": (IMAGE, lambda: Attention(4, fused=False)),
    "attention, multi-head": (IMAGE, lambda: MultiHead(4)),
    "average pool": (IMAGE, lambda: nn.AvgPool2d(2)),
    "average pool, padded": (
        IMAGE,
        lambda: nn.AvgPool2d((3, 2), stride=2, padding=1, ceil_mode=True, count_include_pad=False),
    ),
    "average pool, 1-D": (LINE, lambda: nn.AvgPool1d(3, stride=2)),
    "average pool, 3-D": (VOLUME, lambda: nn.AvgPool3d(2)),
    "adaptive average pool, to one": (IMAGE, lambda: nn.AdaptiveAvgPool2d(1)),
    "adaptive average pool": (IMAGE, lambda: nn.AdaptiveAvgPool2d((4, 5))),
    "max pool": (IMAGE, lambda: nn.MaxPool2d(3, stride=2, padding=1)),
    "nearest": (IMAGE, lambda: nn.Upsample(scale_factor=2)),
    "nearest, to a size": (IMAGE, lambda: nn.Upsample(size=(5, 17))),
    "nearest, 1-D": (LINE, lambda: nn.Upsample(scale_factor=2)),
    "nearest-exact": (IMAGE, lambda: nn.Upsample(size=(5, 17), mode="nearest-exact")),
    "max pool, 3-D": (VOLUME, lambda: nn.MaxPool3d(2)),
    "bilinear": (IMAGE, lambda: nn.Upsample(size=(5, 17), mode="bilinear")),
    "bilinear, aligned": (IMAGE, lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
    "reflection": (IMAGE, lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect")),
    "pixel shuffle": (IMAGE, lambda: nn.PixelShuffle(2)),
    "mean and amax": (IMAGE, lambda: Call(lambda x: torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1))),
}


def source_of(classifier: nn.Module, shape: tuple[int, ...] = IMAGE, classes: int = CLASSES) -> ClassifierSource:
    return ClassifierSource(classifier.eval().requires_grad_(False), shape, classes, "0" * 64, "tests:classifier")


def timed(name: str) -> ClassifierSource:
    shape, body = BODIES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # A square after the body, so that linear maps too are followed by something that depends on their output.
        return source_of(Timed(nn.Sequential(body(), Call(lambda x: x + x * x)), shape), shape)


def judge() -> nn.Module:
    """The factory of a classifier, the same whenever it is called."""
    torch.manual_seed(2)
    return Timed(nn.Conv2d(2, 3, 3), (2, 4, 4))
