"""Free axes: which sizes they take, where a request gets them from, and that tensors share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_conditioned import write_conditioned

from dpmrt.engines import Axis
from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime import load
from dpmrt.runtime.sizes import Sizes
from dpmrt.solvers_np import randn

AXES = {
    "height": Axis(opt=16, min=8, max=64, multiple=8),
    "width": Axis(opt=24, min=8, max=64, multiple=8),
    "tokens": Axis(opt=4, min=2, max=6),
    "batch": Axis(opt=2, max=4),
}
TEXT = {"encoder_hidden_states": ("float32", ("batch", "tokens", 3))}
PROMPT = np.ones((1, 4, 3), np.float32)


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 100), st.integers(1, 9))
def test_what_an_axis_takes_is_what_a_request_may_have(size: int, low: int, span: int, multiple: int) -> None:
    axis = Axis(opt=1, min=low, max=low + span, multiple=multiple)
    if axis.takes(size):
        Sizes({"n": axis}).take("it", ("n", 2), (size, 2))
        return
    with pytest.raises(ArrayError, match="it has a size that the network does not take") as caught:
        Sizes({"n": axis}).take("it", ("n", 2), (size, 2))
    assert (caught.value.got, caught.value.expected) == (f"n = {size}", f"n = {axis}")


@given(st.lists(st.tuples(st.sampled_from("ab?"), st.integers(1, 3)), max_size=6))
def test_a_name_has_one_size_and_no_name_has_any(drawn: list[tuple[str, int]]) -> None:
    sizes, seen, clash = Sizes({}), dict[str, int](), False
    for name, size in drawn:
        clash = name != "?" and seen.setdefault(name, size) != size
        if clash:
            with pytest.raises(ArrayError, match="different sizes on one axis"):
                sizes.take("it", (name,), (size,))
            return
        sizes.take("it", (name,), (size,))


def write(folder: Path, **options: Any) -> Path:
    return write_conditioned(folder / "b", **{"axes": AXES, "conditions": TEXT, **options})


def test_a_shape_comes_from_the_caller_the_noise_the_axes_or_the_config(tmp_path: Path) -> None:
    config = {"in_channels": 4, "sample_size": 40}
    text: dict[str, Any] = {"encoder_hidden_states": PROMPT}
    with load(write(tmp_path, config=config)) as pipeline:
        assert pipeline.sample(**text).shape == (1, 4, 16, 24)
        assert pipeline.sample(shape=[4, 32, 8], **text).shape == (1, 4, 32, 8)
        assert pipeline.sample(x_T=randn((1, 4, 8, 40), 0), **text).shape == (1, 4, 8, 40)
        with pytest.raises(ArrayError, match="has the wrong shape"):
            pipeline.sample(x_T=randn((1, 4, 8, 40), 0), shape=(4, 8, 8), **text)
    with load(write_conditioned(tmp_path / "c", config=config)) as pipeline:
        assert pipeline.sample().shape == (1, 4, 40, 40)


WRONG: dict[str, tuple[dict[str, Any], Any, str, str, str]] = {
    "too large": ({"shape": (4, 72, 8)}, ArrayError, "size that the network", "height = 72", "height = 8 to 64, in"),
    "no multiple": ({"shape": (4, 8, 12)}, ArrayError, "size that the network", "width = 12", "width = 8 to 64, in"),
    "of the noise": (
        {"x_T": randn((1, 4, 8, 12), 0)},
        ArrayError,
        "the sample has a size that the network",
        "width = 12",
        "width = 8 to 64, in multiples of 8",
    ),
    "channels": ({"shape": (3, 8, 8)}, ArrayError, "the sample does not fit", "(3, 8, 8)", "(4, height, width)"),
    "rank": ({"shape": (4, 8)}, ArrayError, "the sample does not fit", "(4, 8)", "(4, height, width)"),
    "with the batch": ({"shape": (1, 4, 8, 8)}, ArrayError, "the sample does not fit", "(1, 4, 8, 8)", "(4, hei"),
    "nothing": ({"shape": (4, 0, 8)}, OptionError, r"shape\[1\] is out of range", "0", "a whole number from 1"),
    "fraction": ({"shape": (4, 8.0, 8)}, OptionError, r"shape\[1\] is out of range", "8.0", "a whole number from 1"),
    "no shape": ({"shape": 8}, OptionError, "shape is no shape of a sample", "8", "whole numbers"),
    "text": ({"shape": "4,8,8"}, OptionError, "shape is no shape of a sample", "'4,8,8'", "whole numbers"),
    "of a condition": (
        {"encoder_hidden_states": np.ones((1, 7, 3))},
        ArrayError,
        "the condition encoder_hidden_states has a size that the network does not take",
        "tokens = 7",
        "tokens = 2 to 6",
    ),
    "batch": ({"batch": 5}, OptionError, "not take a batch of this size", "batch 5", "batch = 1 to 4"),
    "doubled batch": (
        {"batch": 3, "negative_hidden_states": PROMPT, "guidance": 2.0},
        OptionError,
        "not take a batch of this size",
        "batch 3, doubled for guidance",
        "batch = 1 to 4",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_sizes_that_do_not_fit_are_explained_before_the_network_runs(tmp_path: Path, case: str) -> None:
    def never(**_: np.ndarray) -> np.ndarray:
        raise AssertionError("the network was called")

    request, kind, what, got, expected = WRONG[case]
    with (
        load(write(tmp_path), "numpy", function=never) as pipeline,
        pytest.raises(kind, match=what) as caught,
    ):
        pipeline.sample(**{"encoder_hidden_states": PROMPT, **request})
    assert str(caught.value.got) == got
    assert str(caught.value.expected).startswith(expected)


def test_a_condition_of_a_fixed_batch_fixes_it(tmp_path: Path) -> None:
    root = write_conditioned(tmp_path / "b", sample=("batch", 1, 4), conditions={"pose": ("float32", (2, 3))})
    with load(root) as pipeline:
        pose = np.zeros((2, 3))
        assert len(pipeline.sample(2, conditions={"pose": pose})) == 2
        with pytest.raises(OptionError, match="exported for one batch size"):
            pipeline.sample(1, conditions={"pose": pose[:1]})


@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 4, 5), (6,)])
def test_samples_of_any_rank(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with load(write_conditioned(tmp_path / "b", sample=("batch", *shape))) as pipeline:
        assert pipeline.sample(2).shape == (2, *shape)
