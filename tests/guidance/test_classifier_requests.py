"""Requests for classifier guidance that cannot be honoured, and classifiers that do not match the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_bundles import write_misjudged

from dpmrt.engines import Axis
from dpmrt.errors import BundleError, DpmrtError, OptionError
from dpmrt.runtime import load


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_misjudged(tmp_path_factory.mktemp("judged") / "bundle")


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no label": ({"classifier_scale": 1.0}, "a classifier has no class to guide to", "a class, or one for each"),
    "null label": ({"classifier_scale": 1.0, "label": 3}, "label is out of range", "a whole number from 0 to 2"),
    "labels": ({"classifier_scale": 1.0, "classifier_label": [1]}, "one label for each sample", "2, as batch=2"),
    "mode": ({"classifier_scale": 1.0, "label": 1, "classifier_mode": "x0"}, "in no such mode", "auto, mean, noise"),
    "mean of an ODE": (
        {"classifier_scale": 1.0, "label": 1, "classifier_mode": "mean"},
        "cannot move the mean of this plan's steps",
        "a plan that calls the network in every row, and adds noise",
    ),
    "NaN": ({"classifier_scale": np.nan, "label": 1}, "classifier_scale is not a scale", "a finite number"),
    "scales": (
        {"classifier_scale": [1, 2, 3], "label": 1},
        "one scale of classifier_scale for each",
        "2, as batch=2",
    ),
    "mode alone": ({"classifier_mode": "noise"}, "and not how strongly", "a scale"),
    "label alone": ({"classifier_label": 1}, "and not how strongly", "a scale"),
}


def never(**_: np.ndarray) -> np.ndarray:
    raise AssertionError("the network was called")


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_fail_before_the_network_runs(judged: Path, case: str) -> None:
    request, what, expected = WRONG[case]
    with load(judged, "numpy", function=never) as pipeline:
        with pytest.raises(OptionError, match=what) as caught:
            pipeline.sample(2, steps=4, **request)
        assert str(caught.value.expected).startswith(expected)


MISFITS: dict[str, tuple[dict[str, Any], str, str]] = {
    "shape": ({"side": 16}, "reads other samples than the network makes", "samples of (1, 8, 8)"),
    "classes": ({"classes": 5}, "knows other classes than the network", "3 classes"),
    "training times": ({"steps": 4000}, "trained for other times than the network", "1000, as the network"),
    "times": ({"steps": 100}, "trained for other times than the plan's", "0 to 100"),
    "batch": ({"batch": Axis(opt=1, max=1)}, "does not take a batch of this size", "batch = 1 to 1"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_classifier_that_does_not_match_the_network_is_refused(tmp_path: Path, case: str) -> None:
    sizes, what, expected = MISFITS[case]
    with load(write_misjudged(tmp_path / "bundle", **sizes), "numpy", function=never) as pipeline:
        with pytest.raises((BundleError, OptionError), match=what) as caught:
            pipeline.sample(2, steps=4, label=1, classifier_scale=1.0)
        assert str(caught.value.expected).startswith(expected)


def test_a_bundle_without_a_classifier_says_so(labelled: Path) -> None:
    with (
        load(labelled, "numpy", function=never) as pipeline,
        pytest.raises(BundleError, match="the bundle has no classifier"),
    ):
        pipeline.sample(2, label=1, classifier_scale=1.0)


def test_a_driver_refuses_a_classifier(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dpmrt.runtime.drivers import DRIVERS

    monkeypatch.setitem(DRIVERS, "none", (__name__, "never"))  # type: ignore[arg-type]
    with load(judged) as pipeline, pytest.raises(DpmrtError, match="without a fixed grid takes no such argument"):
        pipeline.sample(2, solver="none", label=1, classifier_scale=1.0)
