"""The hooks of editing change a device's run as they change NumPy's, and what is recorded there comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpmrt.runtime import Recorder, TemporalSmoothing
from dpmrt.runtime.editing.known import KnownRegion
from dpmrt.solvers_np import Executor, compile_plan, make_noise, repaint
from dpmrt.solvers_np.execution.device.executor import DeviceExecutor
from dpmrt.solvers_np.execution.device.place import Place

SHAPE = (2, 3, 4, 5)


class _Model:
    """Half the state, on whatever it lies."""

    def __call__(self, x: Any, t: Any) -> Any:
        return 0.5 * x


@pytest.mark.parametrize("fresh", [False, True])
def test_editing_runs_on_a_device(cupy: Any, fresh: bool) -> None:
    rng = np.random.default_rng(2)
    image, x, z = (rng.standard_normal(SHAPE).astype(np.float32) for _ in range(3))
    mask = np.broadcast_to(np.float32([0, 1, 1, 0])[:, None], SHAPE)
    plan = repaint(compile_plan("ddim", "linear", 6, eta=0.5), 2, 2)
    found = []
    for make in (Executor, lambda *given: DeviceExecutor(*given, place=Place.new(cupy))):
        source, beside = make_noise("torch-cpu", 4), make_noise("torch-cpu", 5)
        recorder = Recorder("epsilon", every=2)
        hooks = [TemporalSmoothing("epsilon", 0.4), KnownRegion(image, mask, beside if fresh else z), recorder]
        got = make(plan, _Model(), SHAPE).run(x, noise=source, hooks=hooks)
        found.append((np.asarray(got.get() if hasattr(got, "get") else got), recorder.x, recorder.x0))
    for ours, theirs in zip(*found):
        assert type(theirs) is np.ndarray
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[1][0][:, :, 0], image[:, :, 0])
