"""A user's own corrections of a run: of what the network says of x0, and of the state after each step.

    data consistency    CorrectX0(lambda x0, t, level: np.where(known, picture, x0))
    a limit             CorrectX0(lambda x0, t, level: np.clip(x0, -1, 1))
    a noised picture    CorrectState(lambda x, level: np.where(known, level.alpha * picture + level.sigma * z, x))

Functions get arrays of the run's namespace, NumPy's or CuPy's, which they may not keep, and return arrays like them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dpmrt.errors import ArrayError, OptionError
from dpmrt.solvers_np.execution.hooks import CallView, Hook, RunView, StateView
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.options import one_of
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.prediction import PREDICTIONS, to_x0


class CorrectX0(Hook):
    """Replaces x0 by function(x0, t, level) after each network call, whatever the network predicts.

    The network's output is rewritten to what it would be, had it said so; the plan's own limits of x0 come after.
    `prediction` is what the network predicts, if the plan does not say.

    >>> import numpy as np
    >>> from dpmrt.solvers_np import CorrectX0, compile_plan, run_plan
    >>> plan = compile_plan("dpmsolver++", "linear", 10)
    >>> clamp = CorrectX0(lambda x0, t, level: np.clip(x0, -0.5, 0.5))
    >>> bool(np.abs(run_plan(plan, lambda x, t: -x, np.ones((1, 2)), hooks=[clamp])).max() < 0.51)
    True
    """

    def __init__(self, function: Callable[[Any, float, Level], Any], *, prediction: str | None = None) -> None:
        self._function, self._asked = _callable(function), prediction
        self._prediction = ""

    def start(self, run: RunView) -> None:
        """Read what the network predicts."""
        self._prediction = plan_prediction(run.plan, self._asked)

    def output(self, call: CallView) -> None:
        """Rewrite the network's output."""
        level = call.level
        state, raw = to_x0(self._prediction, level)
        if raw == 0:
            raise OptionError(
                "x0 cannot be corrected where the state holds no noise, and so is x0",
                got=f"t = {call.t:g}, sigma = {level.sigma:g}",
                expected="a plan that calls the network at some noise",
                fix="correct the state instead, with CorrectState",
            )
        x0 = state * call.x + raw * call.raw
        call.raw = (_checked(self._function(x0, call.t, level), x0) - state * call.x) / raw


class CorrectState(Hook):
    """Replaces the state by function(x, level) after each row whose state is at a known level.

    That is after every step; within a step of several calls, wherever the network is called next.

    >>> import numpy as np
    >>> from dpmrt.solvers_np import CorrectState, compile_plan, run_plan
    >>> plan = compile_plan("ddim", "linear", 4)
    >>> float(run_plan(plan, lambda x, t: x, np.ones((1, 1)), hooks=[CorrectState(lambda x, level: 0 * x)])[0, 0])
    0.0
    """

    def __init__(self, function: Callable[[Any, Level], Any]) -> None:
        self._function = _callable(function)

    def state(self, step: StateView) -> None:
        """Replace the state."""
        if step.level is not None:
            step.x = _checked(self._function(step.x, step.level), step.x)


def plan_prediction(plan: StepPlan, asked: str | None = None) -> str:
    """Return what the network of a plan predicts: what is asked, or else what the plan says."""
    prediction = plan.meta.get("prediction") if asked is None else asked
    if prediction is None:
        raise OptionError(
            "the plan does not say what its network predicts",
            got="no `prediction` in plan.meta",
            expected=", ".join(PREDICTIONS),
            fix="prediction='epsilon'",
        )
    one_of("prediction", prediction, PREDICTIONS)
    return str(prediction)


def _checked(value: Any, like: Any) -> Any:
    if getattr(value, "shape", None) != like.shape:
        raise ArrayError(
            "a correction gave no array like the one that it got",
            got=getattr(value, "shape", repr(value)),
            expected=like.shape,
        )
    return value


def _callable(function: Any) -> Any:
    if not callable(function):
        raise OptionError("a correction cannot be called", got=repr(function), expected="a function")
    return function
