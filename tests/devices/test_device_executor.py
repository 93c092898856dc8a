"""The executor on a device against the one in NumPy, number by number, on kernels that were compiled for the host."""

from __future__ import annotations

import logging
from typing import Any

import fake_cupy
import numpy as np
import pytest

from dpmrt.errors import ArrayError, BackendError, NonFiniteError, SamplingCancelled
from dpmrt.solvers_np import (
    CallView,
    Executor,
    Hook,
    StateView,
    StepPlan,
    compile_plan,
    make_noise,
    make_schedule,
    run_plan,
)
from dpmrt.solvers_np.execution.composition import Update
from dpmrt.solvers_np.execution.device import noise as device_noise
from dpmrt.solvers_np.execution.device.executor import DeviceExecutor
from dpmrt.solvers_np.execution.device.kernels import Kernels, packed_weights
from dpmrt.solvers_np.execution.device.place import Place, address, place_of
from dpmrt.solvers_np.execution.device.source import BAD_NETWORK, BAD_NOISE, BAD_STATE

SHAPE = (2, 3, 5, 7)


class Model:
    """A network of a few sines, which computes in NumPy on the device's memory and can be captured."""

    capturable = True

    def __init__(self, parts: int = 1, spoil: tuple[int, str] | None = None) -> None:
        self.parts, self.spoil = parts, spoil
        self.times: list[float] = []

    def network(self, x: np.ndarray[Any, Any], t: float) -> np.ndarray[Any, Any]:
        first = np.sin(x * 1.3 + 0.002 * t) * 0.9
        return first if self.parts == 1 else np.concatenate([first, np.cos(x + t)], axis=1)

    def __call__(self, x: np.ndarray[Any, Any], t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        out = self.network(x, float(t[0])).astype(x.dtype)
        if self.spoil is not None and len(self.times) == self.spoil[0]:
            out[(1, 0 if self.spoil[1] == "first" else -1, 2, 3)] = np.nan
        self.times.append(float(t[0]))
        return out

    def state(self) -> None:
        return None

    def bind_device(self, place: Place, x: Any, outputs: Any, times: Any) -> Any:
        def call(index: int, slot: int) -> None:
            def work() -> None:
                outputs[slot]._host[...] = self(x._host, np.full(len(x), times[index]))

            place.stream.enqueue(work)

        return call


def _plan(solver: str, steps: int = 8, **options: Any) -> StepPlan:
    return compile_plan(solver, make_schedule("linear"), steps, **{"prediction": "sample", **options})


CASES = {
    "ddim": lambda: _plan("ddim"),
    "ddim eta": lambda: _plan("ddim", eta=0.7),
    "2m": lambda: _plan("dpmsolver++", order=2),
    "3m thresholded": lambda: _plan("dpmsolver++", order=3, threshold=0.9),
    "clipped": lambda: _plan("ddpm", clip=1.0),
    "unipc": lambda: _plan("unipc", order=3),
    "heun": lambda: _plan("heun"),
    "euler ancestral": lambda: _plan("euler_ancestral"),
    "pndm": lambda: _plan("pndm", 12),
    "lms": lambda: _plan("lms"),
    "learned range": lambda: _plan("ddpm", variance="learned_range"),
    "langevin": lambda: _plan("predictor-corrector", 4),
    "langevin of each": lambda: _plan("predictor-corrector", 4, per_sample=True),
}


def _close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * max(1.0, float(np.abs(expected).max())))


def _start(dtype: Any = np.float32, shape: tuple[int, ...] = SHAPE) -> Any:
    return (np.random.default_rng(5).standard_normal(shape) * 2).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_a_device_gives_numpy_s_numbers(cupy: Any, case: str, dtype: Any) -> None:
    plan, x = CASES[case](), _start(dtype)
    expected = Executor(plan, Model(plan.parts), SHAPE, dtype).run(x, noise=make_noise("torch-cpu", 3))
    executor = DeviceExecutor(plan, Model(plan.parts), SHAPE, dtype, place=Place.new(cupy))
    for _ in range(3):
        got = executor.run(x, noise=make_noise("torch-cpu", 3))
        assert isinstance(got, np.ndarray)
        assert got.dtype == dtype
        _close(got, expected, 1e-4 if dtype == np.float32 else 1e-13)
    assert executor.trajectory.captured
    # Two plain runs' worth: the second was captured, and what was captured is replayed whole.
    assert [kind for kind, _ in fake_cupy.log].count("graph") == 2


