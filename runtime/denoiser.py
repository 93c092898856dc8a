"""The network as the executor sees it: backend, timestep, conditions and guidance behind one bound call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TypeAlias

import numpy as np

from dpmrt.engines import Network, TensorSpec
from dpmrt.errors import BundleError, OptionError
from dpmrt.runtime.backends.base import Array, Backend, Call, Tensor
from dpmrt.runtime.conditions import EXTRA
from dpmrt.runtime.guidance.rescale import rescale_guided
from dpmrt.runtime.network_checks import check_network, check_rows

StepCall: TypeAlias = Callable[[float, int], None]


class Denoiser:
    """A model for the executor on the host, for one batch size, with or without classifier-free guidance.

    Unguided, the backend reads the executor's state and writes into its slots, and nothing is copied; so too where
    guidance is a part of the graph. Guided otherwise, it runs once on a doubled batch, whose first half is
    conditioned and whose second is not; where a call's scales are all 1, on the first half alone if the network
    takes that. Extra channels lie behind those of the state, in a buffer of both.

    `conditions` gives, role by role, the shape of one sample's condition; `condition` fills them in, and begins to
    count the calls, each of which has its own scales.
    """

    def __init__(
        self,
        backend: Backend,
        network: Network,
        batch: int,
        *,
        guided: bool = False,
        conditions: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        check_network(backend, network)
        check_rows(network, batch, guided)
        self._backend = backend
        self._network = network
        self._batch = batch
        self._guided = guided
        self._rows = 2 * batch if guided else batch
        self._axis = network.channel_axis
        self._sample = _of_role(network.inputs, "sample")
        self._out = _of_role(network.outputs, "out_sample")
        self._time = self._number("timestep")
        self._folded = self._number("guidance_scale") if network.folded_guidance else None
        shapes = dict(conditions or {})
        extra = shapes.pop(EXTRA, None) if network.extra_channels else None
        self._conditions = {role: self._buffer(role, shape) for role, shape in shapes.items()}
        self._source: Array | None = None
        self._extra: Array | None = None
        if extra is not None:
            self._source, self._extra = self._stage_extra(extra)
        self._real = np.dtype(np.float32)
        self._rescale = 0.0
        Denoiser.set_scales(self, 1.0)

    def condition(
        self,
        values: Mapping[str, Array],
        null: Mapping[str, Array] | None = None,
        scale: float | Array = 1.0,
        rescale: float = 0.0,
    ) -> None:
        """Write the conditions of the next run into the bound buffers; what follows `values` is for guidance.

        `scale` is as for `set_scales`; `rescale` is how far deviations are brought back.
        """
        self._rescale = float(rescale)
        self.set_scales(scale)
        extra = {} if self._extra is None else {EXTRA: self._extra}
        for role, buffer in (*self._conditions.items(), *extra.items()):
            if buffer.ndim == 0:
                buffer[...] = values[role]
                continue
            buffer[: self._batch] = values[role]
            if self._guided:
                buffer[self._batch :] = (null or {})[role]

    def set_scales(self, scale: float | Array) -> None:
        """Set the scales of guidance from the next call on: one for all, or (calls, batch), of one call for all."""
        table = np.atleast_2d(np.asarray(scale, np.float64))
        self._table = np.broadcast_to(table, (len(table), self._batch))
        axes = (1,) * (len(self._sample.shape) - 1)
        self._columns = self._table.reshape(*self._table.shape, *axes).astype(self._real)
        self._alone = (self._table == 1.0).all(axis=1).tolist()
        self._made = 0

    def bind(self, x: Array, outputs: Sequence[Array]) -> StepCall:
        """Return call(t, slot), which runs the network on `x` and writes its output into outputs[slot].

        Of a network that also learned a variance, the outputs hold it or not, as the plan reads it or not.
        """
        channels = output_channels(self._out, x, self._axis)
        self._check_variance(channels, x, outputs[0])
        self._real = outputs[0].dtype
        Denoiser.set_scales(self, self._table)
        if self._guided:
            return self._bind_guided(x, outputs)
        direct = self._sample.dtype == x.dtype.name and self._out.dtype == x.dtype.name and self._extra is None
        if direct and channels == outputs[0].shape[self._axis]:
            return self._bind_direct(x, outputs)
        return self._bind_staged(x, outputs)

    def _check_variance(self, channels: int, x: Array, out: Array) -> None:
        if out.shape == x.shape:
            return
        if self._axis != 1:
            raise OptionError(
                "the plan reads a variance, which is found in the channels on axis 1 only",
                got=f"channels on axis {self._axis}",
                expected="a network whose channels are on axis 1",
                fix="choose variance_type='fixed_small'",
            )
        if out.shape[1] > channels:
            raise OptionError(
                "the plan reads a variance that the network did not learn",
                got=f"{channels} output channels",
                expected=out.shape[1],
                fix="choose variance_type='fixed_small', or a network that learned its variance",
            )

    def _bind_direct(self, x: Array, outputs: Sequence[Array]) -> StepCall:
        calls, tell = [self._bind(x, output) for output in outputs], self._teller()

        def call(t: float, slot: int) -> None:
            tell(t)
            calls[slot]()

        return call

    def _bind_staged(self, x: Array, outputs: Sequence[Array]) -> StepCall:
        source, raw = self._stage(x)
        run, tell = self._bind(source, raw), self._teller()
        state = self._first(source, x.shape[self._axis])
        kept = self._first(raw, outputs[0].shape[self._axis])

        def call(t: float, slot: int) -> None:
            tell(t)
            np.copyto(state, x, casting="same_kind")
            run()
            np.copyto(outputs[slot], kept)

        return call

    def _bind_guided(self, x: Array, outputs: Sequence[Array]) -> StepCall:
        source, raw = self._stage(x)
        run, time = self._bind(source, raw), self._time
        channels = x.shape[self._axis]
        state, wanted = self._first(source, channels), self._first(raw, channels)
        halves = (state[: self._batch], state[self._batch :])
        given, null = wanted[: self._batch], wanted[self._batch :]
        read = outputs[0].shape[self._axis] > channels
        variance = raw[: self._batch, channels : outputs[0].shape[1]]
        guided = [self._first(out, channels) for out in outputs]
        flat = np.zeros(prod(x.shape[1:]), self._real)
        scratch = flat.reshape(x.shape[1:])
        alone, first = self._halves(), list[Call]()

        def call(t: float, slot: int) -> None:
            time.fill(t)
            index, out = self._index(), guided[slot]
            if alone and self._alone[index]:
                np.copyto(halves[0], x, casting="same_kind")
                if not first:
                    first.append(self._bind(source[: self._batch], raw[: self._batch]))
                first[0]()
                np.copyto(out, given)
            else:
                for half in halves:
                    np.copyto(half, x, casting="same_kind")
                run()
                np.subtract(given, null, out=out, dtype=out.dtype)
                np.multiply(out, self._columns[index], out=out)
                np.add(out, null, out=out)
                if self._rescale:
                    rescale_guided(out, given, self._rescale, flat, scratch)
            if read:
                np.copyto(outputs[slot][:, channels:], variance)

        return call

    def _index(self) -> int:
        """Return the row of scales for the next call; a run that follows without new conditions begins again."""
        index = self._made % len(self._table)
        self._made += 1
        return index

    def _teller(self) -> Callable[[float], None]:
        """Return what tells the network the time, and the scale if it guides by itself."""
        time, folded = self._time, self._folded
        if folded is None:
            return time.fill

        def tell(t: float) -> None:
            time.fill(t)
            row = self._table[self._index()]
            folded[...] = row if folded.size == len(row) else row[0]

        return tell

    def _halves(self) -> bool:
        """Return whether the network takes the conditioned half alone."""
        axes = [spec.shape[0] for spec in self._network.inputs if spec.shape and spec.role != "timestep"]
        limits = [self._network.axes.get(axis) for axis in axes if isinstance(axis, str)]
        return len(limits) == len(axes) and all(axis is None or axis.takes(self._batch) for axis in limits)

    def _first(self, array: Array, channels: int) -> Array:
        return array[(slice(None),) * self._axis + (slice(channels),)]

    def _stage(self, x: Array) -> tuple[Array, Array]:
        source = self._source
        if source is None:
            source = np.zeros((self._rows, *x.shape[1:]), self._sample.dtype)
        return source, np.zeros(self._raw_shape(x), self._out.dtype)

    def _raw_shape(self, x: Array) -> tuple[int, ...]:
        """Return the shape of all that the network gives for a state like `x`."""
        shape = [self._rows, *x.shape[1:]]
        shape[self._axis] = output_channels(self._out, x, self._axis)
        return tuple(shape)

    def _stage_extra(self, extra: tuple[int, ...]) -> tuple[Array, Array]:
        """Return the input for state and extra channels together, and the part of it that is for the latter."""
        shape = [self._rows, *extra]
        own = self._network.sample_shape[self._axis - 1]
        assert isinstance(own, int)
        shape[self._axis] += own
        source = np.zeros(shape, self._sample.dtype)
        return source, source[(slice(None),) * self._axis + (slice(own, None),)]

    def _number(self, role: str) -> Array:
        spec = _of_role(self._network.inputs, role)
        return np.zeros([axis if isinstance(axis, int) else self._rows for axis in spec.shape], spec.dtype)

    def _buffer(self, role: str, shape: tuple[int, ...]) -> Array:
        spec = _of_role(self._network.inputs, role)
        return np.zeros((self._rows, *shape) if spec.shape else (), spec.dtype)

    def _bind(self, x: Array, out: Array) -> Call:
        buffers = {"timestep": self._time, **self._conditions}
        if self._folded is not None:
            buffers["guidance_scale"] = self._folded
        if len(x) < self._rows:
            buffers = {role: array[: len(x)] if array.ndim else array for role, array in buffers.items()}
        buffers["sample"] = x
        inputs = {spec.name: buffers[spec.role] for spec in self._network.inputs}
        return self._backend.bind(inputs, {self._out.name: out})


def _of_role(specs: Sequence[TensorSpec], role: str) -> TensorSpec:
    return next(spec for spec in specs if spec.role == role)


def output_channels(out: TensorSpec, x: Array, axis: int) -> int:
    """Return the network's output channels: more than `x` has where it also learned a variance, which is left out."""
    channels = out.shape[axis] if len(out.shape) == x.ndim else None
    pairs = list(zip(out.shape, x.shape))
    fits = [a == b for k, (a, b) in enumerate(pairs) if k not in (0, axis) and isinstance(a, int)]
    if channels is None or (isinstance(channels, int) and channels < x.shape[axis]) or not all(fits):
        raise BundleError(
            "the network's output is no sample",
            got=Tensor(out.name, out.dtype, out.shape),
            expected=f"a tensor like the input's {list(x.shape[1:])}",
        )
    return channels if isinstance(channels, int) else int(x.shape[axis])
