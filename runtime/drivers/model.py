"""NetworkModel: a bundle's network, conditioned, as a function of state and time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.backends.base import Backend, DeviceBackend
from dpmrt.runtime.denoiser import Denoiser

if TYPE_CHECKING:
    from dpmrt.engines import Network
    from dpmrt.runtime.bundle import OpenBundle
    from dpmrt.runtime.conditions import Conditions
    from dpmrt.solvers_np import NoiseSchedule, StepPlan

Array = NDArray[Any]
_Call = Callable[[float], None]
_Bound = tuple[Denoiser, _Call]


class NetworkModel:
    """model(x, t) -> the network's raw output, for one batch and shape and one set of conditions.

    States are arrays of NumPy, wherever the network runs; float64 comes back as float64, though the network computes
    in its own precision. The result is the caller's. `calls` counts what was asked.

    Guidance that changes on the way goes by the time of a call; where a plan is followed, by the calls of the plan,
    and `take_call` says which of them comes.
    """

    def __init__(
        self,
        bundle: OpenBundle,
        backend: Backend,
        shape: tuple[int, ...],
        conditions: Conditions,
        plan: StepPlan | None = None,
    ) -> None:
        self.shape = shape
        self.prediction: str = bundle.manifest.prediction
        self.precision: str = bundle.manifest.unet.precision.kind
        self.calls = 0
        self._bundle = bundle
        self._x = np.zeros(shape, np.float32)
        self._raw = np.zeros(shape, np.float32)
        self._scales = conditions.scales
        self._table = None if plan is None else self._scales.table(plan)
        if plan is None:
            self._scales.check_free()
        self._denoiser, self._call = self._bind(backend, bundle.manifest.unet, conditions)
        self._denoiser.condition(conditions.values, conditions.null, self._scales.base[None], self._scales.rescale)

    def _bind(self, backend: Backend, network: Network, conditions: Conditions) -> _Bound:
        guided, shapes = conditions.guided, conditions.shapes()
        if isinstance(backend, DeviceBackend):
            return _bind_there(backend, network, conditions, shapes, self._x, self._raw)
        denoiser = Denoiser(backend, network, self.shape[0], guided=guided, conditions=shapes)
        call = denoiser.bind(self._x, [self._raw])
        return denoiser, lambda t: call(t, 0)

    @functools.cached_property
    def schedule(self) -> NoiseSchedule:
        """Return the schedule that the network was trained with."""
        from dpmrt.solvers_np import schedule_from_diffusers

        # Read anew where it is not known, which says why.
        return self._bundle.schedule or schedule_from_diffusers(self._bundle.scheduler_config)

    @property
    def whole_times(self) -> bool:
        """Return whether the network takes whole timesteps only."""
        return any(i.role == "timestep" and i.dtype.startswith("int") for i in self._bundle.manifest.unet.inputs)

    def take_call(self, call: int) -> None:
        """Guide from now on as at this call of the plan that the model was made for."""
        assert self._table is not None
        if self._scales.varies:
            self._denoiser.set_scales(self._table[call][None])

    def __call__(self, x: Array, t: float | Array) -> Array:
        """Return the raw output at the state `x`, (batch, *shape), and the time `t`, which is one for all."""
        x, time = np.asarray(x), np.asarray(t)
        if x.shape != self.shape or x.dtype.kind != "f":
            raise ArrayError("the state does not fit the model", got=f"{x.dtype}{x.shape}", expected=self.shape)
        if not time.size or (time != time.flat[0]).any():
            raise OptionError("the model takes one time for all samples", got=t, expected="a number")
        self._x[...] = x
        now = float(time.flat[0])
        if self._scales.varies and self._table is None:
            schedule = self.schedule
            self._denoiser.set_scales(self._scales.at(now, float(schedule.alpha(now)), float(schedule.sigma(now))))
        self._call(now)
        self.calls += 1
        return self._raw.astype(np.float64 if x.dtype == np.float64 else np.float32)


def _bind_there(
    backend: DeviceBackend,
    network: Network,
    conditions: Conditions,
    shapes: Mapping[str, tuple[int, ...]],
    x: Array,
    raw: Array,
) -> _Bound:
    """Return the call on a device, for a state and an output of the host."""
    from dpmrt.runtime.devices.denoiser import DeviceDenoiser

    place = backend.place
    with place.work():
        denoiser = DeviceDenoiser(backend, network, len(x), guided=conditions.guided, conditions=shapes)
        there, out = place.zeros(x.shape, x.dtype), place.zeros(raw.shape, raw.dtype)
        run = denoiser.bind_device(place, there, [out], [0.0])

    def call(t: float) -> None:
        with place.work():
            place.upload(there, x)
            denoiser.tell_time(run, t)
            run(0, 0)
            raw[...] = place.download(out)

    return denoiser, call
