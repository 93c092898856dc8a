"""A network and a plan bound together, on the host or on the device that the backend computes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from dpmrt.engines import Network
from dpmrt.runtime.backends.base import Backend, DeviceBackend
from dpmrt.runtime.denoiser import Denoiser
from dpmrt.solvers_np import Executor, StepPlan

if TYPE_CHECKING:
    from dpmrt.solvers_np.execution.device.executor import DeviceExecutor

Bound: TypeAlias = "tuple[Denoiser, Executor | DeviceExecutor]"


def bind_network(
    backend: Backend,
    network: Network,
    plan: StepPlan,
    shape: tuple[int, ...],
    *,
    guided: bool,
    conditions: Mapping[str, tuple[int, ...]],
) -> Bound:
    """Return a denoiser and an executor for a plan and the state's shape, its batch first.

    They are on the device if the backend says where that is; the state is float32 in either case.
    """
    if not isinstance(backend, DeviceBackend):
        denoiser = Denoiser(backend, network, shape[0], guided=guided, conditions=conditions)
        return denoiser, Executor(plan, denoiser, shape)
    from dpmrt.runtime.devices.denoiser import DeviceDenoiser
    from dpmrt.solvers_np.execution.device.executor import DeviceExecutor

    with backend.place.work():
        there = DeviceDenoiser(backend, network, shape[0], guided=guided, conditions=conditions)
        return there, DeviceExecutor(plan, there, shape, place=backend.place)
