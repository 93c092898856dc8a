"""Frames that belong together: shared noise, smoothed predictions, on sequences and on video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_conditioned import write_conditioned

from dpmrt.errors import OptionError
from dpmrt.runtime import (
    Recorder,
    TemporalSmoothing,
    consistent_noise,
    image_to_image,
    inpaint,
    interpolate,
    load,
    reconstruct,
)
from dpmrt.solvers_np import compile_plan, make_schedule, randn, run_plan
from dpmrt.solvers_np.prediction import to_x0

BIG = (2, 4, 6, 40, 40)


def correlations(noise: np.ndarray, axis: int = 2) -> np.ndarray:
    frames = np.moveaxis(noise, axis, 0)
    return np.corrcoef(frames.reshape(len(frames), -1))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_mixed_noise_correlates_all_frames_alike(share: float) -> None:
    noise = consistent_noise(BIG, 1, share)
    expected = share + (1 - share) * np.eye(6)
    np.testing.assert_allclose(correlations(noise), expected, atol=0.04)
    assert noise.dtype == np.float32
    # unit variance of every frame, within five standard errors
    np.testing.assert_allclose(noise.var(axis=(0, 1, 3, 4)), 1, atol=5 * np.sqrt(2 / (2 * 4 * 1600)))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.81, 1.0])
def test_progressive_noise_forgets_frame_by_frame(share: float) -> None:
    noise = consistent_noise(BIG, 1, share, model="progressive")
    apart = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    expected = np.where(apart == 0, 1.0, share ** (apart / 2))
    np.testing.assert_allclose(correlations(noise), expected, atol=0.05)
    np.testing.assert_allclose(noise.var(axis=(0, 1, 3, 4)), 1, atol=5 * np.sqrt(2 / (2 * 4 * 1600)))


def test_clips_do_not_share_and_a_list_of_seeds_sets_each() -> None:
    noise = consistent_noise(BIG, 1, 0.9)
    assert abs(np.corrcoef(noise.reshape(2, -1))[0, 1]) < 0.05
    both, alone = consistent_noise((2, 1, 3, 4, 4), [5, 6], 0.5), consistent_noise((1, 1, 3, 4, 4), [6], 0.5)
    np.testing.assert_array_equal(both[1:], alone)
    first = consistent_noise((1, 5, 3, 4, 4), 2, 1.0, axis=1)
    np.testing.assert_array_equal(first[:, 0], first[:, 4])
    np.testing.assert_array_equal(consistent_noise((1, 2, 8), 3, 0.0), randn((1, 2, 8), 3))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"share": 1.5}, "share is out of range"),
        ({"share": float("nan")}, "share is out of range"),
        ({"model": "mixt"}, "model has a value"),
        ({"axis": 0}, "axis is no axis of the frames"),
        ({"axis": 5}, r"axis is no axis of the frames\n.*\n.*1 to 4"),
        ({"shape": (2, 0, 3)}, r"shape\[1\] is out of range"),
    ],
)
def test_impossible_noise_is_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        consistent_noise(**{"shape": (1, 2, 3, 4, 4), **arguments})


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++", "heun"])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
def test_smoothing_is_that_of_x0_whatever_is_predicted(prediction: str, solver: str, kernel: str) -> None:
    """The same as a network whose x0 is smoothed before it answers."""
    schedule, width, strength = make_schedule("linear"), 1.3, 0.6
    plan = compile_plan(solver, schedule, 5, prediction=prediction)
    x = randn((2, 1, 5, 3), 4).astype(np.float64)
    apart = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) / width
    weights = np.exp(-(apart**2) / 2) if kernel == "gaussian" else np.exp(-apart)
    weights = (1 - strength) * np.eye(5) + strength * weights / weights.sum(axis=1, keepdims=True)
    levels = {float(t): row for t, row in zip(plan.t, range(plan.rows))}

    def network(x: Any, t: Any) -> Any:
        return np.tanh(x) * 0.7

    def smoothed(x: Any, t: Any) -> Any:
        from dpmrt.solvers_np import Level

        row = levels[float(t[0])]
        state, raw = to_x0(prediction, Level(float(t[0]), float(plan.alpha[row]), float(plan.sigma[row])))
        x0 = np.einsum("ij,bcjk->bcik", weights, state * x + raw * network(x, t))
        return (x0 - state * x) / raw

    got = run_plan(plan, network, x, hooks=[TemporalSmoothing(prediction, strength, width=width, kernel=kernel)])
    np.testing.assert_allclose(got, run_plan(plan, smoothed, x), atol=1e-9)
    assert np.abs(got - run_plan(plan, network, x)).max() > 1e-3


def test_smoothing_leaves_what_stands_still_and_calms_what_does_not() -> None:
    plan = compile_plan("ddim", "linear", 6)
    still = np.repeat(randn((1, 2, 1, 8), 3), 5, axis=2)
    moving = randn((1, 2, 5, 8), 3)

    def network(x: Any, t: Any) -> Any:
        return 0.9 * np.tanh(x)

    hook = TemporalSmoothing("epsilon", 1.0, width=2.0)
    np.testing.assert_allclose(
        run_plan(plan, network, still, hooks=[hook]), run_plan(plan, network, still), rtol=1e-4
    )
    loose, calm = run_plan(plan, network, moving), run_plan(plan, network, moving, hooks=[hook])
    assert np.abs(np.diff(calm, axis=2)).mean() < 0.5 * np.abs(np.diff(loose, axis=2)).mean()
    none = TemporalSmoothing("epsilon", 0.0)
    np.testing.assert_array_equal(run_plan(plan, network, moving, hooks=[none]), loose)


@pytest.mark.parametrize(
    "wrong", [{"strength": 2}, {"strength": True}, {"width": 0}, {"kernel": "box"}, {"strength": float("nan")}]
)
def test_impossible_smoothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"out of range|kernel has a value"):
        TemporalSmoothing("epsilon", **wrong)


@pytest.mark.parametrize("shape", [(3, 12), (2, 5, 8, 8)])
def test_sequences_and_video_are_edited_as_pictures_are(tmp_path: Path, shape: tuple[int, ...]) -> None:
    sample = 0.3 * randn((2, *shape), 8)
    mask = np.zeros(shape[1:], np.float32)
    mask[: shape[1] // 2] = 1  # the first frames are painted anew
    with load(write_conditioned(tmp_path / "bundle", sample=("batch", *shape))) as pipeline:
        start = consistent_noise((2, *shape), 1, 0.7)
        recorder = Recorder("epsilon")
        hooks = [TemporalSmoothing("epsilon", 0.5), recorder]
        assert pipeline.sample(2, x_T=start, steps=4, hooks=hooks).shape == (2, *shape)
        assert recorder.x0.shape == (5, 2, *shape)
        assert image_to_image(pipeline, sample, 0.5, steps=4).shape == sample.shape
        painted = inpaint(pipeline, sample, mask, steps=4, repaint=(1, 2))
        np.testing.assert_array_equal(painted[:, :, shape[1] // 2 :], sample[:, :, shape[1] // 2 :])
        assert interpolate(pipeline, (1, 2), frames=3, steps=2).shape == (3, *shape)
        errors = [reconstruct(pipeline, sample, steps=n).error.max() for n in (20, 80)]
        assert errors[1] < errors[0] / 2
