"""Two small networks that read digits: one at any noise level, for guidance, and one clean, to judge samples."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dpmrt.errors import BundleError
from dpmrt.export.reference.digits import IMAGE_SIZE, NUM_DIGITS
from dpmrt.export.reference.records import write_json

_GROUPS = 8


class NoisyDigitClassifier(nn.Module):  # type: ignore[misc]
    """p(y | x_t, t): logits (b, 10) from noisy images (b, 1, 16, 16) and times (b,) in training timesteps.

    Times may be fractional. Every operation is smooth, so that the gradient in x is of use as guidance.
    """

    kind: ClassVar[str] = "noisy-digit-classifier"

    def __init__(self, width: int = 32, time_features: int = 64) -> None:
        super().__init__()
        self.config = {"width": width, "time_features": time_features}
        half = time_features // 2
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.time = nn.Sequential(nn.Linear(time_features, time_features), nn.SiLU())
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.fine = _TimedBlock(width, width, time_features, stride=1)
        self.middle = _TimedBlock(width, 2 * width, time_features, stride=2)
        self.coarse = _TimedBlock(2 * width, 3 * width, time_features, stride=2)
        self.norm = nn.GroupNorm(_GROUPS, 3 * width)
        self.head = nn.Linear(3 * width * (IMAGE_SIZE // 4) ** 2, NUM_DIGITS)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Logits of the ten digits."""
        phase = t.to(x.dtype)[:, None] * self.frequencies
        when = self.time(torch.cat([phase.sin(), phase.cos()], dim=1))
        h = self.coarse(self.middle(self.fine(self.stem(x), when), when), when)
        return self.head(nn.functional.silu(self.norm(h)).flatten(1))


class DigitReader(nn.Module):  # type: ignore[misc]
    """Reads clean digits, and knows nothing of the diffusion model: the judge of samples."""

    kind: ClassVar[str] = "digit-reader"

    def __init__(self, width: int = 24, features: int = 64) -> None:
        super().__init__()
        self.config = {"width": width, "features": features}
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.GroupNorm(_GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GroupNorm(_GROUPS, 2 * width),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.GroupNorm(_GROUPS, 2 * width),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(2 * width * (IMAGE_SIZE // 4) ** 2, features),
            nn.SiLU(),
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(features, NUM_DIGITS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the ten digits."""
        return self.head(self.dropout(self.body(x)))

    def features(self, images: NDArray[np.floating]) -> NDArray[np.float32]:
        """Penultimate features (n, 64) of images (n, 1, 16, 16) in [-1, 1]."""
        parts = torch.as_tensor(np.asarray(images, dtype=np.float32)).split(512)
        with torch.no_grad():
            result: NDArray[np.float32] = torch.cat([self.body(part) for part in parts]).numpy()
        return result

    def read(self, images: NDArray[np.floating]) -> NDArray[np.int64]:
        """The digit (n,) that each image (n, 1, 16, 16) shows."""
        with torch.no_grad():
            logits = self.head(torch.from_numpy(self.features(images)))
        result: NDArray[np.int64] = logits.argmax(dim=1).numpy()
        return result


Network = TypeVar("Network", NoisyDigitClassifier, DigitReader)


def save_network(model: NoisyDigitClassifier | DigitReader, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`."""
    write_json(folder / "config.json", {"kind": model.kind, **model.config})
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors"
    )


def load_classifier(folder: str | Path) -> NoisyDigitClassifier:
    """The noise-aware classifier of a folder, in eval mode; called as `classifier(x, t)`."""
    return _load(NoisyDigitClassifier, Path(folder), "classifier")


def load_reader(folder: str | Path) -> DigitReader:
    """The reader of clean digits of a folder, in eval mode."""
    return _load(DigitReader, Path(folder), "reader")


class _TimedBlock(nn.Module):  # type: ignore[misc]
    """Pre-activation residual block whose first normalisation is shifted and scaled by the time embedding."""

    def __init__(self, inner: int, outer: int, time_features: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, inner)
        self.modulation = nn.Linear(time_features, 2 * inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1)
        self.norm2 = nn.GroupNorm(_GROUPS, outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.skip = nn.Conv2d(inner, outer, 1, stride=stride)

    def forward(self, x: torch.Tensor, when: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulation(when)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(nn.functional.silu(self.norm1(x) * (1 + scale) + shift))
        return self.skip(x) + self.conv2(nn.functional.silu(self.norm2(h)))


def _load(network: type[Network], folder: Path, argument: str) -> Network:
    fix = f"dpmrt train-reference {argument} -o {folder}"
    config = _read_config(folder / "config.json", network.kind, fix)
    try:
        model = network(**config)
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{folder} does not hold a {network.kind}",
            got=str(error),
            expected="a model.safetensors that fits its config.json",
            fix=fix,
        ) from error
    result: Network = model.eval().requires_grad_(False)
    return result


def _read_config(path: Path, kind: str, fix: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"cannot read {path}", got=str(error), expected=f"the configuration of a {kind}", fix=fix
        ) from error
    found = config.pop("kind", None) if isinstance(config, dict) else config
    if found != kind:
        raise BundleError(f"{path} is of another kind", got=found, expected=kind, fix=fix)
    values: dict[str, Any] = config
    return values
