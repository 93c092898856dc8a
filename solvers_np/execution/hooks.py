"""Hooks: what a caller may change in the course of a run, on any solver's plan and on any executor.

The network's raw output is changed before the plan converts it, so that a correction of x0 or of eps serves every
solver alike; the state is changed after a row. Both see at which level of signal and noise they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpmrt.errors import ArrayError, OptionError
from dpmrt.solvers_np.execution.composition import next_scale
from dpmrt.solvers_np.execution.failures import Culprit, not_finite
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.plan import StepPlan


class _Live:
    """A view with one live array, which may be changed in place or assigned to."""

    def __init__(self, array: Any, xp: Any) -> None:
        self._array = array
        self.xp = xp

    def _assign(self, value: Any) -> None:
        if value is not self._array:
            self._array[...] = value


class RunView(_Live):
    """A run before its first row. `x` is the live state, which may be changed; `xp` is its array namespace."""

    def __init__(self, plan: StepPlan, x: Any, xp: Any) -> None:
        super().__init__(x, xp)
        self.plan = plan

    x = property(lambda self: self._array, _Live._assign, doc="The live state.")


class CallView(_Live):
    """A network call that was just made, the `index`-th, in row `row` of the plan.

    `raw` is the network's output and may be changed; `x` is the state that it was asked for, before any scaling of
    the input, to read. `second` holds the channels of a learned variance, if the plan reads them.
    """

    def __init__(self, index: int, row: int, level: Level, x: Any, raw: Any, second: Any, xp: Any) -> None:
        super().__init__(raw, xp)
        self.index, self.row, self.level, self.x, self.second = index, row, level, x, second

    raw = property(lambda self: self._array, _Live._assign, doc="The network's output.")

    @property
    def t(self) -> float:
        """Return the time that the network was given."""
        return self.level.t


class StateView(_Live):
    """The state after row `row`, when `calls` network calls have been made; `x` may be changed.

    `level` is how much signal and noise it holds: that of the next call, or of the plan's end; None where the next
    row makes no call. `called` says whether this row did.
    """

    def __init__(self, row: int, calls: int, called: bool, last: bool, level: Level | None, x: Any, xp: Any) -> None:
        super().__init__(x, xp)
        self.row, self.calls, self.called, self.last, self.level = row, calls, called, last, level

    x = property(lambda self: self._array, _Live._assign, doc="The live state.")


class Hook:
    """What to change in a run; a subclass overrides what it needs.

    >>> import numpy as np
    >>> from dpmrt.solvers_np import Hook, compile_plan, run_plan
    >>> class Mean(Hook):
    ...     def state(self, step):
    ...         if step.last:
    ...             step.x -= step.x.mean()
    >>> plan = compile_plan("ddim", "linear", 4)
    >>> float(run_plan(plan, lambda x, t: 0 * x, np.array([[1.0, 3.0]]), hooks=[Mean()]).sum())
    0.0
    """

    def start(self, run: RunView) -> None:
        """Prepare for a run."""

    def output(self, call: CallView) -> None:
        """Change the network's raw output."""

    def state(self, step: StateView) -> None:
        """Change the state."""


class HookRunner:
    """Calls the hooks of one run on the executor's buffers; `scaled` is the scaled copy of the state, if any."""

    def __init__(
        self, hooks: Sequence[Hook], plan: StepPlan, x: Any, slots: Sequence[Any], scaled: Any, second: Any, xp: Any
    ) -> None:
        self._outputs = [hook.output for hook in hooks if type(hook).output is not Hook.output]
        self._states = [hook.state for hook in hooks if type(hook).state is not Hook.state]
        self._starts = [hook.start for hook in hooks]
        self._plan, self._x, self._slots, self._scaled, self._second, self._xp = plan, x, slots, scaled, second, xp
        self._levels = _levels(plan)
        self._scales = [next_scale(plan, row) for row in range(plan.rows)]
        self._calls = 0

    def start(self) -> None:
        """Tell the hooks of the run, before the first row and before the input is scaled."""
        self._calls = 0
        for start in self._starts:
            start(RunView(self._plan, self._x, self._xp))

    def output(self, row: int, out: int) -> None:
        """Let the hooks change what the network wrote into slot `out`."""
        raw, level = self._slots[out], self._levels[row]
        assert level is not None
        if self._outputs:
            self._check(raw, "network", level.t)
            seen = self._x
            if isinstance(seen, np.ndarray):
                seen = seen.view()
                seen.flags.writeable = False
            for hook in self._outputs:
                hook(CallView(self._calls, row, level, seen, raw, self._second, self._xp))
            self._check(raw, "hook", level.t)
        self._calls += 1

    def state(self, row: int, t: float) -> None:
        """Let the hooks change the state after a row, and scale the network's input again."""
        if not self._states:
            return
        self._check(self._x, "state", t)
        last = row == self._plan.rows - 1
        called = bool(self._plan.out[row] >= 0)
        for hook in self._states:
            hook(StateView(row, self._calls, called, last, self._levels[row + 1], self._x, self._xp))
        self._check(self._x, "hook", t)
        if self._scaled is not None:
            self._xp.multiply(self._x, self._scales[row], out=self._scaled)

    def _check(self, array: Any, culprit: Culprit, t: float) -> None:
        if not bool(self._xp.isfinite(array).all()):
            raise not_finite(culprit, call=max(1, self._calls), calls=self._plan.calls, t=t)


def check_hooks(hooks: object) -> tuple[Hook, ...]:
    """Return the hooks as a tuple, or say what is none."""
    listed = (hooks,) if isinstance(hooks, Hook) else hooks
    if not isinstance(listed, (list, tuple)):
        raise OptionError("hooks are no list of hooks", got=repr(hooks), expected="a list of Hook objects")
    for hook in listed:
        if not isinstance(hook, Hook):
            raise OptionError(
                "a hook is none", got=repr(hook), expected="an object of a subclass of dpmrt.solvers_np.Hook"
            )
    return tuple(listed)


def match_state(name: str, value: Any, run: RunView) -> Any:
    """Return an array as the state's namespace and dtype have it; its shape must broadcast to the state's.

    >>> import numpy as np
    >>> from dpmrt.solvers_np import compile_plan
    >>> run = RunView(compile_plan("ddim", "linear", 2), np.zeros((3, 2), np.float32), np)
    >>> match_state("the mask", [True, False], run)
    array([1., 0.], dtype=float32)
    """
    array, shape = np.asarray(value), tuple(run.x.shape)
    try:
        fits = np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ArrayError(f"{name} does not fit the state", got=array.shape, expected=shape)
    return run.xp.asarray(array.astype(run.x.dtype))


def _levels(plan: StepPlan) -> list[Level | None]:
    """Return the level at each row's call, or None, and that of the end."""
    columns = (plan.t, plan.alpha, plan.sigma, plan.in_scale)
    rows = [Level(*(float(c[row]) for c in columns)) if plan.out[row] >= 0 else None for row in range(plan.rows)]
    return [*rows, Level(float("nan"), *plan.end)]
