"""The executor: runs any StepPlan, and holds no formula.

State, slots, scaled input and noise are rows of one matrix, allocated when the plan is bound. What a plan row
does to them is a small matrix, composed in float64 and cast once, that is applied in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dpmrt.errors import ArrayError
from dpmrt.solvers_np.execution.checks import bad_start, check_binding, check_start
from dpmrt.solvers_np.execution.composition import Layout, Step, compose
from dpmrt.solvers_np.execution.device.place import place_of
from dpmrt.solvers_np.execution.events import Callback, StepEvent, tell
from dpmrt.solvers_np.execution.failures import Culprit, not_finite
from dpmrt.solvers_np.execution.hooks import Hook, HookRunner, check_hooks
from dpmrt.solvers_np.execution.instructions import (
    apply_instruction,
    apply_langevin,
    apply_noise_instruction,
    scratch_size,
)
from dpmrt.solvers_np.execution.passes import PassMaker
from dpmrt.solvers_np.noise import NoiseSource, as_source, asker
from dpmrt.solvers_np.plans.instructions import Langevin
from dpmrt.solvers_np.plans.plan import StepPlan

Array = NDArray[Any]
Call = Callable[[float, int], None]
_ALIGN = 64


class BindableModel(Protocol):
    """A model that writes straight into the executor's buffers."""

    def bind(self, x: Array, outputs: Sequence[Array]) -> Call:
        """Return call(t, slot): run the network on `x`, which is filled in place, and write into outputs[slot].

        For a plan of `parts` 2, the outputs have twice the channels of `x`.
        """
        ...


Model = BindableModel | Callable[[Array, Array], Array]


class Executor:
    """A plan bound to a model and a shape. Runs again and again without allocating; one thread at a time."""

    def __init__(self, plan: StepPlan, model: Model, shape: Sequence[int], dtype: DTypeLike = np.float32) -> None:
        self.plan = plan
        self.shape, self.dtype = check_binding(shape, dtype)
        layout = Layout.of(plan)
        self._rows = _allocate(layout.count, math.prod(self.shape), self.dtype)
        shaped = [row.reshape(self.shape) for row in self._rows]
        self._state = self._rows[layout.state]
        self._x, self._slots = shaped[layout.state], [shaped[k] for k in layout.slots]
        self._z = None if layout.noise is None else shaped[layout.noise]
        self._scratch = np.empty(scratch_size(plan, self.shape), self.dtype)
        self._input = shaped[layout.input] if layout.scaled else None
        self._second, self._call = _bind(model, shaped[layout.input], self._slots, plan.parts)
        make = PassMaker(self._rows).make
        self._unfinished = False
        prologue, steps = compose(plan, layout)
        self._prologue = make(prologue) if prologue else None
        self._script = [(step, make(step.before) if step.before else None, make(step.after)) for step in steps]

    def run(
        self, x: Array, *, noise: Any = None, callback: Callback | None = None, hooks: Sequence[Hook] = ()
    ) -> Array:
        """Run the plan from the initial state `x`; the result is a new array that the caller owns."""
        hooked = self._hooked(hooks)
        x = np.asarray(x)
        check_start(x, self.shape)
        if self._unfinished:
            # The run that failed may have left NaN in a slot, which a weight of zero would not remove.
            self._rows[...] = 0
        self._unfinished = True
        state = self._state
        with np.errstate(all="ignore"):
            self._x[...] = x
            if not np.isfinite(np.dot(state, state)) and (error := bad_start(self._x)):
                raise error
        draw = self._draw(as_source(noise, self.shape, self.plan.draws)) if self._z is not None else None
        seen = self._x.view()
        seen.flags.writeable = False
        calls, call, dot, isfinite = 0, self._call, np.dot, math.isfinite
        if hooked is not None:
            hooked.start()
        with np.errstate(all="ignore"):
            if self._prologue is not None:
                self._prologue()
            for row, (step, before, after) in enumerate(self._script):
                if step.out >= 0:
                    call(step.t, step.out)
                    if hooked is not None:
                        hooked.output(row, step.out)
                if before is not None:
                    before()
                    if step.instruction is not None:
                        apply_instruction(step.instruction, self._slots[step.slot], self._scratch)
                if step.noisy and draw is not None and self._z is not None:
                    self._z[...] = draw(step.span)
                    if step.noise_instruction is not None:
                        self._scale_noise(step, self._z, calls)
                after()
                if not isfinite(dot(state, state)):
                    self._explain(step.out, step.t, calls)
                if hooked is not None:
                    hooked.state(row, step.t)
                if step.out >= 0:
                    if callback is not None:
                        tell(callback, StepEvent(calls, self.plan.calls, step.t, seen))
                    calls += 1
        self._unfinished = False
        return np.array(self._x)

    def _hooked(self, hooks: Sequence[Hook]) -> HookRunner | None:
        if not (hooks := check_hooks(hooks)):
            return None
        return HookRunner(hooks, self.plan, self._x, self._slots, self._input, self._second, np)

    def _draw(self, source: NoiseSource) -> Callable[[tuple[float, float]], Array]:
        ask = asker(source)

        def draw(span: tuple[float, float]) -> Array:
            z = np.asarray(ask(self.shape, *span))
            if z.shape != self.shape:
                raise ArrayError("the noise source gave the wrong shape", got=z.shape, expected=self.shape)
            return z

        return draw

    def _scale_noise(self, step: Step, z: Array, calls: int) -> None:
        if isinstance(step.noise_instruction, Langevin):
            if not apply_langevin(step.noise_instruction, self._slots[step.slot], z):
                self._explain(step.out, step.t, calls, "score")
        elif step.noise_instruction is not None and self._second is not None:
            apply_noise_instruction(step.noise_instruction, z, self._second)

    def _explain(self, out: int, t: float, calls: int, culprit: Culprit = "state") -> None:
        if culprit == "state" and np.isfinite(self._state).all():
            return
        if out >= 0 and not np.isfinite(self._slots[out]).all():
            culprit = "network"
        elif self._second is not None and not np.isfinite(self._second).all():
            culprit = "second"
        elif self._z is not None and not np.isfinite(self._z).all():
            culprit = "noise"
        raise not_finite(culprit, call=calls + 1, calls=self.plan.calls, t=t)


