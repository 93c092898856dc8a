"""How good a reference checkpoint is: samples that read as the digit asked for, and their distance to the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.export.reference.classifiers import DigitReader, load_reader
from dpmrt.export.reference.digits import IMAGE_SIZE, NUM_DIGITS, load_digits
from dpmrt.export.reference.unet import NULL_CLASS, load_scheduler, load_unet


@dataclass(frozen=True)
class Quality:
    """Measured quality of a checkpoint."""

    samples: int
    steps: int
    guidance: float
    read_share: float
    frechet: float


def read_share(
    samples: NDArray[np.floating], labels: NDArray[np.integer] | Sequence[int], reader: DigitReader
) -> float:
    """Share of the samples (n, 1, 16, 16) that the reader reads as the class that was asked for."""
    asked = np.asarray(labels)
    if len(asked) == 0 or len(samples) != len(asked):
        raise ArrayError(
            "samples and labels do not match",
            got=f"{len(samples)} samples, {len(asked)} labels",
            expected="one label per sample, and at least one",
            fix="pass the labels that the samples were asked for",
        )
    return float(np.mean(reader.read(samples) == asked))


def frechet_distance(features_a: NDArray[np.floating], features_b: NDArray[np.floating]) -> float:
    """Squared Frechet (2-Wasserstein) distance of the Gaussians fitted to two sets of features (n, d).

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), Dowson and Landau 1982, as FID uses it.

    >>> same = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(frechet_distance(same, same + 2.0), 9)
    12.0
    """
    a, b = (np.asarray(f, dtype=np.float64) for f in (features_a, features_b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ArrayError(
            "these features have no common Frechet distance",
            got=f"shapes {a.shape} and {b.shape}",
            expected="(n, d) and (m, d), with at least two rows each",
            fix="take both from the same reader",
        )
    cov_a = np.atleast_2d(np.cov(a, rowvar=False))
    cov_b = np.atleast_2d(np.cov(b, rowvar=False))
    root_a = _symmetric_sqrt(cov_a)
    # tr (C_a C_b)^(1/2) through the similar, symmetric matrix: the product itself is not symmetric.
    cross = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
    shift = a.mean(axis=0) - b.mean(axis=0)
    distance = shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2.0 * np.sqrt(np.clip(cross, 0.0, None)).sum()
    return float(max(distance, 0.0))


def sample_unet(
    folder: str | Path,
    labels: NDArray[np.integer] | Sequence[int],
    *,
    steps: int = 20,
    guidance: float = 2.0,
    seed: int = 0,
    batch: int = 200,
) -> NDArray[np.float32]:
    """Sample the torch UNet of a checkpoint with diffusers' DPM-Solver++(2M), one image per label.

    This is the reference that the torch-free runtime is held against. Guidance is
    `uncond + guidance * (cond - uncond)`.
    """
    if steps < 1 or batch < 1:
        raise OptionError(
            "steps and batch must be positive", got=f"steps={steps}, batch={batch}", expected="1 or more"
        )
    model = load_unet(folder)
    asked = torch.as_tensor(np.asarray(labels), dtype=torch.long)
    noise = torch.randn(len(asked), 1, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed))
    done = []
    for x, y in zip(noise.split(batch), asked.split(batch)):
        scheduler = load_scheduler(folder)
        scheduler.set_timesteps(steps)
        both = torch.cat([y, torch.full_like(y, NULL_CLASS)])
        for t in scheduler.timesteps:
            with torch.no_grad():
                cond, uncond = model(torch.cat([x, x]), t, both).sample.chunk(2)
            x = scheduler.step(uncond + guidance * (cond - uncond), t, x).prev_sample
        done.append(x)
    result: NDArray[np.float32] = torch.cat(done).numpy()
    return result


def evaluate_unet(
    folder: str | Path,
    reader: DigitReader | str | Path,
    *,
    samples: int = 1000,
    steps: int = 20,
    guidance: float = 2.0,
    seed: int = 0,
) -> Quality:
    """Sample every class equally often, and compare with all 1,797 real digits."""
    if not isinstance(reader, DigitReader):
        reader = load_reader(reader)
    labels = np.arange(samples) % NUM_DIGITS
    images = sample_unet(folder, labels, steps=steps, guidance=guidance, seed=seed)
    distance = frechet_distance(reader.features(images), reader.features(load_digits().images))
    return Quality(samples, steps, guidance, read_share(images, labels, reader), distance)


def _symmetric_sqrt(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    root: NDArray[np.float64] = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    return root
