"""The quality measures against known answers, and the shipped checkpoints against the measures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("sklearn")

from dpmrt.errors import ArrayError, OptionError
from dpmrt.export.reference.classifiers import load_classifier, load_reader
from dpmrt.export.reference.digits import load_digits, split_digits
from dpmrt.export.reference.quality import evaluate_unet, frechet_distance, read_share, sample_unet
from dpmrt.export.reference.train_classifiers import accuracy_at

CHECKPOINTS = Path(__file__).parents[2] / "engines" / "checkpoints"


@pytest.fixture(scope="module")
def reader():
    return load_reader(CHECKPOINTS / "digits-reader")


def gaussian(mean, covariance, count=400):
    """Features whose sample mean and covariance are exactly the ones asked for."""
    white = np.random.default_rng(0).normal(size=(count, len(mean)))
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_known_gaussians():
    a = gaussian([0.0, 1.0, 2.0], np.diag([1.0, 4.0, 9.0]))
    b = gaussian([3.0, 1.0, -2.0], np.diag([4.0, 4.0, 1.0]))
    assert frechet_distance(a, b) == pytest.approx(25.0 + 1.0 + 0.0 + 4.0, abs=1e-9)
    assert frechet_distance(b, a) == pytest.approx(30.0, abs=1e-9)
    assert frechet_distance(a, a[::-1]) == pytest.approx(0.0, abs=1e-6)


def test_frechet_distance_where_the_covariances_do_not_commute():
    first, second = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])
    product = first @ second
    # For 2x2 matrices, tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)).
    cross = np.sqrt(np.trace(product) + 2.0 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(first) + np.trace(second) - 2.0 * cross
    got = frechet_distance(gaussian([0.0, 0.0], first), gaussian([0.0, 0.0], second))
    assert got == pytest.approx(expected, abs=1e-9)


def test_frechet_distance_of_features_low_rank():
    flat = np.zeros((10, 4))
    flat[:, 0] = np.arange(10)
    assert frechet_distance(flat, flat + 1.0) == pytest.approx(4.0, abs=1e-6)


def test_features_that_do_not_match_are_refused():
    with pytest.raises(ArrayError, match="no common Frechet distance"):
        frechet_distance(np.zeros((4, 2)), np.zeros((4, 3)))


class Always:
    """A reader that sees the same digit everywhere."""

    def read(self, images):
        return np.full(len(images), 3)


def test_read_share_counts_what_was_asked_for():
    assert read_share(np.zeros((4, 1, 16, 16)), [3, 3, 1, 3], Always()) == 0.75
    with pytest.raises(ArrayError, match="3 samples, 2 labels"):
        read_share(np.zeros((3, 1, 16, 16)), [1, 2], Always())


def test_shipped_reader_reads_real_digits(reader):
    images, labels = load_digits()
    _, held = split_digits()
    assert read_share(images, labels, reader) >= 0.97
    assert read_share(held.images, held.labels, reader) >= 0.97
    assert reader.features(images[:3]).shape == (3, 64)


def test_shipped_classifier_reads_through_noise():
    classifier = load_classifier(CHECKPOINTS / "digits-classifier")
    _, held = split_digits()
    assert accuracy_at(classifier, held, 0, draws=1) >= 0.97
    assert accuracy_at(classifier, held, 200, draws=1) >= 0.93
    assert accuracy_at(classifier, held, 999, draws=1) < 0.3


def test_shipped_unet_draws_what_it_is_asked_for(reader):
    quality = evaluate_unet(CHECKPOINTS / "digits-unet", reader, samples=40, steps=20, guidance=2.0)
    assert quality.read_share >= 0.95


def test_sampling_repeats_itself():
    first, second = (sample_unet(CHECKPOINTS / "digits-unet", [1, 2], steps=2, seed=5) for _ in range(2))
    other = sample_unet(CHECKPOINTS / "digits-unet", [1, 2], steps=2, seed=6)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    with pytest.raises(OptionError, match="must be positive"):
        sample_unet(CHECKPOINTS / "digits-unet", [1], steps=0)


@pytest.mark.parametrize("name", ["digits-unet", "digits-classifier", "digits-reader"])
def test_shipped_records_name_no_machine(name):
    record = json.loads((CHECKPOINTS / name / "training.json").read_text())
    assert record["steps"] > 500
    assert record["minutes"] <= 20
    text = "".join(path.read_text() for path in (CHECKPOINTS / name).rglob("*.json"))
    assert "/home" not in text
    assert "/work" not in text
    assert "/tmp" not in text


def test_nothing_shipped_is_pickled():
    assert {path.suffix for path in CHECKPOINTS.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".md"}
