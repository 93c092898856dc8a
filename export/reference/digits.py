"""The reference data: scikit-learn's handwritten digits, enlarged to 16x16 and scaled to [-1, 1]."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

IMAGE_SIZE = 16
NUM_DIGITS = 10
DATA_RANGE = (-1.0, 1.0)
DATASET = "sklearn.datasets.load_digits (1,797 8x8 digits), bicubic to 16x16"

_BRIGHTEST = 16.0


class Digits(NamedTuple):
    """Images (n, 1, 16, 16) float32 in [-1, 1] and their labels (n,) int64."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


@lru_cache(maxsize=1)
def _enlarged() -> Digits:
    from sklearn.datasets import load_digits as sklearn_digits

    raw = sklearn_digits()
    small = torch.from_numpy(raw.images.astype(np.float32))[:, None]
    large = torch.nn.functional.interpolate(
        small, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=False, antialias=True
    )
    images = large.clamp(0.0, _BRIGHTEST).mul(2.0 / _BRIGHTEST).sub(1.0).numpy()
    return Digits(images, raw.target.astype(np.int64))


def load_digits() -> Digits:
    """All 1,797 digits, in the order in which scikit-learn keeps them.

    >>> load_digits().images.shape
    (1797, 1, 16, 16)
    """
    images, labels = _enlarged()
    return Digits(images.copy(), labels.copy())


def split_digits(held_out: float = 0.2, *, seed: int = 0) -> tuple[Digits, Digits]:
    """Train and held-out parts, each with the same share of every class; the same seed gives the same split.

    >>> train, held = split_digits(0.2)
    >>> len(train.labels), len(held.labels)
    (1438, 359)
    """
    images, labels = load_digits()
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    # Quotas are cumulative so that rounding per class does not shift the total.
    taken = seen = 0
    for digit in range(NUM_DIGITS):
        members = rng.permutation(np.flatnonzero(labels == digit))
        seen += len(members)
        quota = round(seen * held_out) - taken
        held[members[:quota]] = True
        taken += quota
    return Digits(images[~held], labels[~held]), Digits(images[held], labels[held])
