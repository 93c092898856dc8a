"""Requests for guidance that cannot be honoured, and guidance that is a part of the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import write_bundle
from tiny_conditioned import answer, write_conditioned

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime import Guidance, load
from dpmrt.solvers_np import randn, run_plan

WRONG: dict[str, tuple[Any, str, str]] = {
    "none a sample": ([], "one scale of guidance for each sample", "2, as batch=2"),
    "too many": ([1, 2, 3], "one scale of guidance for each sample", "2, as batch=2"),
    "a square": ([[1, 2], [3, 4]], "guidance is not a scale", "a finite number, or one for each sample"),
    "words": (["a", "b"], "guidance is not a scale", "a finite number"),
    "NaN of one": ([1.0, np.nan], "guidance is not a scale", "a finite number"),
    "true": (True, "guidance is not a scale", "a finite number"),
    "ragged": ([1, [2, 3]], "guidance is no array", "an array"),
    "rescale": (Guidance(2.0, rescale=1.5), "guidance rescale is out of range", "0 (none) to 1"),
    "rescale of a kind": (Guidance(2.0, rescale="0.5"), "guidance rescale is out of range", "0 (none) to 1"),  # type: ignore[arg-type]
    "unit": (Guidance(2.0, interval=(0, 1), unit="steps"), "goes by no such unit", "progress, time, sigma"),
    "interval": (Guidance(2.0, interval=(0.8, 0.2)), "no such interval", "two numbers of unit 'progress', the lower"),
    "half an interval": (Guidance(2.0, interval=(0.2,)), "no such interval", "two numbers"),  # type: ignore[arg-type]
    "interval NaN": (Guidance(2.0, interval=(np.nan, 1.0)), "no such interval", "two numbers"),
    "schedule": (Guidance(2.0, schedule="quadratic"), "no such schedule", "linear, cosine of unit 'progress'"),
    "schedule of time": (Guidance(2.0, schedule="linear", unit="time"), "no such schedule", "linear, cosine of unit"),
    "scale and schedule": (Guidance(2.0, schedule=[1.0]), "a schedule says the scale of guidance", "one of them"),
    "calls": (Guidance(schedule=[1.0, 2.0]), "another number of network calls", "5, as the plan calls the network"),
    "schedule of another batch": (Guidance(schedule=np.ones((5, 3))), "no table of scales", "finite numbers, one"),
    "schedule NaN": (Guidance(schedule=[1, 2, np.inf, 1, 1]), "no table of scales", "finite numbers, one"),
    "schedule of a number": (Guidance(schedule=3.0), "no table of scales", "finite numbers, one"),  # type: ignore[arg-type]
    "function": (Guidance(schedule=lambda p: "a"), "gave no scale", "a finite number, or 2, one for each sample"),
    "function of three": (Guidance(schedule=lambda p: [1, 2, 3]), "gave no scale", "a finite number, or 2"),
    "function NaN": (Guidance(schedule=lambda p: np.nan), "gave no scale", "a finite number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_fails_before_the_network_runs(labelled: Path, case: str) -> None:
    def never(**_: np.ndarray) -> np.ndarray:
        raise AssertionError("the network was called")

    asked, what, expected = WRONG[case]
    with load(labelled, "numpy", function=never) as pipeline:
        with pytest.raises((OptionError, ArrayError), match=what) as caught:
            pipeline.sample(2, label=1, steps=5, guidance=asked)
        assert str(caught.value.expected).startswith(expected)


def test_guidance_without_a_scale_needs_a_usual_one(tmp_path: Path, labelled: Path) -> None:
    with load(write_bundle(tmp_path / "b", labels=True, guidance=False)) as pipeline:
        with pytest.raises(OptionError, match="not trained for guidance"):
            pipeline.sample(2, label=1, guidance=Guidance(rescale=0.5))
        with pytest.raises(OptionError, match="something to guide away from, and no scale"):
            pipeline.sample(2, label=1, negative={"class_labels": 2}, guidance=Guidance(rescale=0.5))
    with load(labelled) as pipeline, pytest.raises(OptionError, match="nothing to guide to without a label"):
        pipeline.sample(2, guidance=Guidance(rescale=0.5))


SHAPE = (2, 4, 4)
TEXT = {"encoder_hidden_states": ("float32", ("batch", "tokens", 3))}
GIVEN = {"encoder_hidden_states": np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)}
AWAY = {"encoder_hidden_states": np.zeros((1, 5, 3), np.float32)}


def folded(folder: Path, scale: Any = ("batch",)) -> Path:
    return write_conditioned(folder / "folded", sample=("batch", *SHAPE), conditions=TEXT, folded=True, scale=scale)


FOLDED: dict[str, tuple[Any, Any]] = {
    "one a sample": ([3.0, -1.0], lambda k: [3.0, -1.0]),
    "interval": (Guidance([3.0, 2.0], interval=(0.3, 1.0)), lambda k: [3.0, 2.0] if k else 1.0),
    "schedule": (Guidance(schedule=[1.0, 4.0, 2.0, 0.0]), lambda k: [1.0, 4.0, 2.0, 0.0][k]),
}


@pytest.mark.parametrize("of_scale", [("batch",), ()])
@pytest.mark.parametrize("case", FOLDED)
def test_a_graph_that_guides_by_itself_is_told_the_scale_of_each_call(
    tmp_path: Path, case: str, of_scale: Any
) -> None:
    asked, scale = FOLDED[case]
    calls = iter(range(4))

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        null = answer(x, t[0], {"encoder_hidden_states": np.zeros((2, 5, 3))})
        by = np.broadcast_to(scale(next(calls)), 2).astype(np.float32).reshape(2, 1, 1, 1)
        return null + by * (answer(x, t[0], GIVEN) - null)

    with load(folded(tmp_path, of_scale)) as pipeline:
        request: Any = {"conditions": GIVEN, "negative": AWAY, "guidance": asked}
        if of_scale == () and case != "schedule":
            with pytest.raises(OptionError, match="the graph takes one scale of guidance for all samples"):
                pipeline.sample(2, **request)
            return
        expected = run_plan(pipeline.plan(), model, randn((2, *SHAPE), 0))
        for _ in range(2):
            np.testing.assert_allclose(pipeline.sample(2, **request), expected, rtol=1e-3, atol=1e-3)


def test_a_graph_that_guides_by_itself_cannot_be_rescaled(tmp_path: Path) -> None:
    with load(folded(tmp_path)) as pipeline:
        with pytest.raises(OptionError, match="part of the graph cannot be rescaled") as caught:
            pipeline.sample(2, conditions=GIVEN, negative=AWAY, guidance=Guidance(3.0, rescale=0.7))
        assert caught.value.fix == "export the network without --fold-guidance"
        with pytest.raises(OptionError, match=r"moves away from a negative encoder_hidden_states"):
            pipeline.sample(2, conditions=GIVEN, guidance=[1.0, 2.0])
