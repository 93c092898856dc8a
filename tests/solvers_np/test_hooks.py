"""Hooks: what a run shows them, and that what they change is what the solver goes on with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hooks_seen import Seen, Shift, ToX0

from dpmrt.errors import NonFiniteError, OptionError
from dpmrt.solvers_np import CallView, Executor, Hook, StateView, StepPlan, compile_plan, make_schedule, run_plan
from dpmrt.solvers_np.execution.hooks import match_state

X = np.random.default_rng(3).standard_normal((2, 3, 4))


def _model(x: Any, t: Any) -> Any:
    return np.sin(x) * 0.8


def _plan(solver: str = "dpmsolver++", steps: int = 6, **options: Any) -> StepPlan:
    return compile_plan(solver, make_schedule("linear"), steps, **options)


@pytest.mark.parametrize("solver", ["ddim", "heun", "euler", "unipc", "dpmsolver++", "lms", "pndm"])
def test_hooks_that_change_nothing_change_nothing_and_see_every_call_and_row(solver: str) -> None:
    plan, seen = _plan(solver, 12), Seen()
    np.testing.assert_array_equal(run_plan(plan, _model, X, hooks=[seen]), run_plan(plan, _model, X))
    assert seen.plans == [plan]
    assert [call.t for call in seen.calls] == list(plan.timesteps)
    assert [call.index for call in seen.calls] == list(range(plan.calls))
    rows = np.flatnonzero(plan.out >= 0)
    assert [call.row for call in seen.calls] == rows.tolist()
    assert [call.level.alpha for call in seen.calls] == plan.alpha[rows].tolist()
    assert [step.row for step in seen.steps] == list(range(plan.rows))
    assert [step.last for step in seen.steps] == [False] * (plan.rows - 1) + [True]
    assert [step.calls for step in seen.steps] == np.cumsum(plan.out >= 0).tolist()
    end = seen.steps[-1].level
    assert end is not None
    assert (end.alpha, end.sigma) == plan.end


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "euler", "heun", "dpmsolver", "dpmsolver++", "unipc", "deis"])
def test_a_correction_of_x0_serves_every_solver(solver: str, prediction: str) -> None:
    plan = _plan(solver, 8, prediction=prediction)
    x = X * plan.init_scale
    assert abs(run_plan(plan, _model, x) - 0.25).max() > 0.1
    got = run_plan(plan, _model, x, hooks=[ToX0(prediction, 0.25)], noise=lambda shape: np.zeros(shape))
    # a network that knows x0 is led to it, up to the noise that a last state of finite level still holds
    perfect = run_plan(plan, _Knows(prediction, plan), x, noise=lambda shape: np.zeros(shape))
    np.testing.assert_allclose(got, perfect, atol=1e-9)


class _Knows:
    """A model that answers as if x0 were 0.25, written as a network is, to compare with the hook."""

    def __init__(self, prediction: str, plan: StepPlan) -> None:
        self.prediction, self.plan = prediction, plan
        self.row = iter(np.flatnonzero(plan.out >= 0))

    def __call__(self, x: Any, t: Any) -> Any:
        row = int(next(self.row))
        alpha, sigma, scale = self.plan.alpha[row], self.plan.sigma[row], self.plan.in_scale[row]
        x = x / scale
        eps = (x - alpha * 0.25) / sigma
        if self.prediction == "epsilon":
            return eps
        if self.prediction == "sample":
            return np.full_like(x, 0.25)
        root = np.hypot(alpha, sigma)
        return (alpha * eps - sigma * 0.25) / (1.0 if scale == 1 else root)


@pytest.mark.parametrize("solver", ["ddim", "euler"])
def test_a_changed_state_is_what_the_network_sees_next(solver: str) -> None:
    plan = _plan(solver, 5)
    inputs: list[Any] = []

    def network(x: Any, t: Any) -> Any:
        inputs.append(x.copy())
        return 0 * x

    run_plan(plan, network, X)
    plain, inputs[:] = list(inputs), []
    run_plan(plan, network, X, hooks=[Shift(1.0)])
    scales = plan.in_scale[plan.out >= 0]
    np.testing.assert_allclose(inputs[0], plain[0])
    np.testing.assert_allclose(inputs[1] / scales[1], plain[1] / scales[1] + 1.0, rtol=1e-12)


def test_what_is_assigned_to_a_view_is_copied_into_the_run() -> None:
    class Halve(Hook):
        def output(self, call: CallView) -> None:
            call.raw = call.raw * 0.5

        def state(self, step: StateView) -> None:
            step.x = step.x + 1.0

    class InPlace(Hook):
        def output(self, call: CallView) -> None:
            call.raw[...] *= 0.5

        def state(self, step: StateView) -> None:
            step.x[...] += 1.0

    plan = _plan("euler", 4)
    assigned = run_plan(plan, _model, X, hooks=[Halve()])
    np.testing.assert_array_equal(assigned, run_plan(plan, _model, X, hooks=[InPlace()]))
    assert abs(assigned - run_plan(plan, _model, X)).max() > 0.1


def test_a_hook_may_change_the_start() -> None:
    class Start(Hook):
        def start(self, run: Any) -> None:
            run.x[...] = 2.0

    plan = _plan("euler", 4)
    expected = run_plan(plan, _model, np.full_like(X, 2.0))
    np.testing.assert_array_equal(run_plan(plan, _model, X, hooks=[Start()]), expected)


def test_hooks_run_in_order_and_callbacks_see_their_work() -> None:
    plan, states = _plan("ddim", 3), []
    executor = Executor(plan, _model, X.shape, np.float64)

    class Double(Hook):
        def state(self, step: StateView) -> None:
            step.x *= 2

    got = executor.run(X, hooks=[Shift(1.0), Double()], callback=lambda event: states.append(event.x.copy()))
    np.testing.assert_array_equal(states[-1], got)
    assert abs(got - executor.run(X, hooks=[Double(), Shift(1.0)])).max() > 0.1
    np.testing.assert_array_equal(executor.run(X), run_plan(plan, _model, X))


def test_the_state_and_the_second_part_are_shown_to_the_hook_of_an_output() -> None:
    plan, seen = _plan("ddpm", 4, variance="learned_range"), Seen()
    run_plan(plan, lambda x, t: np.concatenate([np.sin(x), np.cos(x)], axis=1), X, hooks=[seen])
    assert all(call.second.shape == X.shape for call in seen.calls)
    with pytest.raises(ValueError, match="read-only"):
        seen.calls[0].x[...] = 0


def test_what_a_hook_spoils_is_laid_at_its_door() -> None:
    class Spoil(Hook):
        def __init__(self, where: str) -> None:
            self.where = where

        def output(self, call: CallView) -> None:
            if self.where == "output" and call.index == 1:
                call.raw[0] = np.nan

        def state(self, step: StateView) -> None:
            if self.where == "state" and step.row == 1:
                step.x[0] = np.inf

    for where in ("output", "state"):
        with pytest.raises(NonFiniteError, match=r"a hook left NaN or infinity behind\n.*call \d of 6"):
            run_plan(_plan(), _model, X, hooks=[Spoil(where)])
    with pytest.raises(NonFiniteError, match="the network returned NaN"):
        run_plan(_plan(), lambda x, t: np.full_like(x, np.nan), X, hooks=[Spoil("")])


@pytest.mark.parametrize("hooks", [3, [3], [Hook], "hooks"])
def test_what_is_no_hook_is_refused_before_the_network_runs(hooks: Any) -> None:
    def network(x: Any, t: Any) -> Any:
        raise AssertionError("the network ran")

    with pytest.raises(OptionError, match="hook"):
        run_plan(_plan(), network, X, hooks=hooks)


def test_a_mask_that_does_not_fit_is_refused() -> None:
    class Masked(Hook):
        def start(self, run: Any) -> None:
            match_state("the mask", np.ones((3, 5)), run)

    with pytest.raises(
        Exception, match=r"the mask does not fit the state\n  got: +\(3, 5\)\n  expected: +\(2, 3, 4\)"
    ):
        run_plan(_plan(), _model, X, hooks=[Masked()])
