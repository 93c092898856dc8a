"""The executor's kernels, and captured trajectories, on a real GPU against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_device_executor import CASES, SHAPE, _start
from test_device_guidance import check_kernels

from dpmrt.errors import NonFiniteError
from dpmrt.solvers_np import Executor, make_noise, run_plan
from dpmrt.solvers_np.execution.device.executor import DeviceExecutor
from dpmrt.solvers_np.execution.device.kernels import Kernels
from dpmrt.solvers_np.execution.device.place import Place
from dpmrt.solvers_np.execution.instructions import apply_instruction
from dpmrt.solvers_np.plans.instructions import Clip, DynamicThreshold

pytestmark = pytest.mark.gpu


class Sines:
    """A network of elementwise kernels that allocate nothing, so that it can be captured."""

    capturable = True

    def __init__(self, cupy: Any, parts: int) -> None:
        self._cupy, self._parts = cupy, parts

    def state(self) -> None:
        return None

    def bind_device(self, place: Place, x: Any, outputs: Any, times: Any) -> Any:
        cupy, channels = self._cupy, x.shape[1]

        def call(index: int, slot: int) -> None:
            first = outputs[slot][:, :channels]
            cupy.multiply(x, 1.3, out=first)
            cupy.add(first, 0.002 * times[index], out=first)
            cupy.sin(first, out=first)
            cupy.multiply(first, 0.9, out=first)
            if self._parts == 2:
                second = outputs[slot][:, channels:]
                cupy.add(x, times[index], out=second)
                cupy.cos(second, out=second)

        return call


def _network(parts: int) -> Any:
    def answer(x: np.ndarray[Any, Any], t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        first = np.sin(x * 1.3 + 0.002 * t[0]) * 0.9
        return first if parts == 1 else np.concatenate([first, np.cos(x + t[0])], axis=1)

    return answer


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_captured_trajectories_are_numpy_s(cupy: Any, case: str, dtype: Any) -> None:
    plan, x = CASES[case](), _start(dtype)
    expected = Executor(plan, _network(plan.parts), SHAPE, dtype).run(x, noise=make_noise("torch-cpu", 3))
    executor = DeviceExecutor(plan, Sines(cupy, plan.parts), SHAPE, dtype, place=Place.new(cupy))
    scale = max(1.0, float(np.abs(expected).max()))
    for _ in range(4):
        got = executor.run(x, noise=make_noise("torch-cpu", 3))
        # learned variances are cosines of large arguments, which float32 rounds in its own way
        tolerance = {np.float32: 2e-3 if plan.parts == 2 else 2e-4, np.float64: 1e-10}[dtype]
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)
    assert executor.trajectory.refused is None
    assert executor.trajectory.captured


@pytest.mark.parametrize("shape", [(1, 3), (3, 1, 1, 1), (2, 4, 64, 64), (5, 3, 33, 65)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("instruction", [Clip(0.7), DynamicThreshold(0.9, 2.0), DynamicThreshold(1.0, 100.0)])
def test_instructions_are_numpy_s(cupy: Any, shape: tuple[int, ...], dtype: Any, instruction: Any) -> None:
    x = (np.random.default_rng(1).standard_normal(shape) * 3).astype(dtype)
    place = Place.new(cupy)
    there = place.zeros(shape, dtype)
    place.upload(there, x)
    with place.work():
        Kernels(place).instruction(instruction, there)()
    apply_instruction(instruction, x, np.empty(int(np.prod(shape[1:])), dtype))
    np.testing.assert_allclose(place.download(there), x, rtol=1e-6 if dtype == np.float32 else 1e-14)


def test_nan_is_found_and_named(cupy: Any) -> None:
    plan, x = CASES["2m"](), _start()

    def network(x: Any, t: Any) -> Any:
        return cupy.where(t[0] < 500, cupy.nan, x)

    with pytest.raises(NonFiniteError, match="the network returned NaN or infinity"):
        run_plan(plan, network, cupy.asarray(x))


def test_device_arrays_stay_there(cupy: Any) -> None:
    plan, x = CASES["ddim"](), _start()
    got = run_plan(plan, lambda x, t: cupy.sin(x), cupy.asarray(x))
    assert isinstance(got, cupy.ndarray)
    np.testing.assert_allclose(got.get(), run_plan(plan, lambda x, t: np.sin(x), x), atol=1e-4)


@pytest.mark.parametrize(
    ("source", "target"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
@pytest.mark.parametrize("outer", [1, 5])
def test_guidance_is_combined_and_rescaled_as_in_numpy(cupy: Any, source: str, target: str, outer: int) -> None:
    check_kernels(cupy, source, target, outer)
