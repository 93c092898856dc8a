"""The executor: what a plan's columns do, who owns the memory, and what it says when something is wrong."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dpmrt.errors import ArrayError, NonFiniteError, SamplingCancelled
from dpmrt.solvers_np import (
    Clip,
    Discard,
    DynamicThreshold,
    Executor,
    Langevin,
    NumpyNoise,
    RowList,
    StepEvent,
    StepPlan,
    TorchCPUNoise,
    compile_plan,
    randn,
    run_plan,
)


def shrink(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    return 0.5 * x


class Halving:
    """A bindable model that writes half its input, and notes which buffers it was given."""

    def bind(self, x: np.ndarray, outputs: Sequence[np.ndarray]) -> Callable[[float, int], None]:
        self.x, self.outputs = x, list(outputs)
        self.calls: list[tuple[float, int]] = []

        def call(t: float, slot: int) -> None:
            self.calls.append((t, slot))
            np.multiply(x, 0.5, out=outputs[slot])

        return call


# What the columns do.


@st.composite
def plans(draw: st.DrawFn) -> StepPlan:
    """Draw a plan of any shape that reads only what was written."""
    slots, numbers = draw(st.integers(1, 4)), st.floats(-1.5, 1.5).map(lambda v: round(v, 3))
    limits = st.sampled_from([None, None, Clip(0.7), DynamicThreshold(0.8, 1.5)])
    rows, written = RowList(slots), set()
    for t in range(draw(st.integers(1, 8))):
        slot, out, keep = (draw(st.integers(low, slots - 1)) for low in (0, 0, -1))
        called = t == 0 or draw(st.booleans())
        written |= ({slot, out} if called else set()) | ({keep} - {-1})
        common = {
            "state": draw(numbers),
            "history": {k: draw(numbers) for k in sorted(written) if draw(st.booleans())},
            "noise": draw(st.sampled_from([0.0, 0.3])),
            "keep": keep,
        }
        if not called:
            rows.move(**common)
            continue
        limit = draw(limits)
        steps = [None, Langevin(0.3), Langevin(0.2, True)] if limit is None and common["noise"] else [None]
        rows.call(
            float(t),
            slot,
            out=out,
            level=(0.6, 0.8),
            convert=(draw(numbers), draw(numbers)),
            instruction=limit,
            noise_instruction=draw(st.sampled_from(steps)),
            restore=(draw(numbers), draw(numbers)),
            in_scale=draw(st.sampled_from([1.0, 1.0, 0.5])),
            **common,
        )
    return rows.plan()


def by_the_book(plan: StepPlan, model: Callable, x: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Do what the docstring of plan.py says, a line at a time."""
    slots, draws = [np.zeros_like(x) for _ in range(plan.slots)], iter(noise)
    for row in range(plan.rows):
        q, out, keep = int(plan.quantity[row]), int(plan.out[row]), int(plan.keep[row])
        if out >= 0:
            slots[out] = model(plan.in_scale[row] * x, np.full(len(x), plan.t[row]))
            slots[q] = plan.convert[row, 0] * x + plan.convert[row, 1] * slots[out]
            if plan.instruction[row] >= 0:
                slots[q] = limited(plan.instructions[plan.instruction[row]], slots[q])
            slots[q] = plan.restore[row, 0] * x + plan.restore[row, 1] * slots[q]
        if keep >= 0:
            slots[keep] = x
        z = next(draws) if plan.noise[row] != 0 else 0.0
        if plan.noise_instruction[row] >= 0:
            h = step_of(plan.instructions[plan.noise_instruction[row]], slots[q], z)
            slots[q], z = h**2 * slots[q], h * z
        x = plan.weights[row, 0] * x + sum(w * s for w, s in zip(plan.weights[row, 1:], slots))
        x = x + plan.noise[row] * z
    return x


def step_of(instruction: Langevin, score: np.ndarray, z: np.ndarray) -> np.ndarray:
    norms = [np.linalg.norm(a.reshape(len(a), -1), axis=1) for a in (score, z)]
    if not instruction.per_sample:
        norms = [np.full_like(norm, norm.mean()) for norm in norms]
    assume(norms[0].min() > 1e-6)  # a score of zeros is an error
    return (instruction.snr * norms[1] / norms[0]).reshape(-1, *[1] * (score.ndim - 1))


