"""A network whose output has a second part that says the variance: plans, executor, and DDPMScheduler's two kinds."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trajectories import Config

from dpmrt.errors import ArrayError, NonFiniteError, OptionError, PlanError
from dpmrt.solvers_np import StepPlan, compile_plan, make_noise, make_schedule, plan_from_diffusers, run_plan
from dpmrt.solvers_np.execution.executor import Executor
from dpmrt.solvers_np.plans.instructions import LearnedRange, LearnedVariance

KINDS = ("learned", "learned_range")
PREDICTION = ("epsilon", "sample", "v_prediction")
Model = Callable[[np.ndarray, np.ndarray], np.ndarray]


def network(second: float | np.ndarray) -> Model:
    """Return a network whose second part is as given, and whose first is a function of the state."""

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.concatenate([np.tanh(x), np.broadcast_to(np.asarray(second, x.dtype), x.shape)], axis=1)

    return model


def first_part(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.tanh(x)


# What the plan says.


def test_the_plan_names_the_two_variances_of_every_step() -> None:
    plan = compile_plan("ddpm", "linear", 5, variance="learned_range")
    small, large = (compile_plan("ddpm", "linear", 5, variance=kind).noise for kind in ("fixed_small", "fixed_large"))
    assert plan.parts == 2
    assert plan.noise.tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert plan.noise_instruction[-1] == -1
    for row in range(4):
        found = plan.instructions[plan.noise_instruction[row]]
        assert isinstance(found, LearnedRange)
        assert found.log_small == pytest.approx(2 * math.log(small[row]))
        assert found.log_large == pytest.approx(2 * math.log(large[row]))


def test_a_plan_with_a_learned_variance_survives_its_file(tmp_path: Any) -> None:
    for kind in KINDS:
        plan = compile_plan("ddpm", "linear", 4, variance=kind)
        loaded = StepPlan.load(plan.save(tmp_path / "plan.steps"))
        assert loaded.parts == 2
        assert loaded.digest() == plan.digest()
        assert loaded.instructions == plan.instructions


def test_no_noise_at_the_end_unless_asked_for() -> None:
    assert compile_plan("ddpm", "linear", 5, variance="learned").draws == 4
    plan = compile_plan("ddpm", "linear", 5, variance="learned_range", noise_at_end=True)
    assert plan.draws == 5
    last = plan.instructions[plan.noise_instruction[-1]]
    assert isinstance(last, LearnedRange)
    assert last.log_small == pytest.approx(math.log(1e-20))


def test_one_part_cannot_hold_a_variance() -> None:
    plan = compile_plan("ddpm", "linear", 3, variance="learned")
    columns = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
    with pytest.raises(PlanError, match="needs an output of two parts"):
        StepPlan(**{**columns, "parts": 1})


# What the executor makes of it.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("end", "fixed"), [(-1.0, "fixed_small"), (1.0, "fixed_large")])
def test_the_ends_of_the_range_are_the_two_fixed_variances(end: float, fixed: str, dtype: type) -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 5)).astype(dtype)
    learned = run_plan(
        compile_plan("ddpm", "linear", 6, variance="learned_range"), network(end), x, noise=make_noise("numpy", 7)
    )
    want = run_plan(compile_plan("ddpm", "linear", 6, variance=fixed), first_part, x, noise=make_noise("numpy", 7))
    assert learned.dtype == dtype
    np.testing.assert_allclose(learned, want, rtol=1e-12 if dtype is np.float64 else 2e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 3, 2), (3, 2, 7, 5), (2, 4, 64, 33), (5, 3, 1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_has_its_own_variance(kind: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x, noise = rng.standard_normal(shape), rng.standard_normal((3, *shape))
    seconds = np.abs(rng.standard_normal((4, *shape))) if kind == "learned" else rng.uniform(-2, 2, (4, *shape))
    plan = compile_plan("ddpm", "linear", 4, variance=kind)
    calls = iter(seconds)

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.concatenate([np.tanh(x), next(calls)], axis=1)

    state = x.copy()
    for row in range(plan.rows):
        x0 = plan.convert[row, 0] * state + plan.convert[row, 1] * np.tanh(state)
        state = plan.weights[row, 0] * state + plan.weights[row, 1] * x0
        if row < 3:
            made = plan.instructions[plan.noise_instruction[row]]
            if isinstance(made, LearnedRange):
                part = (seconds[row] + 1) / 2
                variance = np.exp(part * made.log_large + (1 - part) * made.log_small)
            else:
                assert isinstance(made, LearnedVariance)
                variance = seconds[row]
            state += np.sqrt(variance) * noise[row]
    np.testing.assert_allclose(run_plan(plan, model, x, noise=noise), state, rtol=1e-12, atol=1e-12)


class Bound:
    """A model that writes into the buffers that it is handed, and notes what they were."""

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()

    def bind(self, x: np.ndarray, outputs: Sequence[np.ndarray]) -> Callable[[float, int], None]:
        self.shapes = {output.shape for output in outputs}
        inner = network(0.3)

        def call(t: float, slot: int) -> None:
            outputs[slot][...] = inner(x, np.full(len(x), t))

        return call


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 3), (3, 2, 4, 5)])
def test_a_bound_model_is_handed_twice_the_channels(shape: tuple[int, ...], dtype: type) -> None:
    plan, bound = compile_plan("ddpm", "linear", 5, variance="learned_range", clip=1.0), Bound()
    x = np.random.default_rng(2).standard_normal(shape).astype(dtype)
    executor = Executor(plan, bound, shape, dtype)
    assert bound.shapes == {(shape[0], 2 * shape[1], *shape[2:])}
    first = executor.run(x, noise=make_noise("numpy", 3))
    np.testing.assert_array_equal(first, run_plan(plan, network(0.3), x, noise=make_noise("numpy", 3)))
    np.testing.assert_array_equal(first, executor.run(x, noise=make_noise("numpy", 3)))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    plan = compile_plan("ddpm", "linear", 5, variance="learned_range")
    rng = np.random.default_rng(4)
    x, noise = rng.standard_normal((3, 2, 6)), rng.standard_normal((4, 3, 2, 6))

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.concatenate([np.tanh(x), np.sin(x)], axis=1)

    whole = run_plan(plan, model, x, noise=noise)
    for k in range(3):
        alone = run_plan(plan, model, x[k : k + 1], noise=noise[:, k : k + 1])
        np.testing.assert_allclose(whole[k : k + 1], alone, rtol=1e-12)


def test_an_output_of_one_part_is_refused() -> None:
    plan = compile_plan("ddpm", "linear", 3, variance="learned")
    with pytest.raises(ArrayError, match=r"(?s)output has the wrong shape.*\(2, 3, 4\).*\(2, 6, 4\)"):
        run_plan(plan, first_part, np.ones((2, 3, 4)))
    with pytest.raises(ArrayError, match=r"(?s)output has the wrong shape.*\(2, 6, 4\).*\(2, 3, 4\)"):
        run_plan(compile_plan("ddpm", "linear", 3), network(0.0), np.ones((2, 3, 4)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("learned", -0.1),
        ("learned", math.nan),
        ("learned", math.inf),
        ("learned_range", math.nan),
        ("learned_range", 1e9),
    ],
)
def test_a_second_part_that_makes_no_variance_is_the_network_s_fault(kind: str, bad: float, dtype: type) -> None:
    plan, shape = compile_plan("ddpm", "linear", 4, variance=kind), (2, 3, 4)
    x, second, calls = np.ones(shape, dtype), np.full(shape, 0.5), iter(range(4))
    worse = second.copy()
    worse[1, 2, 3] = bad

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return network(worse if next(calls) == 1 else second)(x, t)

    executor = Executor(plan, model, shape, dtype)
    with pytest.raises(NonFiniteError, match=r"(?s)second part.* makes no variance.*call 2 of 4.*none below zero"):
        executor.run(x)
    calls = iter([0, 0, 0, 0])
    assert np.isfinite(executor.run(x)).all()  # nothing of the failed run is left


def test_a_broken_first_part_and_broken_noise_are_told_apart() -> None:
    plan, x = compile_plan("ddpm", "linear", 4, variance="learned"), np.ones((2, 3))

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.concatenate([x * math.nan, x * 0 + 1], axis=1)

    with pytest.raises(NonFiniteError, match="the network returned NaN or infinity"):
        run_plan(plan, model, x)
    with pytest.raises(NonFiniteError, match="the noise source gave NaN or infinity"):
        run_plan(plan, network(0.5), x, noise=lambda shape: np.full(shape, math.nan))


def test_an_unread_second_part_may_hold_anything() -> None:
    plan = compile_plan("ddpm", "linear", 1, variance="learned")
    assert plan.draws == 0
    assert np.isfinite(run_plan(plan, network(math.nan), np.ones((2, 3)))).all()


def test_the_caller_s_noise_is_left_as_it_was() -> None:
    plan, noise = compile_plan("ddpm", "linear", 3, variance="learned"), np.ones((2, 1, 2))
    run_plan(plan, network(0.25), np.ones((1, 2)), noise=noise)
    np.testing.assert_array_equal(noise, 1.0)


# DDPMScheduler.


@pytest.mark.parametrize("prediction", PREDICTION)
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_ddpm_scheduler(check: Callable, spacing: str, prediction: str) -> None:
    choice = random.Random(spacing + prediction).choice
    schedules = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace")
    for kind, schedule in itertools.product(KINDS, schedules):
        config = {
            "_class_name": "DDPMScheduler",
            "variance_type": kind,
            "beta_schedule": schedule,
            "prediction_type": prediction,
            "timestep_spacing": spacing,
            "steps_offset": choice((0, 1)),
            "clip_sample": choice((True, False)),
            "thresholding": choice((True, False, False)),
        }
        for steps in (choice((1, 2, 3)), choice((10, 25))):
            check(config, steps, single=1e-5)


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    flag, pick = st.booleans(), st.sampled_from
    return {
        "_class_name": "DDPMScheduler",
        "variance_type": draw(pick(KINDS)),
        "num_train_timesteps": draw(st.integers(20, 1200)),
        "beta_schedule": draw(pick(["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])),
        "beta_start": draw(st.floats(1e-5, 1e-3)),
        "beta_end": draw(st.floats(2e-3, 0.05)),
        "prediction_type": draw(pick(PREDICTION)),
        "timestep_spacing": draw(pick(["linspace", "leading", "trailing"])),
        "clip_sample": draw(flag),
        "clip_sample_range": draw(st.floats(0.5, 3.0)),
    }


@given(config=configurations(), steps=st.integers(1, 30))
def test_drawn_configurations(peer: Any, check: Callable, config: Config, steps: int) -> None:
    assume(steps <= config["num_train_timesteps"] // 2)
    assume(peer.scheduler(config, steps).timesteps.min() >= 0)
    check(config, steps)


def test_ddpm_scheduler_with_listed_times(check: Callable) -> None:
    for kind in KINDS:
        check({"_class_name": "DDPMScheduler", "variance_type": kind, "timesteps": [900, 500, 499, 3]}, 4)
    with pytest.raises(OptionError, match="timesteps must be a row"):
        plan_from_diffusers({"_class_name": "DDPMScheduler", "timesteps": [900, 3]}, 3)


def test_a_plan_of_learned_variance_draws_the_right_spread() -> None:
    """With x0 known, each step's noise has the variance that the network says, between beta-tilde and beta."""
    schedule = make_schedule("linear")
    plan = compile_plan("ddpm", schedule, 3, variance="learned_range", prediction="sample")
    x, many = np.zeros((1, 1, 40_000)), network(0.0)
    first: list[np.ndarray] = []
    run_plan(
        plan,
        lambda x, t: many(x, t) * 0.0,
        x,
        noise=make_noise("numpy", 5),
        callback=lambda event: first.append(event.x.copy()),
    )
    made = plan.instructions[plan.noise_instruction[0]]
    assert isinstance(made, LearnedRange)
    assert math.log(first[0].var()) == pytest.approx((made.log_small + made.log_large) / 2, abs=0.05)