def test_a_replayed_run_waits_only_at_its_end(cupy: Any) -> None:
    plan, x = _plan("dpmsolver++", order=2), _start()
    executor = DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy))
    executor.run(x)
    executor.run(x)
    fake_cupy.log.clear()
    executor.run(x)
    assert [kind for kind, _ in fake_cupy.log] == ["set", "graph", "get", "get"]


def test_a_plain_run_waits_only_at_its_end(cupy: Any) -> None:
    plan, x = _plan("ddim", eta=1.0), _start()
    executor = DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy))
    fake_cupy.log.clear()
    executor.run(x)
    kinds = [kind for kind, _ in fake_cupy.log]
    assert kinds[:2] == ["set", "set"]
    assert kinds[-2:] == ["get", "get"]
    assert set(kinds[2:-2]) == {"kernel"}
    # one fused kernel a row, beside the one that clears the flags
    assert len(kinds[2:-2]) == 1 + plan.rows


def test_noise_that_does_not_fit_beforehand_is_copied_row_by_row(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_noise, "MOST_TABLE_BYTES", 100)
    for case in ("ddim eta", "learned range"):
        plan, x = CASES[case](), _start()
        expected = Executor(plan, Model(plan.parts), SHAPE).run(x, noise=make_noise("torch-cpu", 3))
        executor = DeviceExecutor(plan, Model(plan.parts), SHAPE, place=Place.new(cupy))
        for _ in range(2):
            _close(executor.run(x, noise=make_noise("torch-cpu", 3)), expected)
        assert not executor.trajectory.captured


def test_a_device_that_reads_the_host_s_memory_is_waited_for(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Such a device may come to a copy when the host has written the next numbers over it.
    monkeypatch.setattr(device_noise, "MOST_TABLE_BYTES", 100)
    fake_cupy.device["reads_host"] = True
    plan, x = CASES["ddim eta"](), _start()
    expected = Executor(plan, Model(), SHAPE).run(x, noise=make_noise("torch-cpu", 3))
    executor = DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy))
    _close(executor.run(x, noise=make_noise("torch-cpu", 3)), expected)


def test_a_run_that_fails_leaves_nothing_under_way(cupy: Any) -> None:
    plan, model = _plan("ddim"), Model()
    executor = DeviceExecutor(plan, model, SHAPE, place=Place.new(cupy))

    def interrupted() -> None:
        raise KeyboardInterrupt

    executor._script[3][1].insert(0, interrupted)
    with pytest.raises(KeyboardInterrupt):
        executor.run(_start())
    # Whoever lets go of buffers and contexts now finds the device done with them.
    assert fake_cupy.log[-1][0] == "synchronize"


def test_rows_of_many_slots_say_where_it_began_as_far_as_there_is_room(cupy: Any) -> None:
    rows = 20
    place = Place.new(cupy)
    there = place.zeros((rows, 64), np.float32)
    values = np.arange(rows * 64, dtype=np.float32).reshape(rows, 64)
    values[[3, 18], 5] = np.nan
    flag = place.zeros(1, np.uint32)
    matrix = np.zeros((rows, rows))
    matrix[0] = 0.5
    update = Update(matrix, (0,))
    weights = place.zeros(rows, np.float32)
    place.upload(weights, packed_weights(update, 0))
    place.upload(there, values)
    kinds = {3: BAD_NETWORK, 15: BAD_NOISE, 18: BAD_NOISE}
    with place.work():
        Kernels(place).update(update, [there[k] for k in range(rows)], weights, address(flag), kinds, 0)()
    assert int(place.download(flag)[0]) == BAD_NETWORK | BAD_STATE
    np.testing.assert_allclose(place.download(there)[0], values.sum(0) * 0.5)


def test_another_noise_and_another_start_go_through_the_same_capture(cupy: Any) -> None:
    plan = _plan("ddim", eta=0.5)
    executor = DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy))
    for seed in range(4):
        x = _start() * (1 + seed)
        expected = Executor(plan, Model(), SHAPE).run(x, noise=make_noise("torch-cpu", seed))
        _close(executor.run(x, noise=make_noise("torch-cpu", seed)), expected)
    assert executor.trajectory.captured