def limited(instruction: Clip | DynamicThreshold, x0: np.ndarray) -> np.ndarray:
    if isinstance(instruction, Clip):
        return np.clip(x0, -instruction.limit, instruction.limit)
    s = np.quantile(np.abs(x0).reshape(len(x0), -1), instruction.ratio, axis=1)
    s = np.clip(s, 1.0, instruction.limit).reshape(-1, *[1] * (x0.ndim - 1))
    return np.clip(x0, -s, s) / s


@given(plan=plans())
def test_any_plan_does_what_its_columns_say(plan: StepPlan) -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 3, 2)), rng.standard_normal((plan.draws, 2, 3, 2))

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.sin(x) + 0.1 * t[0]

    want = by_the_book(plan, model, x, noise)
    got = run_plan(plan, model, x, noise=noise if plan.stochastic else None)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * (1 + np.abs(want).max()))


def test_heun_s_method_as_a_plan_of_two_stages() -> None:
    a, h, steps = -0.8, 0.1, 10
    rows = RowList(slots=3)
    for i in range(steps):
        rows.call(i * h, 0, level=(1.0, 0.0), state=1.0, history={0: h}, keep=2)
        rows.call((i + 1) * h, 1, level=(1.0, 0.0), state=0.0, history={0: h / 2, 1: h / 2, 2: 1.0})
    x = np.array([[1.0, -2.0]])
    result = run_plan(rows.plan(), lambda x, t: a * x, x)
    np.testing.assert_allclose(result, x * (1 + a * h + (a * h) ** 2 / 2) ** steps, rtol=1e-13)


def test_a_restart_from_a_kept_state() -> None:
    rows = RowList(slots=2)
    rows.call(2.0, 0, level=(0.6, 0.8), state=0.0, history={0: 1.0}, keep=1)
    rows.move(state=0.0, history={1: 1.0}, noise=0.25)
    rows.call(2.0, 0, level=(0.6, 0.8), state=1.0, history={0: 2.0})
    x, z = np.ones((1, 3)), np.full((1, 1, 3), 4.0)
    seen: list[float] = []
    events: list[int] = []
    result = run_plan(
        rows.plan(),
        lambda x, t: seen.append(float(x[0, 0])) or 0.5 * x,
        x,
        noise=z,
        callback=lambda event: events.append(event.index),
    )
    assert seen == [1.0, 2.0]
    assert events == [0, 1]  # a row without a call is no event
    np.testing.assert_allclose(result, 2.0 + 2 * 1.0)


def test_the_input_is_scaled_for_the_network_only() -> None:
    rows = RowList(slots=1)
    rows.call(3.0, 0, level=(1.0, 4.0), state=1.0, history={0: 1.0}, in_scale=0.25)
    rows.move(state=2.0, history={})
    rows.call(2.0, 0, level=(1.0, 2.0), state=1.0, history={0: 0.0}, in_scale=0.5)
    seen = []
    result = run_plan(rows.plan(), lambda x, t: seen.append(x.copy()) or np.ones_like(x), np.full((1, 2), 8.0))
    assert [float(x[0, 0]) for x in seen] == [2.0, 9.0]
    np.testing.assert_allclose(result, 18.0)


def test_clip_and_restore() -> None:
    rows = RowList(slots=1)
    rows.call(1.0, 0, level=(1.0, 1.0), state=0.0, history={0: 1.0}, instruction=Clip(0.5), restore=(1.0, -2.0))
    x = np.array([[1.0, 1.0, 1.0]])
    result = run_plan(rows.plan(), lambda x, t: np.array([[-3.0, 0.25, 3.0]]), x)
    np.testing.assert_allclose(result, [[2.0, 0.5, 0.0]])


