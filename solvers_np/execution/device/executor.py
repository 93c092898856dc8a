"""The executor on a CUDA device: the same plans and the same composed rows as in NumPy, one kernel a row.

Everything is enqueued on one stream. What is not finite is flagged by the kernels themselves, a word for each row of
the plan, and looked at when the run is over; a callback gets a copy of the state, for which the stream is waited for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dpmrt.errors import ArrayError
from dpmrt.solvers_np.execution.checks import bad_start, check_binding, check_start
from dpmrt.solvers_np.execution.composition import Layout, Step, Update, compose
from dpmrt.solvers_np.execution.device.graph import Trajectory
from dpmrt.solvers_np.execution.device.kernels import Kernels, Launch, packed_weights
from dpmrt.solvers_np.execution.device.noise import DeviceNoise
from dpmrt.solvers_np.execution.device.place import Place, address
from dpmrt.solvers_np.execution.device.source import BAD_NETWORK, BAD_NOISE, BAD_SCORE, BAD_SECOND, BAD_STATE
from dpmrt.solvers_np.execution.events import Callback, StepEvent, tell
from dpmrt.solvers_np.execution.failures import Culprit, not_finite
from dpmrt.solvers_np.execution.hooks import Hook, HookRunner, check_hooks
from dpmrt.solvers_np.noise import NoiseSource, as_source
from dpmrt.solvers_np.plans.instructions import Langevin, LearnedRange, LearnedVariance
from dpmrt.solvers_np.plans.plan import StepPlan

DeviceCall = Callable[[int, int], None]
#: rows begin at multiples of this, as TensorRT and wide loads want it
_ALIGN = 256


class DeviceModel(Protocol):
    """A model that reads and writes the executor's buffers on the device, in the order of its stream."""

    @property
    def capturable(self) -> bool:
        """Return whether its calls may become part of a CUDA graph: they enqueue, and wait for nothing."""

    def bind_device(self, place: Place, x: Any, outputs: Sequence[Any], times: Sequence[float]) -> DeviceCall:
        """Return call(index, slot): run the network on `x` at times[index], and write into outputs[slot]."""

    def state(self) -> Hashable:
        """Return what a captured call depends on beside its buffers; another value makes a new capture."""