def test_callbacks_see_the_state_of_numpy_s_executor(cupy: Any) -> None:
    plan, x = _plan("heun"), _start()
    seen: dict[str, list[Any]] = {"numpy": [], "device": []}

    def keep(name: str) -> Any:
        return lambda event: seen[name].append((event.index, event.total, event.t, np.array(event.x)))

    Executor(plan, Model(), SHAPE).run(x, callback=keep("numpy"))
    DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy)).run(x, callback=keep("device"))
    assert [entry[:3] for entry in seen["numpy"]] == [entry[:3] for entry in seen["device"]]
    for a, b in zip(seen["numpy"], seen["device"]):
        _close(b[3], a[3])


def test_a_callback_cancels(cupy: Any) -> None:
    executor = DeviceExecutor(_plan("ddim"), Model(), SHAPE, place=Place.new(cupy))
    with pytest.raises(SamplingCancelled, match="cancelled by its callback") as caught:
        executor.run(_start(), callback=lambda event: event.cancel() if event.index == 2 else None)
    assert caught.value.got == "after call 3 of 8"
    assert np.isfinite(executor.run(_start())).all()


@pytest.mark.parametrize("case", ["2m", "ddim eta", "3m thresholded", "clipped", "learned range", "unipc"])
def test_a_network_that_fails_is_named_as_in_numpy(cupy: Any, case: str) -> None:
    plan, x = CASES[case](), _start()
    for spoil in [(0, "first"), (3, "first")] + ([(4, "second")] if plan.parts == 2 else []):
        with pytest.raises(NonFiniteError) as expected:
            Executor(plan, Model(plan.parts, spoil), SHAPE).run(x, noise=make_noise("torch-cpu", 3))
        model = Model(plan.parts, spoil)
        executor = DeviceExecutor(plan, model, SHAPE, place=Place.new(cupy))
        with pytest.raises(NonFiniteError) as caught:
            executor.run(x, noise=make_noise("torch-cpu", 3))
        assert str(caught.value) == str(expected.value)
        # and with a callback, which sees nothing of what is not finite
        seen: list[int] = []
        model.times.clear()
        with pytest.raises(NonFiniteError) as caught:
            executor.run(x, noise=make_noise("torch-cpu", 3), callback=lambda event, to=seen: to.append(event.index))
        assert str(caught.value) == str(expected.value)
        assert len(seen) == spoil[0]
        # what failed left nothing behind
        model.spoil = None
        good = Executor(plan, Model(plan.parts), SHAPE).run(x, noise=make_noise("torch-cpu", 3))
        for _ in range(3):
            _close(executor.run(x, noise=make_noise("torch-cpu", 3)), good)


def test_a_replayed_run_that_fails_is_named_too(cupy: Any) -> None:
    plan, x, model = _plan("dpmsolver++", order=2), _start(), Model()
    executor = DeviceExecutor(plan, model, SHAPE, place=Place.new(cupy))
    executor.run(x)
    executor.run(x)
    model.times.clear()
    model.spoil = (5, "first")
    with pytest.raises(NonFiniteError, match="the network returned NaN or infinity") as caught:
        executor.run(x)
    assert str(caught.value.got).startswith("call 6 of 8")


def test_noise_that_is_not_finite_is_named(cupy: Any) -> None:
    plan = _plan("ddim", eta=1.0)

    def spoiled(shape: tuple[int, ...]) -> Any:
        return np.full(shape, np.inf, np.float32)

    executor = DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy))
    with pytest.raises(NonFiniteError, match="the noise source gave NaN or infinity"):
        executor.run(_start(), noise=spoiled)
    with pytest.raises(ArrayError, match="the noise source gave the wrong shape"):
        executor.run(_start(), noise=lambda shape: np.zeros((1,), np.float32))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.zeros((1, 3, 5, 7), np.float32), "the initial state has the wrong shape"),
        (np.zeros(SHAPE, np.int32), "the initial state has the wrong dtype"),
        (np.full(SHAPE, np.nan, np.float32), "the initial state holds NaN or infinity"),
    ],
)
def test_a_wrong_start_is_refused_as_in_numpy(cupy: Any, x: Any, text: str) -> None:
    plan = _plan("ddim")
    with pytest.raises((ArrayError, NonFiniteError)) as expected:
        Executor(plan, Model(), SHAPE).run(x)
    with pytest.raises((ArrayError, NonFiniteError), match=text) as caught:
        DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy)).run(x)
    assert str(caught.value) == str(expected.value)


