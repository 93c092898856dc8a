"""The gradient of a classifier that a bundle brings along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_conditioned import answer, save_graph, write_conditioned, write_tiny_manifest

from dpmrt.engines import Axis, Network, TensorSpec
from dpmrt.errors import ArrayError, BackendError, BundleError, DpmrtError, NonFiniteError, OptionError
from dpmrt.runtime import Pipeline, load, open_bundle
from dpmrt.runtime.backends import FunctionBackend

X = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
LABELS: dict[str, Any] = {"class_labels": ("int64", ("batch",))}


def write(folder: Path, **more: Any) -> Path:
    root = write_conditioned(folder / "b", sample=("batch", 1, 8, 8), manifest=False)
    unet = open_bundle(root).manifest.unet
    conditions = {**LABELS, **more}
    inputs = (
        TensorSpec("sample", "sample", "float32", ("batch", 1, "height", 8)),
        TensorSpec("timestep", "timestep", "float32", ("batch",)),
        *(TensorSpec(role, role, dtype, shape) for role, (dtype, shape) in conditions.items()),
    )
    outputs = (TensorSpec("gradient", "out_sample", "float32", ("batch", 1, "height", 8)),)
    save_graph(root / "classifier/model.onnx", inputs, outputs, conditions, 1, False)
    axes = {"height": Axis(opt=8, max=16, multiple=8), "batch": Axis(opt=2, max=4)}
    classifier = Network("classifier/model.onnx", inputs, outputs, axes=axes)
    write_tiny_manifest(root, unet, classifier=classifier)
    return root


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with load(write(tmp_path)) as opened:
        yield opened


@pytest.mark.parametrize("label", [[0, 2], np.array([0, 2]), 1])
@pytest.mark.parametrize("t", [250, 250.5, np.full(2, 250.0)])
def test_the_gradient_is_the_graphs_and_the_callers(pipeline: Pipeline, label: Any, t: Any) -> None:
    labels = np.broadcast_to(np.asarray(label), (2,))
    expected = answer(X, np.ravel(t)[0], {"class_labels": labels})
    kept = X.copy()
    for x in (X, X.astype(np.float64), np.asfortranarray(X)):
        got = pipeline.classifier_gradient(x, t, label)
        assert (got.dtype, got.shape) == (np.float32, X.shape)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        got[:] = 0
    np.testing.assert_array_equal(X, kept)


def test_each_sample_may_have_its_own_time(pipeline: Pipeline) -> None:
    both = pipeline.classifier_gradient(X, np.array([3.0, 700.0]), 1)
    for k, t in enumerate((3.0, 700.0)):
        np.testing.assert_allclose(both[k : k + 1], pipeline.classifier_gradient(X[k : k + 1], t, 1), rtol=1e-5)


WRONG: dict[str, tuple[tuple[Any, Any, Any], type[DpmrtError], str, str]] = {
    "whole numbers": ((X.astype(int), 1, 0), ArrayError, "x is no batch of samples", "floats"),
    "rank": ((X[0], 1, 0), ArrayError, "x does not fit the network", "(1, 1, height, 8)"),
    "size": ((X[..., :4], 1, 0), ArrayError, "x does not fit the network", "(2, 1, height, 8)"),
    "free size": ((X[:, :, :4], 1, 0), ArrayError, "x has a size that the network does", "height = 1 to 16"),
    "batch": ((np.zeros((5, 1, 8, 8)), 1, 0), OptionError, "not take a batch of this size", "batch = 1 to 4"),
    "beyond float32": ((X.astype(float) * 1e300, 1, 0), ArrayError, "x holds NaN or infinity", "finite numbers, in"),
    "time beyond float32": ((X, 1e300, 0), ArrayError, "t is no time", "a finite number"),
    "NaN": ((X * np.nan, 1, 0), ArrayError, "x holds NaN or infinity", "finite numbers"),
    "times": ((X, np.zeros(3), 0), ArrayError, "t is no time", "a finite number, or 2 of them"),
    "no time": ((X, None, 0), ArrayError, "t is no time", "a finite number"),
    "endless time": ((X, np.inf, 0), ArrayError, "t is no time", "a finite number"),
    "label": ((X, 1, -1), OptionError, "label is out of range", "a whole number from 0"),
    "labels": ((X, 1, [0]), OptionError, "one label for each sample", "2, as batch=2"),
    "no label": ((X, 1, None), OptionError, "the network needs a class label", "a class label"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_are_explained(pipeline: Pipeline, case: str) -> None:
    arguments, kind, what, expected = WRONG[case]
    with pytest.raises(kind, match=what) as caught:
        pipeline.classifier_gradient(*arguments)
    assert str(caught.value.expected).startswith(expected)


def test_nan_from_the_classifier_is_an_error(pipeline: Pipeline) -> None:
    pipeline.classifier_gradient(X, 1, 0)
    opened = pipeline._held._classifier
    assert opened is not None
    tensors = opened._backend.inputs, opened._backend.outputs
    opened._backend = FunctionBackend(lambda sample, **_: sample * np.nan, *tensors)
    with pytest.raises(NonFiniteError, match="the classifier returned NaN or infinity"):
        pipeline.classifier_gradient(X, 1, 0)


def test_a_bundle_without_a_classifier_says_so(plain: Path) -> None:
    with load(plain) as pipeline, pytest.raises(BundleError, match="the bundle has no classifier") as caught:
        pipeline.classifier_gradient(X, 1, 0)
    assert caught.value.expected == "`classifier` in dpmrt.json"


def test_it_is_opened_on_first_use_and_closed_with_the_pipeline(tmp_path: Path) -> None:
    pipeline = load(write(tmp_path))
    assert pipeline._held._classifier is None
    pipeline.classifier_gradient(X, 1, 0)
    opened = pipeline._held._classifier
    assert opened is not None
    pipeline.close()
    with pytest.raises(BackendError, match="the backend is closed"):
        opened.gradient(X, 1, 0)
    with pytest.raises(BackendError, match="the pipeline is closed"):
        pipeline.classifier_gradient(X, 1, 0)


def test_a_classifier_with_more_inputs_is_refused(tmp_path: Path) -> None:
    with (
        load(write(tmp_path, text_embeds=("float32", ("batch", 2)))) as pipeline,
        pytest.raises(BundleError, match="takes an input that dpmrt does not fill") as caught,
    ):
        pipeline.classifier_gradient(X, 1, 0)
    assert caught.value.got == "text_embeds"