@pytest.mark.parametrize("ratio", [0.01, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("limit", [1.0, 1.7, 100.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_dynamic_thresholding_is_torch_s_quantile(ratio: float, limit: float, dtype: type, size: int) -> None:
    torch = pytest.importorskip("torch")
    rows = RowList(slots=1)
    rows.call(1.0, 0, level=(1.0, 1.0), state=0.0, history={0: 1.0}, instruction=DynamicThreshold(ratio, limit))
    x0 = 2 * np.random.default_rng(size).standard_normal((3, size)).astype(dtype)
    tensor = torch.from_numpy(x0)
    s = torch.quantile(tensor.abs(), ratio, dim=1).clamp(min=1, max=limit).unsqueeze(1)
    want = (torch.clamp(tensor, -s, s) / s).numpy()
    result = run_plan(rows.plan(), lambda x, t: x0, np.zeros_like(x0))
    np.testing.assert_allclose(result, want, rtol=4 * np.finfo(dtype).eps)


# Memory.


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("dpmsolver++", {"order": 3}),
        ("dpmsolver", {"order": 2, "clip": 1.0}),
        ("sde-dpmsolver++", {"threshold": 0.995, "threshold_max": 2.0}),
        ("ddim", {"eta": 1.0, "clip": 1.0}),
        ("ddpm", {}),
    ],
)
def test_the_loop_allocates_nothing_as_large_as_the_latents(solver: str, options: dict[str, Any]) -> None:
    plan = compile_plan(solver, "linear", 6, **options)
    shape = (2, 4, 256, 256)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    noise = np.broadcast_to(x, (plan.draws, *shape)) if plan.stochastic else None
    executor, peaks = Executor(plan, Halving(), shape), []
    executor.run(x, noise=noise)
    tracemalloc.start()
    try:
        start = tracemalloc.get_traced_memory()[0]
        executor.run(x, noise=noise, callback=lambda event: peaks.append(tracemalloc.get_traced_memory()[1] - start))
        whole = tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()
    assert max(peaks[1:]) - peaks[0] < x.nbytes / 50
    checked = x.nbytes * plan.draws // 4 if plan.stochastic else 0  # recorded noise is checked once, before the loop
    assert max(peaks) < x.nbytes / 50 + checked
    assert whole < 1.02 * x.nbytes + checked


def test_the_result_belongs_to_the_caller() -> None:
    executor = Executor(compile_plan("ddim", "linear", 5), shrink, (1, 4))
    first = executor.run(np.ones((1, 4)))
    kept = first.copy()
    second = executor.run(np.full((1, 4), 3.0))
    np.testing.assert_array_equal(first, kept)
    assert not np.shares_memory(first, second)
    first[:] = 0
    np.testing.assert_array_equal(executor.run(np.ones((1, 4))), kept)


def test_the_initial_state_is_left_alone() -> None:
    x = np.ones((1, 4), np.float32)
    run_plan(compile_plan("ddim", "linear", 5), shrink, x)
    assert (x == 1).all()


@pytest.mark.parametrize(
    ("given_as", "state"),
    [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64), (">f4", np.float32)],
)
def test_the_dtype_of_the_state(given_as: Any, state: type) -> None:
    seen = []

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        seen.append((x.dtype, t.dtype, t.shape))
        return x.astype(np.float64)

    result = run_plan(compile_plan("ddim", "linear", 2), model, np.ones((3, 2), given_as))
    assert result.dtype == state
    assert seen == [(state, state, (3,))] * 2


def test_float64_is_float64_throughout() -> None:
    plan = compile_plan("dpmsolver++", "linear", 12)
    x = np.random.default_rng(0).standard_normal((1, 8))
    wide, single = run_plan(plan, shrink, x), run_plan(plan, shrink, x.astype(np.float32))
    want = by_the_book(plan, shrink, x, np.empty(0))
    assert np.abs(wide - want).max() < 1e-13
    assert 1e-13 < np.abs(single - want).max() < 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (2, 1, 5, 7), (1, 3, 200, 200)])
def test_a_bound_model_gets_buffers_that_stay_and_do_not_overlap(shape: tuple[int, ...]) -> None:
    model = Halving()
    plan = compile_plan("dpmsolver++", "linear", 7, order=3)
    executor = Executor(plan, model, shape)
    buffers = [model.x, *model.outputs]
    addresses = [b.ctypes.data for b in buffers]
    assert len(model.outputs) == plan.slots
    assert all(b.shape == shape and b.flags.c_contiguous and b.ctypes.data % 64 == 0 for b in buffers)
    for i, a in enumerate(buffers):
        assert not any(np.may_share_memory(a, b) for b in buffers[i + 1 :])
    x = randn(shape, 0)
    first = executor.run(x)
    second = executor.run(x)
    assert [b.ctypes.data for b in (model.x, *model.outputs)] == addresses
    assert model.calls == list(zip(plan.timesteps.tolist(), plan.out.tolist())) * 2
    assert first.tobytes() == second.tobytes() == run_plan(plan, shrink, x).tobytes()