def test_a_capture_that_fails_falls_back_and_says_why(cupy: Any, caplog: pytest.LogCaptureFixture) -> None:
    plan, x = _plan("dpmsolver++", order=2), _start()
    expected = Executor(plan, Model(), SHAPE).run(x)
    for failure in ("begin", "within", "quietly"):
        place, model = Place.new(cupy), Model()
        executor = DeviceExecutor(plan, model, SHAPE, place=place)
        executor.run(x)
        if failure == "begin":
            place.stream.refuse_capture = cupy.cuda.runtime.CUDARuntimeError("cudaErrorNotSupported: no graphs here")
        elif failure == "quietly":
            # as where a library does what a capture forbids, and does not tell
            executor._script[2][1].insert(0, lambda to=place.stream: setattr(to, "invalidated", to.is_capturing()))
        else:
            # a network that waits for the device cannot be captured
            executor._script[2][1].insert(0, place.stream.synchronize)
        with caplog.at_level(logging.WARNING, "dpmrt"):
            caplog.clear()
            for _ in range(3):
                _close(executor.run(x), expected)
        assert not place.stream.is_capturing()
        assert len(caplog.records) == 1
        assert "could not be captured as a CUDA graph" in caplog.text
        assert "CUDARuntimeError" in (executor.trajectory.refused or "")


def test_another_state_of_the_model_makes_a_new_capture(cupy: Any) -> None:
    class Changing(Model):
        version = 0

        def state(self) -> Any:
            return self.version

    model = Changing()
    executor = DeviceExecutor(_plan("ddim"), model, SHAPE, place=Place.new(cupy))
    executor.run(_start())
    executor.run(_start())
    assert executor.trajectory.captured
    model.version = 1
    executor.run(_start())
    assert not executor.trajectory.captured
    executor.run(_start())
    assert executor.trajectory.captured


def test_run_plan_takes_its_namespace_from_the_state(cupy: Any) -> None:
    plan, x = _plan("ddim"), _start()

    def network(x: Any, t: Any) -> Any:
        assert isinstance(x, cupy.ndarray)
        return cupy.asarray(Model().network(x._host, float(t._host[0])).astype(x.dtype))

    got = run_plan(plan, network, cupy.asarray(x))
    assert isinstance(got, cupy.ndarray)
    _close(got.get(), run_plan(plan, Model(), x))


def test_noise_that_was_drawn_on_the_device_is_fetched(cupy: Any) -> None:
    plan, x = _plan("ddim", eta=1.0), _start()

    def draw(shape: Any) -> Any:
        return np.full(shape, 0.3, np.float32)

    got = DeviceExecutor(plan, Model(), SHAPE, place=Place.new(cupy)).run(x, noise=lambda s: cupy.asarray(draw(s)))
    _close(got, Executor(plan, Model(), SHAPE).run(x, noise=draw))


def test_what_cuda_refuses_is_a_typed_error(cupy: Any) -> None:
    fake_cupy.memory["free"] = 1000
    with pytest.raises(BackendError, match="the device's memory is exhausted"):
        DeviceExecutor(_plan("ddim"), Model(), (64, 3, 64, 64), place=Place.new(cupy))
    fake_cupy.memory["free"] = 1 << 30
    place = Place.new(cupy)
    with pytest.raises(BackendError, match="CUDA failed") as caught, place.work():
        raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access")
    assert "illegal memory access" in str(caught.value)
    with pytest.raises(ZeroDivisionError), place.work():
        _ = 1 / 0


def test_numpy_s_arrays_have_no_place() -> None:
    assert place_of(np.zeros(3)) is None
    assert place_of([1.0]) is None


@pytest.mark.parametrize("case", ["ddim", "heun", "learned range", "euler ancestral"])
def test_hooks_change_a_device_s_run_as_they_change_numpy_s(cupy: Any, case: str) -> None:
    class Both(Hook):
        def output(self, call: CallView) -> None:
            call.raw *= 0.9
            call.raw += 0.01 * call.x

        def state(self, step: StateView) -> None:
            step.x += 0.05

    plan, x = CASES[case](), _start()
    expected = Executor(plan, Model(plan.parts), SHAPE).run(x, noise=make_noise("torch-cpu", 3), hooks=[Both()])
    executor = DeviceExecutor(plan, Model(plan.parts), SHAPE, place=Place.new(cupy))
    for _ in range(3):
        _close(executor.run(x, noise=make_noise("torch-cpu", 3), hooks=[Both()]), expected, 1e-4)
    assert not executor.trajectory.captured
    plain = Executor(plan, Model(plan.parts), SHAPE).run(x, noise=make_noise("torch-cpu", 3))
    _close(executor.run(x, noise=make_noise("torch-cpu", 3)), plain, 1e-4)
