"""Guidance that is a part of the graph: the scale is an input, and each condition has a negative beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_conditioned import answer, write_conditioned

from dpmrt.engines import Guidance
from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime import Pipeline, load
from dpmrt.solvers_np import randn, run_plan

CONDITIONS = {
    "encoder_hidden_states": ("float32", ("batch", "tokens", 3)),
    "time_ids": ("float32", ("batch", 2)),
}
GIVEN = {
    "encoder_hidden_states": np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32),
    "time_ids": np.array([[1.0, 2.0]]),
}
AWAY = {role: np.zeros_like(value[:1]) for role, value in GIVEN.items()}
SHAPE = (2, 4, 4)


def write(folder: Path, **options: Any) -> Path:
    return write_conditioned(
        folder / "b", **{"sample": ("batch", *SHAPE), "conditions": CONDITIONS, "folded": True, **options}
    )


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with load(write(tmp_path)) as opened:
        yield opened


def rows(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {role: np.broadcast_to(value, (2, *value.shape[1:])) for role, value in given.items()}


def by_hand(pipeline: Pipeline, scale: float) -> Any:
    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        null = answer(x, t[0], rows(AWAY))
        return null + np.float32(scale) * (answer(x, t[0], rows(GIVEN)) - null)

    return run_plan(pipeline.plan(), model, randn((2, *SHAPE), 0))


@pytest.mark.parametrize("scale", [7.5, 1.0, 0.0, -2.0])
@pytest.mark.parametrize("of_scale", [("batch",), ()])
def test_the_scale_goes_to_the_graph(tmp_path: Path, scale: float, of_scale: Any) -> None:
    with load(write(tmp_path, scale=of_scale)) as pipeline:
        got = pipeline.sample(2, conditions=GIVEN, negative=AWAY, guidance=scale)
        np.testing.assert_allclose(got, by_hand(pipeline, scale), rtol=1e-3, atol=1e-3)


def test_a_scale_of_one_needs_no_negative_and_runs_the_same_graph(pipeline: Pipeline) -> None:
    expected = by_hand(pipeline, 1.0)
    np.testing.assert_allclose(pipeline.sample(2, conditions=GIVEN), expected, rtol=1e-4, atol=1e-4)
    pipeline.sample(2, conditions=GIVEN, negative=AWAY, guidance=3)
    np.testing.assert_allclose(pipeline.sample(2, conditions=GIVEN, guidance=1), expected, rtol=1e-4, atol=1e-4)
    assert len(pipeline._held.bound) == 1


def test_the_graph_reads_the_executors_state_and_is_not_doubled(tmp_path: Path) -> None:
    seen: list[dict[str, tuple[int, ...]]] = []
    addresses: set[tuple[int, int]] = set()
    with load(write(tmp_path)) as pipeline:
        backend = pipeline._held.backend()
        bind = backend.bind

        def spy(inputs: Any, outputs: Any) -> Any:
            seen.append({name: array.shape for name, array in inputs.items()})
            addresses.add((inputs["sample"].ctypes.data, outputs["out_sample"].ctypes.data))
            return bind(inputs, outputs)

        backend.bind = spy  # type: ignore[method-assign]
        pipeline.sample(2, conditions=GIVEN, negative=AWAY, guidance=3)
        (_, executor), *_ = pipeline._held.bound.values()
        assert addresses == {(executor._x.ctypes.data, slot.ctypes.data) for slot in executor._slots}
    assert {shapes["sample"][0] for shapes in seen} == {2}
    assert seen[0]["negative_time_ids"] == (2, 2)


def test_a_missing_negative_is_explained(pipeline: Pipeline) -> None:
    away = {"time_ids": AWAY["time_ids"]}
    with pytest.raises(OptionError, match="moves away from a negative encoder_hidden_states, which is m") as caught:
        pipeline.sample(2, conditions=GIVEN, negative=away, guidance=3)
    assert caught.value.got == "guidance=3, and no negative encoder_hidden_states"
    assert caught.value.expected == "float32(2, tokens, 3)"
    assert "or guidance=1" in str(caught.value.fix)


def test_a_negative_of_another_size_is_explained(pipeline: Pipeline) -> None:
    away = {**AWAY, "encoder_hidden_states": np.zeros((1, 4, 3))}
    with pytest.raises(ArrayError, match="the negative encoder_hidden_states and the condition encod"):
        pipeline.sample(2, conditions=GIVEN, negative=away, guidance=3)


def test_the_inputs_of_the_negative_are_no_conditions(pipeline: Pipeline) -> None:
    with pytest.raises(OptionError, match="conditions has a name that the network does not know") as caught:
        pipeline.sample(2, conditions={**GIVEN, "negative_time_ids": AWAY["time_ids"]})
    assert caught.value.expected == "encoder_hidden_states, time_ids"


def test_labels_have_their_null_label_inside_the_graph(tmp_path: Path) -> None:
    labels = {"class_labels": ("int64", ("batch",))}
    root = write(tmp_path, conditions=labels, guidance=Guidance("classifier_free", 3, 3, 2.0))
    with load(root) as pipeline:

        def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
            return answer(x, t[0], {"class_labels": np.array([0, 2])})

        expected = run_plan(pipeline.plan(), model, randn((2, *SHAPE), 0))
        got = pipeline.sample(2, label=[0, 2], guidance=4)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
        with pytest.raises(OptionError, match="negative has a name that the network does not know"):
            pipeline.sample(2, label=1, negative={"class_labels": 0})
        with pytest.raises(OptionError, match="nothing to guide to without a label"):
            pipeline.sample(2, guidance=4)


def test_extra_channels_go_with_a_folded_graph(tmp_path: Path) -> None:
    root = write(tmp_path, sample=("batch", 5, 4, 4), channels=2)
    mask = np.random.default_rng(2).standard_normal((2, 3, 4, 4)).astype(np.float32)
    with load(root) as pipeline:

        def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
            null = answer(x, t[0], {**rows(AWAY), "extra_channels": mask})
            return null + np.float32(3) * (answer(x, t[0], {**rows(GIVEN), "extra_channels": mask}) - null)

        expected = run_plan(pipeline.plan(), model, randn((2, *SHAPE), 0))
        got = pipeline.sample(2, conditions={**GIVEN, "extra_channels": mask}, negative=AWAY, guidance=3)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