def test_a_size_beyond_one_chunk_gives_the_same_numbers() -> None:
    plan = compile_plan("dpmsolver++", "linear", 5)
    x = np.random.default_rng(0).standard_normal((1, 100_001))
    np.testing.assert_allclose(run_plan(plan, shrink, x), by_the_book(plan, shrink, x, np.empty(0)), atol=1e-13)


# Noise.

STOCHASTIC = compile_plan("ddpm", "linear", 4)  # three draws: none in the last step


def test_every_form_of_noise_gives_the_same_numbers() -> None:
    x = randn((2, 16), 7)
    source = TorchCPUNoise(0)
    drawn = np.stack([source.normal((2, 16)) for _ in range(3)])
    default = run_plan(STOCHASTIC, shrink, x)
    remaining = iter(drawn)
    for noise in (TorchCPUNoise(0), drawn, np.concatenate([drawn, drawn]), lambda shape: next(remaining)):
        assert run_plan(STOCHASTIC, shrink, x, noise=noise).tobytes() == default.tobytes()
    assert run_plan(STOCHASTIC, shrink, x, noise=NumpyNoise(0)).tobytes() != default.tobytes()


def test_a_generator_goes_on_from_run_to_run() -> None:
    x, source = randn((1, 16), 7), TorchCPUNoise(0)
    first, second = (run_plan(STOCHASTIC, shrink, x, noise=source) for _ in range(2))
    assert first.tobytes() != second.tobytes()


def test_draws_are_consumed_in_plan_order() -> None:
    rows = RowList(slots=1)
    for weight in (100.0, 0.0, 10.0, 1.0):
        rows.call(1.0, 0, level=(1.0, 1.0), state=1.0, history={}, noise=weight)
    noise = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(run_plan(rows.plan(), shrink, np.zeros((1, 1)), noise=noise), 123.0)


NOISE_ERRORS = [
    (np.zeros((2, 1, 4)), r"does not fit the plan\n.*shape \(2, 1, 4\)\n.*\(3, 1, 4\): one draw for each row"),
    (np.zeros((3, 4)), r"the recorded noise does not fit the plan\n.*shape \(3, 4\)"),
    (np.zeros((3, 1, 5)), r"the recorded noise does not fit the plan\n.*shape \(3, 1, 5\)"),
    (0.0, r"the recorded noise does not fit the plan\n.*shape \(\)"),
    (np.full((3, 1, 4), np.nan), "the recorded noise holds NaN or infinity"),
    (lambda shape: np.zeros(4), r"the noise source gave the wrong shape\n.*\(4,\)\n.*\(1, 4\)"),
]


@pytest.mark.parametrize(("noise", "text"), NOISE_ERRORS)
def test_wrong_noise_is_refused(noise: Any, text: str) -> None:
    with pytest.raises(ArrayError, match=text):
        run_plan(STOCHASTIC, shrink, np.ones((1, 4)), noise=noise)


def test_recorded_noise_is_checked_before_the_first_call() -> None:
    with pytest.raises(ArrayError, match="does not fit"):
        run_plan(STOCHASTIC, lambda x, t: pytest.fail("it was called"), np.ones((1, 4)), noise=np.zeros((1, 1, 4)))


# Callbacks.


def test_events() -> None:
    plan, events = compile_plan("dpmsolver++", "linear", 4), []
    result = run_plan(
        plan, shrink, np.ones((1, 2)), callback=lambda e: events.append((e.index, e.total, e.t, e.x.copy()))
    )
    assert [(index, total, t) for index, total, t, _ in events] == [(i, 4, t) for i, t in enumerate(plan.timesteps)]
    np.testing.assert_array_equal(events[-1][3], result)


