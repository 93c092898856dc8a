"""Classifier guidance, Dhariwal and Nichol 2021, as hooks: of the mean (algorithm 1) or of eps (algorithm 2).

A state x = alpha x0 + sigma eps is shown to the classifier as to the network: scaled, where the plan scales it, to
in_scale * x. So d/dx log p(y | x) = in_scale * g(in_scale * x, t) with the classifier's gradient g. The score is
-eps / sigma, and the guided one has scale * d/dx log p(y | x) added:

    eps' = eps - scale * sigma * in_scale * g        of a state of unit variance, scale * sqrt(1 - alpha_bar) * g

The gradient is found on the host; arrays of a device are copied there and back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.solvers_np import CallView, Hook, LearnedRange, LearnedVariance, RunView, StateView, StepPlan
from dpmrt.solvers_np.corrections import plan_prediction
from dpmrt.solvers_np.execution.instructions import apply_noise_instruction
from dpmrt.solvers_np.prediction import to_eps

Array = NDArray[Any]
#: gradient(x, t) of log p(y | x) with respect to x
Gradient: TypeAlias = "Callable[[Array, float], Array]"


class GuideNoise(Hook):
    """Algorithm 2: moves what the network says of eps, so that any solver follows; `scale` is (batch,).

    Where a state holds no signal, or no noise, nothing is known of the class or left to choose, and nothing is done.

    >>> from dpmrt.solvers_np import compile_plan, run_plan
    >>> plan = compile_plan("ddim", "linear", 20)
    >>> hook = GuideNoise(lambda x, t: 2.0 - x, np.ones(1))
    >>> float(run_plan(plan, lambda x, t: 0 * x, np.zeros((1, 1)), hooks=[hook])[0, 0]) > 1
    True
    """

    def __init__(self, gradient: Gradient, scale: NDArray[np.float64], prediction: str | None = None) -> None:
        self._gradient, self._scale, self._asked = gradient, scale, prediction
        self._prediction = ""

    def start(self, run: RunView) -> None:
        """Read what the network predicts."""
        self._prediction = plan_prediction(run.plan, self._asked)

    def output(self, call: CallView) -> None:
        """Move the network's output by as much as eps is to move."""
        level = call.level
        if not (level.alpha and level.sigma):
            return
        move = -level.sigma / to_eps(self._prediction, level)[1] * _scaled(self._scale, _ascent(self._gradient, call))
        call.raw += _like(call.raw, move, call.xp)


class GuideMean(Hook):
    """Algorithm 1: moves the state after a row by scale * variance of its noise * gradient; `scale` is (batch,)."""

    def __init__(self, gradient: Gradient, scale: NDArray[np.float64]) -> None:
        self._gradient, self._scale = gradient, scale
        self._plan: StepPlan | None = None
        self._move: Array | None = None

    def start(self, run: RunView) -> None:
        """Read how much noise each row adds."""
        check_mean(run.plan)
        self._plan, self._move = run.plan, None

    def output(self, call: CallView) -> None:
        """Find the gradient at the state that the step begins with, before the variance is used up."""
        assert self._plan is not None
        variance = _variance(self._plan, call)
        self._move = None
        if variance is not None:
            self._move = variance * _scaled(self._scale, _ascent(self._gradient, call))

    def state(self, step: StateView) -> None:
        """Move the state."""
        if self._move is not None:
            step.x += _like(step.x, self._move, step.xp)


def check_mean(plan: StepPlan) -> None:
    """Refuse a plan whose rows are not steps with a mean and a variance."""
    calls = plan.out >= 0
    if plan.stochastic and calls.all():
        return
    raise OptionError(
        "classifier guidance cannot move the mean of this plan's steps",
        got=f"{plan.calls} network calls and {int((plan.noise != 0).sum())} draws of noise in {plan.rows} rows",
        expected="a plan that calls the network in every row, and adds noise",
        fix="classifier_mode='noise', or solver='ddpm'",
    )


def mean_suits(plan: StepPlan) -> bool:
    """Return whether a plan is ancestral sampling, for which algorithm 1 was written."""
    return plan.meta.get("solver") == "ddpm" and plan.stochastic and bool((plan.out >= 0).all())


def _variance(plan: StepPlan, call: CallView) -> Any:
    """Return the variance of the noise that a call's row adds: a number, an array if learned, None for no noise."""
    noise, index = float(plan.noise[call.row]), int(plan.noise_instruction[call.row])
    instruction = plan.instructions[index] if index >= 0 else None
    if noise == 0:
        return None
    if not isinstance(instruction, (LearnedRange, LearnedVariance)):
        return noise**2
    second = np.array(_host(call.second))
    deviation = np.full_like(second, noise)
    apply_noise_instruction(instruction, deviation, second)
    return deviation**2


def _ascent(gradient: Gradient, call: CallView) -> Array:
    """Return the gradient with respect to the state, on the host."""
    scale = call.level.in_scale
    x = _host(call.x)
    return scale * np.asarray(gradient(x * x.dtype.type(scale), call.t))


def _scaled(scale: NDArray[np.float64], array: Array) -> Array:
    return scale.reshape(-1, *(1,) * (array.ndim - 1)) * array


def _host(array: Any) -> Array:
    return array if isinstance(array, np.ndarray) else np.asarray(array.get())


def _like(array: Any, values: Array, xp: Any) -> Any:
    return xp.asarray(values.astype(array.dtype))