def run_plan(
    plan: StepPlan,
    model: Model,
    x: Array,
    *,
    noise: Any = None,
    callback: Callback | None = None,
    hooks: Sequence[Hook] = (),
) -> Array:
    """Run a plan once: bind, run, return the sample. Float64 in, float64 throughout; else float32.

    A device array (CuPy's) stays on its device, and so does the result; the model then gets device arrays too.
    `x` is the state to start from: `plan.init_scale` times unit noise, or data noised to the level `plan.start`.

    >>> import numpy as np
    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("ddim", "linear", 10)
    >>> x = np.ones((1, 2))
    >>> run_plan(plan, lambda x, t: 0 * x, x).shape
    (1, 2)
    """
    place = place_of(x)
    x = np.asarray(x) if place is None else x
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    if place is not None:
        from dpmrt.solvers_np.execution.device.executor import DeviceExecutor

        there = DeviceExecutor(plan, model, x.shape, dtype, place=place)
        done: Array = there.run(x, noise=noise, callback=callback, hooks=hooks)
        return done
    return Executor(plan, model, x.shape, dtype).run(x, noise=noise, callback=callback, hooks=hooks)


def _allocate(count: int, size: int, dtype: np.dtype[Any]) -> Array:
    """Return zeroed rows, each aligned, and set apart so that equal offsets do not share cache sets."""
    per_line = _ALIGN // dtype.itemsize
    pitch = -(-size // per_line) * per_line + 5 * per_line
    flat = np.zeros(count * pitch + per_line, dtype)
    shift = (-flat.ctypes.data % _ALIGN) // dtype.itemsize
    return flat[shift : shift + count * pitch].reshape(count, pitch)[:, :size]


def _bind(model: Model, x: Array, slots: Sequence[Array], parts: int) -> tuple[Array | None, Call]:
    """Return the place of the output's second part, if it has one, and the call."""
    if parts == 1:
        return None, _bound(model, x, slots)
    whole = np.empty((x.shape[0], parts * x.shape[1], *x.shape[2:]), x.dtype)
    inner, first, second = _bound(model, x, [whole] * len(slots)), whole[:, : x.shape[1]], whole[:, x.shape[1] :]

    def call(t: float, slot: int) -> None:
        inner(t, slot)
        np.copyto(slots[slot], first)

    return second, call


def _bound(model: Model, x: Array, outputs: Sequence[Array]) -> Call:
    binder = getattr(model, "bind", None)
    if binder is not None:
        bound: Call = binder(x, outputs)
        return bound
    if not callable(model):
        raise ArrayError(
            "the model is neither a function nor has it bind()",
            got=type(model).__name__,
            expected="model(x, t)",
        )
    # The function gets copies, so that it may do with them what it likes.
    copied, times, shape = np.empty_like(x), np.empty(len(x), x.dtype), outputs[0].shape

    def call(t: float, slot: int) -> None:
        np.copyto(copied, x)
        times.fill(t)
        raw = np.asarray(model(copied, times))
        if raw.shape != shape:
            raise ArrayError("the network's output has the wrong shape", got=raw.shape, expected=shape)
        outputs[slot][...] = raw

    return call
