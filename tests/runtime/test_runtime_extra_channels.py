"""Networks that take more channels than the state has: inpainting, and video that starts from a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_conditioned import answer, write_conditioned

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime import load, open_bundle
from dpmrt.runtime.backends import open_backend
from dpmrt.runtime.denoiser import Denoiser
from dpmrt.solvers_np import plan_from_diffusers, randn, run_plan

INPAINTING: dict[str, Any] = {"sample": ("batch", 9, "height", "width"), "channels": 4}
VIDEO: dict[str, Any] = {"sample": ("batch", 3, 8, "height", "width"), "channels": 4, "axis": 2}
CASES = [(INPAINTING, (4, 6, 8), (5, 6, 8)), (VIDEO, (3, 4, 6, 8), (3, 4, 6, 8))]


@pytest.mark.parametrize(("network", "shape", "extra"), CASES)
@pytest.mark.parametrize("scale", [None, 2.5])
def test_extra_channels_stand_behind_the_state(
    tmp_path: Path, network: dict[str, Any], shape: Any, extra: Any, scale: float | None
) -> None:
    axis = network.get("axis", 1)
    mask = np.random.default_rng(1).standard_normal((2, *extra)).astype(np.float32)
    other = np.zeros((1, *extra), np.float32)

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        given = answer(x, t[0], {"extra_channels": mask}, axis)
        null = answer(x, t[0], {"extra_channels": other}, axis)
        return given if scale is None else null + np.float32(scale) * (given - null)

    away = {} if scale is None else {"negative": {"extra_channels": other}, "guidance": scale}
    with load(write_conditioned(tmp_path / "b", **network)) as pipeline:
        expected = run_plan(pipeline.plan(), model, randn((2, *shape), 0))
        got = pipeline.sample(2, shape=shape, conditions={"extra_channels": mask}, **away)
        assert got.shape == (2, *shape)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
        again = pipeline.sample(2, shape=shape, conditions={"extra_channels": 2 * mask}, **away)
        assert not np.allclose(again, got)


WRONG: dict[str, tuple[Any, str, str, str]] = {
    "missing": (
        None,
        "conditioned on extra_channels, which is missing",
        "no condition extra",
        "float32(1, 5, height,",
    ),
    "channels": (np.zeros((1, 4, 6, 8)), "extra_channels does not fit", "(1, 4, 6, 8)", "(1, 5, height, width)"),
    "size": (np.zeros((1, 5, 6, 9)), "extra_channels and the sample have", "width = 9", "width = 8, as the sample"),
    "rank": (np.zeros((5, 6, 8)), "extra_channels does not fit", "float64(5, 6, 8)", "float32(1, 5, height"),
    "NaN": (np.full((1, 5, 6, 8), np.nan), "extra_channels holds NaN", "None", "finite numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_extra_channels_are_explained(tmp_path: Path, case: str) -> None:
    value, what, got, expected = WRONG[case]

    def never(**_: np.ndarray) -> np.ndarray:
        raise AssertionError("the network was called")

    with (
        load(write_conditioned(tmp_path / "b", **INPAINTING), "numpy", function=never) as pipeline,
        pytest.raises((ArrayError, OptionError), match=what) as caught,
    ):
        pipeline.sample(shape=(4, 6, 8), conditions={"extra_channels": value})
    assert str(caught.value.got).startswith(got)
    assert str(caught.value.expected).startswith(expected)


def test_extra_channels_of_unnamed_axes_have_the_states_size(tmp_path: Path) -> None:
    root = write_conditioned(tmp_path / "b", sample=("batch", 9, "?", "?"), channels=4)
    with load(root) as pipeline:
        assert pipeline.sample(shape=(4, 6, 8), conditions={"extra_channels": np.zeros((1, 5, 6, 8))}).shape[1:] == (
            4,
            6,
            8,
        )
        with pytest.raises(ArrayError, match="extra_channels does not fit") as caught:
            pipeline.sample(shape=(4, 6, 8), conditions={"extra_channels": np.zeros((1, 5, 8, 6))})
    assert caught.value.expected == "(1, 5, 6, 8)"


def test_extra_channels_are_written_once_a_run_and_conditions_may_come_before_the_binding(tmp_path: Path) -> None:
    root = write_conditioned(tmp_path / "b", **INPAINTING)
    network = open_bundle(root).manifest.unet
    inputs: list[np.ndarray] = []

    def spy(sample: np.ndarray, timestep: np.ndarray) -> np.ndarray:
        inputs.append(sample)
        return answer(sample[:, :4], timestep[0], {"extra_channels": sample[:, 4:]})

    backend = open_backend("numpy", root, network, function=spy)
    denoiser = Denoiser(backend, network, 1, conditions={"extra_channels": (5, 6, 8)})
    mask = np.full((1, 5, 6, 8), 3.0, np.float32)
    denoiser.condition({"extra_channels": mask})
    x = np.ones((1, 4, 6, 8), np.float32)
    out = np.zeros_like(x)
    call = denoiser.bind(x, [out])
    for t in (1.0, 2.0):
        call(t, 0)
        np.testing.assert_allclose(out, answer(x, t, {"extra_channels": mask}), rtol=1e-6)
    assert inputs[0] is inputs[1]


def test_a_learned_variance_is_dropped_on_any_axis_and_read_on_the_first_only(tmp_path: Path) -> None:
    root = write_conditioned(tmp_path / "b", sample=("batch", 3, 4, 6, 8), given=8, axis=2)
    with load(root) as pipeline:
        expected = run_plan(pipeline.plan(), lambda x, t: answer(x, t[0]), randn((1, 3, 4, 6, 8), 0))
        np.testing.assert_allclose(pipeline.sample(), expected, rtol=1e-4, atol=1e-4)
        config = {"_class_name": "DDPMScheduler", "variance_type": "learned_range", "beta_start": 1e-4}
        with pytest.raises(OptionError, match="channels on axis 1 only") as caught:
            pipeline.sample(plan=plan_from_diffusers({**config, "beta_end": 0.02}, 4))
    assert caught.value.got == "channels on axis 2"
