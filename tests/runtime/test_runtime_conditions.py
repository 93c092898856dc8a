"""Networks with conditions of any name: text of two encoders, sizes, rates, pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_conditioned import answer, write_conditioned

from dpmrt.errors import ArrayError, DpmrtError, OptionError
from dpmrt.runtime import Pipeline, load
from dpmrt.solvers_np import randn, run_plan

SHAPE = (4, 8, 8)
CONDITIONS = {
    "encoder_hidden_states": ("float32", ("batch", "tokens", 3)),
    "text_embeds": ("float32", ("batch", 5)),
    "time_ids": ("float32", ("batch", 6)),
    "fps": ("int64", ("batch",)),
    "image_embeds": ("float16", ("batch", 2, 1, "height", "width")),
}
RANDOM = np.random.default_rng(0)
GIVEN: dict[str, Any] = {
    "encoder_hidden_states": RANDOM.standard_normal((2, 7, 3)),
    "text_embeds": RANDOM.standard_normal((2, 5)).astype(np.float32),
    "time_ids": [[6, 8, 0, 0, 6, 8]],
    "fps": np.array([7, 9], np.int32),
    "image_embeds": RANDOM.standard_normal((1, 2, 1, 8, 8)).astype(np.float16),
}
AWAY: dict[str, Any] = {
    "encoder_hidden_states": RANDOM.standard_normal((1, 7, 3)).astype(np.float32),
    "text_embeds": np.zeros((1, 5), np.float32),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {"in_channels": 4, "sample_size": 8}
    return write_conditioned(tmp_path_factory.mktemp("conditions") / "b", conditions=CONDITIONS, config=config)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Iterator[Pipeline]:
    with load(folder) as opened:
        yield opened


def rows(given: dict[str, Any], batch: int) -> dict[str, np.ndarray]:
    return {
        role: np.broadcast_to(np.asarray(given[role]), (batch, *np.asarray(given[role]).shape[1:])) for role in given
    }


def by_hand(pipeline: Pipeline, given: dict[str, Any], away: dict[str, Any], scale: float, batch: int = 2) -> Any:
    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        null = answer(x, t[0], rows({**given, **away}, batch))
        return null + np.float32(scale) * (answer(x, t[0], rows(given, batch)) - null)

    return run_plan(pipeline.plan(), model, randn((batch, *SHAPE), 3))


def test_every_condition_reaches_its_input(pipeline: Pipeline) -> None:
    got = pipeline.sample(2, seed=3, conditions=GIVEN)
    np.testing.assert_allclose(got, by_hand(pipeline, GIVEN, {}, 1.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [3.5, 0.0, -1.0])
def test_a_condition_without_a_negative_is_in_both_halves(pipeline: Pipeline, scale: float) -> None:
    got = pipeline.sample(2, seed=3, conditions=GIVEN, negative=AWAY, guidance=scale)
    np.testing.assert_allclose(got, by_hand(pipeline, GIVEN, AWAY, scale), rtol=1e-3, atol=1e-3)


def test_text_may_be_given_by_its_own_argument(pipeline: Pipeline) -> None:
    rest = {role: value for role, value in GIVEN.items() if role != "encoder_hidden_states"}
    text, empty = GIVEN["encoder_hidden_states"], AWAY["encoder_hidden_states"]
    away = {"text_embeds": AWAY["text_embeds"]}
    got = pipeline.sample(
        2, conditions=rest, negative=away, guidance=2, encoder_hidden_states=text, negative_hidden_states=empty
    )
    np.testing.assert_array_equal(got, pipeline.sample(2, conditions=GIVEN, negative=AWAY, guidance=2))


def without(role: str) -> dict[str, Any]:
    return {name: value for name, value in GIVEN.items() if name != role}


TEXT = GIVEN["encoder_hidden_states"]
WRONG: dict[str, tuple[dict[str, Any], type[DpmrtError], str, str, str]] = {
    "missing text": (
        {"conditions": without("encoder_hidden_states")},
        OptionError,
        "conditioned on text, whose encoding is missing",
        "encoder_hidden_states=None",
        "float32(2, tokens, 3)",
    ),
    "missing": (
        {"conditions": without("time_ids")},
        OptionError,
        "conditioned on time_ids, which is missing",
        "no condition time_ids",
        "float32(2, 6)",
    ),
    "none": (
        {"conditions": {**GIVEN, "fps": None}},
        OptionError,
        "conditioned on fps, which is missing",
        "no condition fps",
        "int64(2,)",
    ),
    "unknown": (
        {"conditions": {**GIVEN, "timeids": 1}},
        OptionError,
        "conditions has a name that the network does not know",
        "'timeids'",
        "encoder_hidden_states, text_embeds, time_ids, fps, image_embeds",
    ),
    "the sample": (
        {"conditions": {**GIVEN, "sample": 1}},
        OptionError,
        "conditions has a name that the network does not know",
        "'sample'",
        "encoder_hidden_states, text_embeds",
    ),
    "unknown negative": (
        {"conditions": GIVEN, "negative": {"negative_fps": 1}},
        OptionError,
        "negative has a name that the network does not know",
        "'negative_fps'",
        "encoder_hidden_states, text_embeds",
    ),
    "no mapping": ({"conditions": [1]}, OptionError, "conditions is no mapping", "list", "the arrays by their names"),
    "rank": (
        {"conditions": {**GIVEN, "text_embeds": np.zeros(5)}},
        ArrayError,
        "the condition text_embeds does not fit the network",
        "float64(5,)",
        "float32(2, 5)",
    ),
    "fixed size": (
        {"conditions": {**GIVEN, "text_embeds": np.zeros((2, 4))}},
        ArrayError,
        "the condition text_embeds does not fit the network",
        "(2, 4)",
        "(2, 5)",
    ),
    "batch": (
        {"conditions": {**GIVEN, "text_embeds": np.zeros((3, 5))}},
        ArrayError,
        "the condition text_embeds does not fit the network",
        "float64(3, 5)",
        "float32(2, 5)",
    ),
    "whole numbers as a picture": (
        {"conditions": {**GIVEN, "image_embeds": np.zeros((1, 2, 1, 8, 8), np.uint8)}},
        ArrayError,
        "the condition image_embeds does not fit the network",
        "uint8(1, 2, 1, 8, 8)",
        "float16(2, 2, 1, height, width)",
    ),
    "fractions for whole numbers": (
        {"conditions": {**GIVEN, "fps": np.array([7.5])}},
        ArrayError,
        "the condition fps does not fit the network",
        "float64(1,)",
        "int64(2,)",
    ),
    "ragged": (
        {"conditions": {**GIVEN, "time_ids": [[1], [1, 2]]}},
        ArrayError,
        "the condition time_ids is no array",
        "inhomogeneous",
        "an array",
    ),
    "NaN": (
        {"conditions": {**GIVEN, "text_embeds": np.full((1, 5), np.nan)}},
        ArrayError,
        "the condition text_embeds holds NaN or infinity",
        "None",
        "finite numbers",
    ),
    "NaN in the negative": (
        {"conditions": GIVEN, "negative": {"text_embeds": np.full((1, 5), np.inf)}, "guidance": 2},
        ArrayError,
        "the negative text_embeds holds NaN or infinity",
        "None",
        "finite numbers",
    ),
    "beyond half precision": (
        {"conditions": {**GIVEN, "image_embeds": np.full((1, 2, 1, 8, 8), 1e6)}},
        ArrayError,
        "the condition image_embeds holds a number that is too large for the network",
        "1e\\+06 to 1e\\+06",
        "numbers that float16 can hold",
    ),
    "a shared axis": (
        {"conditions": {**GIVEN, "image_embeds": np.zeros((1, 2, 1, 8, 9))}},
        ArrayError,
        "the condition image_embeds and the sample have different sizes on one axis",
        "width = 9",
        "width = 8, as the sample has",
    ),
    "empty": (
        {"conditions": {**GIVEN, "encoder_hidden_states": np.zeros((2, 0, 3))}},
        ArrayError,
        "the condition encoder_hidden_states does not fit the network",
        "(2, 0, 3)",
        "(2, tokens, 3)",
    ),
    "given twice": (
        {"conditions": GIVEN, "encoder_hidden_states": TEXT},
        OptionError,
        "encoder_hidden_states is given twice",
        "encoder_hidden_states=... and conditions\\['encoder_hidden_states'\\]",
        "one of them",
    ),
    "a negative without guidance": (
        {"conditions": GIVEN, "negative": AWAY},
        OptionError,
        "something to guide away from, and no scale",
        "negative, and guidance=None",
        "a scale",
    ),
    "guidance without a negative": (
        {"conditions": GIVEN, "guidance": 3.0},
        OptionError,
        "not trained for guidance",
        "guidance=3.0",
        "guidance=None",
    ),
    "labels": ({"conditions": GIVEN, "label": 1}, OptionError, "takes no class labels", "label=1", "label=None"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_conditions_fail_before_the_network_runs(folder: Path, case: str) -> None:
    def never(**_: np.ndarray) -> np.ndarray:
        raise AssertionError("the network was called")

    request, kind, what, got, expected = WRONG[case]
    with load(folder, "numpy", function=never) as opened, pytest.raises(kind, match=what) as caught:
        opened.sample(2, **request)
    assert re.search(got.replace("(", r"\(").replace(")", r"\)"), str(caught.value.got))
    assert str(caught.value.expected).startswith(expected)


def test_labels_are_a_condition_too(labelled: Path) -> None:
    with load(labelled) as pipeline:
        expected = pipeline.sample(2, label=[0, 2], guidance=3)
        np.testing.assert_array_equal(
            pipeline.sample(2, conditions={"class_labels": np.array([0, 2])}, guidance=3), expected
        )
        opposed = pipeline.sample(2, label=[0, 2], negative={"class_labels": [1, 1]}, guidance=3)
        assert not np.allclose(opposed, expected)
        with pytest.raises(OptionError, match="class_labels is given twice"):
            pipeline.sample(2, label=1, conditions={"class_labels": 1})
        with pytest.raises(OptionError, match="label is out of range"):
            pipeline.sample(2, conditions={"class_labels": 9})


def test_a_condition_may_be_one_number_for_all(tmp_path: Path) -> None:
    def network(sample: np.ndarray, timestep: np.ndarray, rate: np.ndarray) -> np.ndarray:
        assert rate.shape == ()
        return sample * rate

    root = write_conditioned(tmp_path / "b", sample=("batch", 1, 4), conditions={"rate": ("float32", ())})
    with load(root, "numpy", function=network) as pipeline:
        expected = run_plan(pipeline.plan(), lambda x, t: x * np.float32(0.25), randn((3, 1, 4), 0))
        np.testing.assert_allclose(pipeline.sample(3, conditions={"rate": 0.25}), expected, rtol=1e-5)
        with pytest.raises(OptionError, match="negative has a name") as caught:
            pipeline.sample(3, conditions={"rate": 0.25}, negative={"rate": 1.0}, guidance=2)
        assert str(caught.value.expected).startswith("none")


SIZES = st.integers(1, 3)


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[str, tuple[str, tuple[int | str, ...]]], dict[str, np.ndarray], int]:
    batch = draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    conditions, given = {}, {}
    for role in draw(st.lists(st.sampled_from(["a", "b2", "text_embeds", "fps", "x_"]), unique=True, max_size=4)):
        dtype = draw(st.sampled_from(["float32", "float16", "int64", "int32"]))
        shape = tuple(draw(st.lists(SIZES, max_size=4)))
        declared = tuple(f"{role}_{k}" if draw(st.booleans()) else size for k, size in enumerate(shape))
        conditions[role] = dtype, ("batch", *declared)
        given[role] = (4 * random.standard_normal((draw(st.sampled_from([1, batch])), *shape))).astype(dtype)
    return conditions, given, batch


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=networks(), scale=st.sampled_from([1.0, 0.0, 2.5]))
def test_any_set_of_conditions_is_the_formula(
    tmp_path_factory: pytest.TempPathFactory, drawn: Any, scale: float
) -> None:
    conditions, given_, batch = drawn
    root = write_conditioned(tmp_path_factory.mktemp("any") / "b", sample=("batch", 2, 3), conditions=conditions)
    away = {role: 0 * value for role, value in given_.items()}
    request = {"negative": away, "guidance": scale} if away else {}

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        null = answer(x, t[0], rows(away, batch))
        return null + np.float32(scale) * (answer(x, t[0], rows(given_, batch)) - null)

    with load(root) as pipeline:
        expected = run_plan(pipeline.plan(), model, randn((batch, 2, 3), 0))
        got = pipeline.sample(batch, conditions=given_, **request)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
