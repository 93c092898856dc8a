"""Langevin steps on a device: the kernels that measure norms, against the executor in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_device_executor import SHAPE, Model

from dpmrt.errors import NonFiniteError
from dpmrt.solvers_np import Executor, StepPlan, compile_plan, make_noise
from dpmrt.solvers_np.execution.device import noise as device_noise
from dpmrt.solvers_np.execution.device.executor import DeviceExecutor
from dpmrt.solvers_np.execution.device.langevin_source import NORM_THREADS
from dpmrt.solvers_np.execution.device.place import Place

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "batch": ("linear", {"prediction": "epsilon"}),
    "twice": ("smld", {"prediction": "score", "corrector_steps": 2, "predictor": "none"}),
    "scaled input": ("edm", {"prediction": "edm", "predictor": "ancestral"}),
}


def plan_of(case: str, steps: int = 4) -> StepPlan:
    schedule, options = CASES[case]
    return compile_plan("predictor-corrector", schedule, steps, **options)


def start(plan: StepPlan, dtype: Any) -> Any:
    x = plan.init_scale * np.random.default_rng(5).standard_normal(SHAPE)
    x[1] *= 3  # samples whose norms differ
    return x.astype(dtype)


@pytest.mark.parametrize("case", CASES)
def test_a_device_takes_numpy_s_langevin_steps(cupy: Any, case: str) -> None:
    plan = plan_of(case)
    x = start(plan, np.float32)
    expected = Executor(plan, Model(), SHAPE).run(x, noise=make_noise("torch-cpu", 3))
    executor = DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy))
    for _ in range(3):
        got = executor.run(x, noise=make_noise("torch-cpu", 3))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert executor.trajectory.captured


def test_noise_that_is_copied_row_by_row_is_scaled_too(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_noise, "MOST_TABLE_BYTES", 100)
    plan = plan_of("batch")
    x = start(plan, np.float32)
    expected = Executor(plan, Model(), SHAPE).run(x, noise=make_noise("torch-cpu", 3))
    executor = DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy))
    for _ in range(2):
        got = executor.run(x, noise=make_noise("torch-cpu", 3))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


class Spoiled(Model):
    """A network whose call number 3 answers one number everywhere."""

    def __init__(self, value: float, samples: slice = slice(None)) -> None:
        super().__init__()
        self.value, self.samples = value, samples

    def __call__(self, x: np.ndarray[Any, Any], t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        out = super().__call__(x, t)
        if len(self.times) == 3:
            out[self.samples] = self.value
        return out


@pytest.mark.parametrize(
    ("value", "samples", "per_sample", "text"),
    [
        (0.0, slice(None), False, "a Langevin corrector cannot set its step by the norm of the score"),
        (0.0, slice(1, 2), True, "a Langevin corrector cannot set its step by the norm of the score"),
        (1e-30, slice(None), False, "a Langevin corrector cannot set its step by the norm of the score"),
        (np.nan, slice(1, 2), False, "the network returned NaN or infinity"),
        (np.inf, slice(None), True, "the network returned NaN or infinity"),
    ],
)
def test_a_score_without_a_norm_is_named_alike(
    cupy: Any, value: float, samples: slice, per_sample: bool, text: str
) -> None:
    plan = compile_plan("predictor-corrector", "ve", 4, prediction="score", per_sample=per_sample)
    x = start(plan, np.float32)
    with pytest.raises(NonFiniteError, match=text) as expected:
        Executor(plan, Spoiled(value, samples), SHAPE).run(x)
    executor = DeviceExecutor(plan, Spoiled(value, samples), SHAPE, place=Place.new(cupy))
    with pytest.raises(NonFiniteError) as caught:
        executor.run(x)
    assert str(caught.value) == str(expected.value)
    # the next run is none the worse: its calls number 3 is long past
    np.testing.assert_allclose(executor.run(x), Executor(plan, Model(), SHAPE).run(x), rtol=0, atol=1e-3)


def test_noise_that_is_not_finite_is_named_alike(cupy: Any) -> None:
    plan = plan_of("batch")
    x = start(plan, np.float32)

    def spoiled(shape: tuple[int, ...]) -> Any:
        return np.full(shape, np.inf, np.float32)

    for executor in (
        Executor(plan, Model(), SHAPE),
        DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy)),
    ):
        with pytest.raises(NonFiniteError, match="the noise source gave NaN or infinity"):
            executor.run(x, noise=spoiled)


def test_a_sample_alone_is_the_sample_in_its_batch_only_if_each_is_measured_alone(cupy: Any) -> None:
    for per_sample in (True, False):
        plan = compile_plan("predictor-corrector", "vp-linear", 4, per_sample=per_sample)
        x = start(plan, np.float32)
        noise = np.random.default_rng(1).standard_normal((plan.draws, *SHAPE))
        both = DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy)).run(x, noise=noise)
        shape = (1, *SHAPE[1:])
        one = DeviceExecutor(plan, Model(), shape, place=Place.new(cupy)).run(x[:1], noise=noise[:, :1])
        assert np.allclose(one, both[:1], rtol=0, atol=1e-5) is per_sample


def test_threads_that_measure_are_a_power_of_two() -> None:
    assert NORM_THREADS & (NORM_THREADS - 1) == 0