def test_each_event_is_its_own_and_its_state_is_live_and_read_only() -> None:
    events: list[StepEvent] = []
    states = []

    def look(event: StepEvent) -> None:
        with pytest.raises(ValueError, match="read-only"):
            event.x[...] = 0
        events.append(event)
        states.append(event.x.copy())

    result = run_plan(compile_plan("ddim", "linear", 4), shrink, np.ones((1, 2)), callback=look)
    assert [event.index for event in events] == [0, 1, 2, 3]
    np.testing.assert_array_equal(events[0].x, result)
    np.testing.assert_array_equal(states[-1], result)


def test_a_model_that_spoils_its_input_does_not_reach_the_state() -> None:
    def spoil(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        answer = shrink(x, t)
        x *= 0
        t *= 0
        return answer

    plan = compile_plan("dpmsolver++", "linear", 4)
    np.testing.assert_array_equal(run_plan(plan, spoil, np.ones((1, 2))), run_plan(plan, shrink, np.ones((1, 2))))


def test_nan_from_a_noise_function_is_not_blamed_on_the_network() -> None:
    plan = compile_plan("ddim", "linear", 4, eta=1.0)
    with pytest.raises(NonFiniteError, match=r"the noise source gave NaN or infinity\n.*call 1 of 4"):
        run_plan(plan, shrink, np.ones((1, 2)), noise=lambda shape: np.full(shape, np.nan))


@pytest.mark.parametrize("noise", [np.ones((9, 1, 2), np.int64), np.full((9, 1, 2), "a")])
def test_noise_that_is_no_number_is_refused(noise: np.ndarray) -> None:
    with pytest.raises(ArrayError, match="the recorded noise has the wrong dtype"):
        run_plan(compile_plan("ddim", "linear", 4, eta=1.0), shrink, np.ones((1, 2)), noise=noise)


def test_cancel() -> None:
    executor = Executor(compile_plan("ddim", "linear", 5), shrink, (1, 2))
    whole = executor.run(np.ones((1, 2)))

    def stop(event: StepEvent) -> None:
        if event.index == 2:
            event.cancel()

    with pytest.raises(SamplingCancelled, match=r"cancelled by its callback\n.*after call 3 of 5"):
        executor.run(np.ones((1, 2)), callback=stop)
    np.testing.assert_array_equal(executor.run(np.ones((1, 2))), whole)


# What goes wrong.


def broken_at(call: int, value: float = math.nan) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    count = iter(range(1000))

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        out = 0.5 * x
        if next(count) == call:
            out[0, 1] = value
        return out

    return model


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpmsolver", "dpmsolver++", "sde-dpmsolver++"])
def test_nan_from_the_network_is_named_with_call_and_time(solver: str, value: float) -> None:
    plan = compile_plan(solver, "linear", 5)
    text = r"the network returned NaN or infinity\n.*call 3 of 5, t = 599\n"
    with pytest.raises(NonFiniteError, match=text) as caught:
        run_plan(plan, broken_at(2, value), np.ones((1, 4)))
    assert "float32" in str(caught.value)


def test_nan_behind_a_limit_is_named_too() -> None:
    plan = compile_plan("ddim", "linear", 5, threshold=0.9)
    with pytest.raises(NonFiniteError, match=r"NaN or infinit.*\n.*call 3 of 5, t = 599"):
        run_plan(plan, broken_at(2), np.ones((1, 4)))


def test_a_state_that_overflows_is_named() -> None:
    plan = compile_plan("ddim", "linear", 5)
    with pytest.raises(NonFiniteError, match=r"the state became NaN or infinite\n.*call 1 of 5, t = 999"):
        run_plan(plan, lambda x, t: np.full_like(x, 3e38), np.ones((1, 4), np.float32))


def test_large_but_finite_numbers_pass() -> None:
    rows = RowList(slots=1)
    rows.call(1.0, 0, level=(1.0, 1.0), state=1.0, history={0: 0.0})
    x = np.full((1, 4), 3e30, np.float32)  # its square overflows
    np.testing.assert_array_equal(run_plan(rows.plan(), shrink, x), x)


def test_nan_in_the_initial_state_is_found_before_the_first_call() -> None:
    x = np.ones((2, 3))
    x[1, 2] = np.nan
    with pytest.raises(NonFiniteError, match=r"the initial state holds NaN or infinity\n.*nan at \(1, 2\)"):
        run_plan(compile_plan("ddim", "linear", 5), lambda x, t: pytest.fail("it was called"), x)


def test_an_executor_runs_again_after_a_failure() -> None:
    executor = Executor(compile_plan("sde-dpmsolver++", "linear", 5), broken_at(1), (1, 4))
    with pytest.raises(NonFiniteError, match="the network returned NaN"):
        executor.run(np.ones((1, 4)))
    assert np.isfinite(executor.run(np.ones((1, 4)))).all()


ARRAYS = [
    (np.ones(4), r"the shape needs a batch axis and at least one more\n.*\(4,\)"),
    (np.float64(1), r"the shape needs a batch axis and at least one more\n.*\(\)"),
    (np.ones((0, 4)), r"the shape needs a batch axis and at least one more\n.*\(0, 4\)"),
    (np.ones((1, 4), int), r"the initial state has the wrong dtype\n.*int64\n.*floating-point"),
    (np.ones((1, 4), complex), r"the initial state has the wrong dtype\n.*complex128"),
]


@pytest.mark.parametrize(("x", "text"), ARRAYS)
def test_a_wrong_initial_state_is_refused(x: np.ndarray, text: str) -> None:
    with pytest.raises(ArrayError, match=text):
        run_plan(compile_plan("ddim", "linear", 2), shrink, x)


def test_an_executor_refuses_another_shape_or_dtype() -> None:
    plan = compile_plan("ddim", "linear", 2)
    with pytest.raises(ArrayError, match=r"wrong shape\n.*\(2, 4\)\n.*\(1, 4\)"):
        Executor(plan, shrink, (1, 4)).run(np.ones((2, 4)))
    with pytest.raises(ArrayError, match=r"the state must be float32 or float64\n.*float16"):
        Executor(plan, shrink, (1, 4), np.float16)


def test_a_network_that_answers_in_another_shape_is_refused() -> None:
    with pytest.raises(ArrayError, match=r"the network's output has the wrong shape\n.*\(1, 8\)\n.*\(1, 4\)"):
        run_plan(compile_plan("ddim", "linear", 2), lambda x, t: np.ones((1, 8)), np.ones((1, 4)))


@pytest.mark.parametrize("rows_that_add", [(0, 2), (2,)])
def test_discarded_noise_is_drawn_and_left_out(rows_that_add: tuple[int, ...]) -> None:
    """A plan that shares a generator with diffusers draws in every step, used or not."""
    rows = RowList(slots=1)
    for k in range(3):
        adds = k in rows_that_add
        rows.call(
            float(3 - k),
            0,
            level=(1.0, 0.0),
            state=1.0,
            history={0: 0.0},
            noise=1.0 if adds else 0.0,
            noise_instruction=None if adds else Discard(),
        )
    plan = rows.plan()
    draws = np.array([[[1.0]], [[10.0]], [[100.0]]])
    assert (plan.draws, plan.noisy.tolist()) == (3, [True] * 3)
    got = run_plan(plan, lambda x, t: 0 * x, np.zeros((1, 1)), noise=draws)
    assert got[0, 0] == sum(draws[k, 0, 0] for k in rows_that_add)
    assert StepPlan.from_bytes(plan.to_bytes()).digest() == plan.digest()


def test_a_plan_that_only_discards_draws_nothing() -> None:
    rows = RowList(slots=1)
    rows.call(1.0, 0, level=(1.0, 0.0), state=1.0, history={0: 0.0}, noise_instruction=Discard())
    plan = rows.plan()
    assert (plan.stochastic, plan.draws) == (False, 0)


class Spans:
    """A source that writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        raise AssertionError("a source with between is not asked for normal")

    def between(self, shape: tuple[int, ...], start: float, end: float) -> np.ndarray:
        self.asked.append((start, end))
        return np.zeros(shape)


def test_a_source_is_asked_with_the_interval_that_its_noise_crosses() -> None:
    plan, source = compile_plan("ddpm", "linear", 5), Spans()
    run_plan(plan, lambda x, t: 0 * x, np.ones((1, 2)), noise=source)
    shares = plan.sigma**2
    assert source.asked == [pytest.approx(pair) for pair in itertools.pairwise(shares)]
