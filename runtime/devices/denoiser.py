"""The network as the executor on a device sees it: staging, guidance and times are kernels on the same stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from dpmrt.engines import Network
from dpmrt.runtime.backends.base import Array, DeviceBackend
from dpmrt.runtime.denoiser import Denoiser, output_channels
from dpmrt.solvers_np.execution.device.executor import DeviceCall
from dpmrt.solvers_np.execution.device.kernels import Kernels, Launch
from dpmrt.solvers_np.execution.device.place import Place, address


class DeviceDenoiser(Denoiser):
    """A Denoiser whose buffers are on a device.

    What a run is conditioned on is written into the host's buffers, as there, and copied to the device's, which keep
    their addresses; so a captured trajectory serves every label, text and scale of guidance.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        network: Network,
        batch: int,
        *,
        guided: bool = False,
        conditions: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__(backend, network, batch, guided=guided, conditions=conditions)
        self._on_device = backend
        self._place = backend.place
        self._kernels = Kernels(self._place)
        self._mirrors: dict[int, tuple[Array, Any]] = {}
        self._time_there = self._place.zeros(self._time.shape, self._time.dtype)
        self._scale_there: Any = None

    @property
    def capturable(self) -> bool:
        """Return whether the backend's calls may become part of a CUDA graph."""
        return self._on_device.capturable

    def state(self) -> Hashable:
        """Return what a captured call depends on beside its buffers."""
        return self._on_device.generation

    def condition(
        self, values: Mapping[str, Array], null: Mapping[str, Array] | None = None, scale: float = 1.0
    ) -> None:
        """Write the conditions of the next run into the bound buffers, on the host and then on the device."""
        super().condition(values, null, scale)
        with self._place.work():
            for here, there in self._mirrors.values():
                self._place.upload(there, here)
            if self._scale_there is not None:
                self._place.upload(self._scale_there, np.array([self._scale]))

    def bind_device(self, place: Place, x: Any, outputs: Sequence[Any], times: Sequence[float]) -> DeviceCall:
        """Return call(index, slot), which enqueues the network on `x` at times[index] into outputs[slot]."""
        assert place.stream is self._place.stream
        table = self._time_table(times)
        time = self._time_there
        tell = [self._kernels.bytes(address(table) + k * time.nbytes, time) for k in range(len(times))]
        before, run, after = self._stages(x, outputs)

        def call(index: int, slot: int) -> None:
            tell[index]()
            for launch in before:
                launch()
            run[slot]()
            for launch in after[slot]:
                launch()

        # The table is only known by its address.
        call.table = table  # type: ignore[attr-defined]
        return call

    def tell_time(self, call: DeviceCall, t: float) -> None:
        """Put another time into the first place of a bound call's table, where times are not known beforehand."""
        table = call.table  # type: ignore[attr-defined]
        self._place.upload(table[:1], np.full(self._time.shape, t, self._time.dtype)[None])

    def _time_table(self, times: Sequence[float]) -> Any:
        host = np.stack([np.full(self._time.shape, t, self._time.dtype) for t in times])
        table = self._place.zeros(host.shape, host.dtype)
        self._place.upload(table, host)
        return table

    def _stages(
        self, x: Any, outputs: Sequence[Any]
    ) -> tuple[list[Launch], list[Callable[[], None]], list[list[Launch]]]:
        """Return what runs before the network, the network for each slot, and what runs after it."""
        channels = output_channels(self._out, x, self._axis)
        self._check_variance(channels, x, outputs[0])
        direct = self._sample.dtype == x.dtype.name and self._out.dtype == x.dtype.name and self._extra is None
        if direct and not self._guided and channels == outputs[0].shape[self._axis]:
            return [], [self._run(x, out) for out in outputs], [[] for _ in outputs]
        raw = self._place.zeros(self._raw_shape(x), self._out.dtype)
        if self._source is not None:
            source = self._there(self._source)
        else:
            source = self._place.zeros((self._rows, *x.shape[1:]), self._sample.dtype)
        run = self._run(source, raw)
        own, taken = self._block(x), self._block(source)
        outer = x.size // own
        copies = (2, source.size // 2) if self._guided else (1, 0)
        stage = self._kernels.move(x, source, own, offsets=(0, 0), pitches=(own, taken), outer=outer, copies=copies)
        return [stage], [run] * len(outputs), [self._unstage(x, raw, out) for out in outputs]

    def _unstage(self, x: Any, raw: Any, out: Any) -> list[Launch]:
        """Return what takes the output that is wanted, guided or as it is, from all that the network gave."""
        given, kept, own = self._block(raw), self._block(out), self._block(x)
        outer, pitches = x.size // own, (given, kept)
        if not self._guided:
            return [self._kernels.move(raw, out, kept, offsets=(0, 0), pitches=pitches, outer=outer)]
        if self._scale_there is None:
            self._scale_there = self._place.zeros(1, x.dtype)
        null = raw.size // 2
        made = [
            self._kernels.combine(raw, out, own, null=null, pitches=pitches, outer=outer, scale=self._scale_there)
        ]
        if kept > own:
            rest = kept - own
            made.append(self._kernels.move(raw, out, rest, offsets=(own, own), pitches=pitches, outer=outer))
        return made

    def _run(self, x: Any, out: Any) -> Callable[[], None]:
        buffers = {"sample": x, "timestep": self._time_there}
        buffers |= {role: self._there(buffer) for role, buffer in self._conditions.items()}
        if self._folded is not None:
            buffers["guidance_scale"] = self._there(self._folded)
        inputs = {spec.name: buffers[spec.role] for spec in self._network.inputs}
        return self._backend.bind(inputs, {self._out.name: out})

    def _there(self, here: Array) -> Any:
        """Return the device's twin of a buffer of the host."""
        if id(here) not in self._mirrors:
            self._mirrors[id(here)] = here, self._place.zeros(here.shape, here.dtype)
        return self._mirrors[id(here)][1]

    def _block(self, array: Any) -> int:
        """Return how many numbers lie together from the channel axis on."""
        return math.prod(array.shape[self._axis :])
