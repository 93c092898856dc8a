"""The reference digits: their shape and range, and a split that does not move."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from dpmrt.export.reference.digits import load_digits, split_digits


def test_digits_are_16x16_in_minus_one_to_one():
    images, labels = load_digits()
    assert images.shape == (1797, 1, 16, 16)
    assert images.dtype == np.float32
    assert images.min() == -1.0
    assert images.max() == 1.0
    assert labels.shape == (1797,)
    assert sorted(set(labels.tolist())) == list(range(10))


def test_enlarging_keeps_the_picture():
    from sklearn.datasets import load_digits as original

    small = original().images / 8.0 - 1.0
    images = load_digits().images[:, 0]
    back = images.reshape(-1, 8, 2, 8, 2).mean(axis=(2, 4))
    assert np.abs(back - small).mean() < 0.1
    assert np.corrcoef(back.ravel(), small.ravel())[0, 1] > 0.98


def test_a_caller_cannot_spoil_the_cached_digits():
    load_digits().images[:] = 0.0
    assert load_digits().images.min() == -1.0


def test_split_is_repeatable_disjoint_and_keeps_class_shares():
    train, held = split_digits(0.2, seed=3)
    again, _ = split_digits(0.2, seed=3)
    other, _ = split_digits(0.2, seed=4)
    assert np.array_equal(train.images, again.images)
    assert not np.array_equal(train.images, other.images)
    assert len(train.labels) + len(held.labels) == 1797
    everything = np.bincount(load_digits().labels)
    assert np.abs(np.bincount(held.labels) - 0.2 * everything).max() <= 1
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in held.images)