class DeviceExecutor:
    """A plan bound to a model, a shape and a place. Runs again and again; one thread at a time."""

    def __init__(
        self, plan: StepPlan, model: Any, shape: Sequence[int], dtype: DTypeLike = np.float32, *, place: Place
    ) -> None:
        self.plan = plan
        self.shape, self.dtype = check_binding(shape, dtype)
        self._place = place
        self._digest = plan.digest()
        self._model = model if hasattr(model, "bind_device") else _Function(model)
        with place.work():
            self._build(Layout.of(plan))

    def _build(self, layout: Layout) -> None:
        plan, place = self.plan, self._place
        size, per_row = math.prod(self.shape), _ALIGN // self.dtype.itemsize
        pitch = -(-size // per_row) * per_row
        prologue, self._steps = compose(plan, layout)
        updates = [u for step in self._steps for u in (step.before, step.after) if u] + (
            [prologue] if prologue else []
        )
        weights = [packed_weights(update, layout.state) for update in updates]
        self._noise = DeviceNoise(place, self.shape, pitch, self.dtype, plan.draws) if plan.draws else None
        self._rows = place.zeros((layout.count, pitch), self.dtype)
        self._weights = place.zeros(max(1, sum(len(w) for w in weights)), self.dtype)
        self._flags = place.zeros(len(self._steps), np.uint32)
        place.upload(self._weights, np.concatenate(weights))
        starts = np.cumsum([0, *(len(w) for w in weights)])
        self._tables = {id(u): self._weights[int(a) : int(b)] for u, a, b in zip(updates, starts, starts[1:])}
        shaped = [self._rows[k][:size].reshape(self.shape) for k in range(layout.count)]
        self._x, self._slots = shaped[layout.state], [shaped[k] for k in layout.slots]
        self._z = None if layout.noise is None else shaped[layout.noise]
        self._norms = place.zeros(2 * self.shape[0], np.float64)
        self._kernels = Kernels(place)
        self._layout = layout
        times = [float(t) for t in plan.timesteps]
        self._whole, call = self._bind(shaped[layout.input], times)
        self._input = shaped[layout.input] if layout.scaled else None
        self._clear_flags = self._kernels.clear(self._flags)
        self._clear_rows = self._kernels.clear(self._rows)
        self._prologue = self._update(prologue, {}, 0) if prologue else None
        self._script = self._write_script(call)
        self._trajectory = Trajectory(place, self._enqueue)
        self._unfinished = False

    @property
    def trajectory(self) -> Trajectory:
        """Return how runs are enqueued: whether one was captured, and if not why."""
        return self._trajectory

    def run(self, x: Any, *, noise: Any = None, callback: Callback | None = None, hooks: Sequence[Hook] = ()) -> Any:
        """Run the plan from `x`; the result is the caller's, on the host if `x` is, else on the device.

        Hooks get the device's arrays, in the order of the stream, and such a run is not captured.
        """
        hooks = check_hooks(hooks)
        host = isinstance(x, np.ndarray) or not hasattr(x, "__cuda_array_interface__")
        start = self._checked(np.asarray(x) if host else x.get())
        source = None if self._noise is None else as_source(noise, self.shape, self.plan.draws)
        with self._place.work():
            if self._unfinished:
                # A kernel that failed may have left NaN in a slot, which a weight of zero would not remove.
                self._clear_rows()
                self._trajectory.forget()
            self._unfinished = True
            try:
                self._place.upload(self._x, start)
                if source is not None and self._noise is not None and self._noise.whole:
                    self._noise.draw_all(source, self._steps)
                streamed = self._noise is not None and not self._noise.whole
                if callback is None and not hooks and not streamed and self._model.capturable:
                    self._trajectory.run(self._key())
                else:
                    self._enqueue(source, callback, self._hooked(hooks))
                self._check_flags()
                result = self._place.download(self._x)
            except BaseException:
                # Buffers may be let go of now, and what was enqueued before the failure still uses them.
                self._place.settle()
                raise
        self._unfinished = False
        return result if host else self._place.xp.asarray(result)

    def _hooked(self, hooks: Sequence[Hook]) -> HookRunner | None:
        if not hooks:
            return None
        second = None if self._whole is None else self._whole[:, self.shape[1] :]
        return HookRunner(hooks, self.plan, self._x, self._slots, self._input, second, self._place.xp)

    def _checked(self, x: NDArray[Any]) -> NDArray[Any]:
        check_start(x, self.shape)
        with np.errstate(all="ignore"):
            start = x.astype(self.dtype)
        if error := bad_start(start):
            raise error
        return start

    def _key(self) -> Hashable:
        return (self._digest, self.shape, address(self._rows), address(self._flags), self._model.state())

    def _bind(self, x: Any, times: Sequence[float]) -> tuple[Any, DeviceCall]:
        """Return the place of an output of two parts, if it has two, and the call."""
        parts = self.plan.parts
        if parts == 1:
            return None, self._model.bind_device(self._place, x, self._slots, times)
        block = x.size // len(x)
        whole = self._place.zeros((len(x), parts * x.shape[1], *x.shape[2:]), self.dtype)
        inner = self._model.bind_device(self._place, x, [whole] * len(self._slots), times)
        firsts = [
            self._kernels.move(whole, slot, block, offsets=(0, 0), pitches=(parts * block, block), outer=len(x))
            for slot in self._slots
        ]

        def call(index: int, slot: int) -> None:
            inner(index, slot)
            firsts[slot]()

        return whole, call

    def _update(self, update: Update, kinds: dict[int, int], row: int, noise: Any = None) -> Launch:
        rows = [self._rows[k] for k in range(self._layout.count)]
        if noise is not None and self._layout.noise is not None:
            rows[self._layout.noise] = noise
        table, flag = self._tables[id(update)], address(self._flags) + 4 * row
        return self._kernels.update(update, rows, table, flag, kinds, self._layout.state)

    def _write_script(self, call: DeviceCall) -> list[tuple[Step, list[Launch], list[Launch], int]]:
        """Return, for each row: what runs before the noise is there, what runs after, and the calls up to it."""
        script, calls, draws = [], 0, 0
        for row, step in enumerate(self._steps):
            first: list[Launch] = []
            if step.out >= 0:
                first.append(_fixed(call, calls, step.out))
            if step.before is not None:
                first.append(self._update(step.before, {}, row))
            if step.instruction is not None:
                first.append(self._kernels.instruction(step.instruction, self._slots[step.slot]))
            kinds = self._kinds(step)
            second: list[Launch] = []
            noise = None
            if step.noisy and self._noise is not None:
                noise, instruction = self._noise.row(draws), step.noise_instruction
                drawn, flag = (self._noise.origin(draws), self._z), address(self._flags) + 4 * row
                if isinstance(instruction, (LearnedRange, LearnedVariance)) and self._whole is not None:
                    second.append(self._kernels.learned(instruction, self._whole, drawn, flag))
                    noise = None
                elif isinstance(instruction, Langevin):
                    score = self._slots[step.slot]
                    second += self._kernels.langevin(instruction, score, drawn, self._norms, flag)
                    noise = None
                draws += 1
            second.append(self._update(step.after, kinds, row, noise))
            script.append((step, first, second, calls))
            calls += step.out >= 0
        return script

    def _kinds(self, step: Step) -> dict[int, int]:
        """Return what to flag when a row of the matrix is read and not finite; a state alone flags itself."""
        kinds = {self._layout.state: BAD_STATE}
        if step.out >= 0:
            kinds[self._layout.slots[step.out]] = BAD_NETWORK
            kinds[self._layout.slots[step.slot]] = BAD_NETWORK
        if step.noisy and self._layout.noise is not None:
            kinds[self._layout.noise] = BAD_NOISE
        return kinds

    def _enqueue(
        self, source: NoiseSource | None = None, callback: Callback | None = None, hooked: HookRunner | None = None
    ) -> None:
        streamed = self._noise is not None and not self._noise.whole
        self._clear_flags()
        if hooked is not None:
            hooked.start()
        if self._prologue is not None:
            self._prologue()
        for row, (step, first, second, calls) in enumerate(self._script):
            for position, launch in enumerate(first):
                launch()
                if hooked is not None and position == 0 and step.out >= 0:
                    hooked.output(row, step.out)
            if streamed and step.noisy and source is not None and self._noise is not None:
                self._noise.draw_one(source, step)
            for launch in second:
                launch()
            if hooked is not None:
                hooked.state(row, step.t)
            if callback is not None and step.out >= 0:
                self._check_flags()
                seen = self._place.download(self._x)
                seen.flags.writeable = False
                tell(callback, StepEvent(calls, self.plan.calls, step.t, seen))

    def _check_flags(self) -> None:
        flags = self._place.download(self._flags)
        wrong = np.flatnonzero(flags & (BAD_STATE | BAD_NETWORK | BAD_NOISE | BAD_SCORE))
        if not wrong.size:
            return
        row = int(wrong[0])
        step, _, _, calls = self._script[row]
        causes: tuple[tuple[int, Culprit], ...] = (
            (BAD_NETWORK, "network"),
            (BAD_SECOND, "second"),
            (BAD_NOISE, "noise"),
            (BAD_SCORE, "score"),
        )
        culprit: Culprit = next((name for bit, name in causes if int(flags[row]) & bit), "state")
        raise not_finite(culprit, call=calls + 1, calls=self.plan.calls, t=step.t)


class _Function:
    """A function of device arrays as a model. What it does with the stream is its own, so it is never captured."""

    capturable = False

    def __init__(self, function: Any) -> None:
        self._function = function

    def state(self) -> Hashable:
        return None

    def bind_device(self, place: Place, x: Any, outputs: Sequence[Any], times: Sequence[float]) -> DeviceCall:
        shape = outputs[0].shape

        def call(index: int, slot: int) -> None:
            raw = self._function(x.copy(), place.xp.full(len(x), times[index], x.dtype))
            if raw.shape != shape:
                raise ArrayError("the network's output has the wrong shape", got=raw.shape, expected=shape)
            outputs[slot][...] = raw

        return call


def _fixed(call: DeviceCall, index: int, slot: int) -> Launch:
    return lambda: call(index, slot)
