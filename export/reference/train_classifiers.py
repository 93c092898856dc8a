"""Training of the noise-aware classifier and of the reader of clean digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dpmrt.export.folders import new_folder
from dpmrt.export.reference import unet
from dpmrt.export.reference.classifiers import DigitReader, NoisyDigitClassifier, save_network
from dpmrt.export.reference.digits import Digits, split_digits
from dpmrt.export.reference.loop import Progress, TrainOptions, fit
from dpmrt.export.reference.losses.noisy_classifier import noisy_cross_entropy
from dpmrt.export.reference.records import DIGITS, TRAINING_NAME, training_files, write_training

HELD_OUT = 0.2
ACCURACY_TIMES = (0, 100, 200, 300, 400, 500, 600, 800, 999)


def train_classifier(
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train p(y | x_t, t) on the reference schedule; `training.json` holds its held-out accuracy by time."""
    options = options or TrainOptions(minutes=4.0, threads=1)
    train, held = split_digits(HELD_OUT)
    with new_folder(Path(out), marker=TRAINING_NAME, written=training_files, force=force) as folder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model = NoisyDigitClassifier()
            fitted = fit(model, _noisy_loss(model, train, options.batch), options, on_progress)
        accuracy = [{"t": t, "accuracy": accuracy_at(fitted.model, held, t)} for t in ACCURACY_TIMES]
        save_network(fitted.model, folder)
        facts = {"held_out": HELD_OUT, "noise": dict(unet.NOISE_CONFIG), "held_out_accuracy": accuracy}
        write_training(folder, "classifier", options, fitted, **DIGITS, **facts)
    return Path(out)


def train_reader(
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train the reader of clean digits; `training.json` holds its held-out accuracy."""
    options = options or TrainOptions(minutes=1.0, threads=1)
    train, held = split_digits(HELD_OUT)
    with new_folder(Path(out), marker=TRAINING_NAME, written=training_files, force=force) as folder:
        # Dropout draws from the global generator, so the seed has to cover training as well as the start.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model = DigitReader()
            fitted = fit(model, _clean_loss(model, train, options.batch), options, on_progress)
        accuracy = float(np.mean(fitted.model.read(held.images) == held.labels))
        save_network(fitted.model, folder)
        facts = {"held_out": HELD_OUT, "held_out_accuracy": round(accuracy, 4)}
        write_training(folder, "reader", options, fitted, **DIGITS, **facts)
    return Path(out)


def accuracy_at(classifier: NoisyDigitClassifier, digits: Digits, t: int, *, seed: int = 0, draws: int = 1) -> float:
    """Share of digits read right at training timestep `t`, over `draws` draws of the noise for each."""
    images = torch.from_numpy(digits.images)
    labels = torch.from_numpy(digits.labels)
    signal = unet.alphas_cumprod()[t]
    generator = torch.Generator().manual_seed(seed)
    right = 0
    for _ in range(draws):
        noise = torch.randn(images.shape, generator=generator)
        x = signal.sqrt() * images + (1 - signal).sqrt() * noise
        with torch.no_grad():
            logits = classifier(x, torch.full((len(x),), float(t)))
        right += int((logits.argmax(dim=1) == labels).sum())
    return round(right / (draws * len(labels)), 4)


def _noisy_loss(model: NoisyDigitClassifier, train: Digits, batch: int) -> Callable[[torch.Generator], torch.Tensor]:
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    signal = unet.alphas_cumprod()

    def loss(generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(len(images), (batch,), generator=generator)
        t = torch.randint(len(signal), (batch,), generator=generator)
        noise = torch.randn(batch, *images.shape[1:], generator=generator)
        moved = _moved(images[pick], generator, turn=8.0, shift=1.0, stretch=0.08)
        return noisy_cross_entropy(model, moved, labels[pick], t, noise, signal)

    return loss


def _clean_loss(model: DigitReader, train: Digits, batch: int) -> Callable[[torch.Generator], torch.Tensor]:
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)

    def loss(generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(len(images), (batch,), generator=generator)
        moved = _moved(images[pick], generator, turn=12.0, shift=1.5, stretch=0.1)
        return torch.nn.functional.cross_entropy(model(moved), labels[pick], label_smoothing=0.02)

    return loss


def _moved(
    images: torch.Tensor, generator: torch.Generator, *, turn: float, shift: float, stretch: float
) -> torch.Tensor:
    """Turn (degrees), shift (pixels) and stretch each image by its own draw, uniform up to the given bounds."""
    count, size = len(images), images.shape[-1]
    draw = torch.rand(count, 5, generator=generator).mul(2.0).sub(1.0)
    angle = draw[:, 0] * math.radians(turn)
    scale_x, scale_y = 1 + stretch * draw[:, 1], 1 + stretch * draw[:, 2]
    # grid_sample's coordinates span [-1, 1] over the whole image, hence two units for `size` pixels.
    move = draw[:, 3:] * (2.0 * shift / size)
    matrix = torch.stack(
        [
            torch.stack([angle.cos() * scale_x, -angle.sin() * scale_y, move[:, 0]], dim=1),
            torch.stack([angle.sin() * scale_x, angle.cos() * scale_y, move[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = torch.nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    # Padding is zero, which is mid-grey here; brightness is shifted so that what comes in from outside is black.
    return torch.nn.functional.grid_sample(images + 1.0, grid, align_corners=False) - 1.0
