"""A network and the product of a vector with its Jacobian, v^T d out / d x, from a bundle's second graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import MANIFEST_NAME, Network, TensorSpec
from dpmrt.errors import BundleError
from dpmrt.runtime.backends import Backend, host_engine, open_backend
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.conditions import EXTRA, Conditions
from dpmrt.runtime.network_checks import check_network, check_rows
from dpmrt.solvers_np import NoiseSchedule

Array = NDArray[Any]


class Product(Protocol):
    """product(x, t, v) -> (raw output, v^T J), for one batch and shape; J is the Jacobian of the output in x."""

    @property
    def schedule(self) -> NoiseSchedule:
        """Return the schedule that the network was trained with."""

    prediction: str
    precision: str
    shape: tuple[int, ...]

    def __call__(self, x: Array, t: float, v: Array) -> tuple[Array, Array]:
        """Return the output at the state `x`, and v^T J."""


def open_product(root: Path, network: Network | None) -> Backend:
    """Open a bundle's vector-Jacobian graph with what runs anywhere, or say how to make one."""
    if network is None:
        raise BundleError(
            "the bundle has no vector-Jacobian graph, which an exact likelihood needs",
            got=root,
            expected=f"`vjp` in {MANIFEST_NAME}",
            fix="export the network again with one: dpmrt export SOURCE -o BUNDLE --vjp",
        )
    backend = open_backend(host_engine(network), root, network)
    try:
        check_network(backend, network)
    except BaseException:
        backend.close()
        raise
    return backend


class NetworkProduct:
    """A bundle's product, conditioned, for one batch and shape. `calls` counts what was asked."""

    def __init__(
        self, bundle: OpenBundle, network: Network, backend: Backend, shape: tuple[int, ...], conditions: Conditions
    ) -> None:
        check_rows(network, shape[0], False)
        self.shape = shape
        self.prediction: str = bundle.manifest.prediction
        self.precision: str = network.precision.kind
        self.calls = 0
        self._bundle = bundle
        axis = network.channel_axis
        self._own = (slice(None),) * axis + (slice(shape[axis]),)
        specs = {spec.role: spec for spec in (*network.inputs, *network.outputs)}
        sizes = list(shape)
        sizes[axis] += network.extra_channels
        self._buffers = {role: _buffer(specs[role], sizes) for role in ("sample", "timestep")}
        self._buffers["cotangent"] = np.zeros(shape, specs["cotangent"].dtype)
        for role, value in conditions.values.items():
            if role == EXTRA and network.extra_channels:
                self._buffers["sample"][(slice(None),) * axis + (slice(shape[axis], None),)] = value
            else:
                self._buffers[role] = np.array(value, specs[role].dtype, order="C")
        sizes[axis] = shape[axis] * self._parts(specs["out_sample"], axis)
        self._raw, self._vjp = np.zeros(sizes, specs["out_sample"].dtype), np.zeros(shape, specs["vjp"].dtype)
        self._call = backend.bind(
            {spec.name: self._buffers[spec.role] for spec in network.inputs},
            {specs["out_sample"].name: self._raw, specs["vjp"].name: self._vjp},
        )

    def _parts(self, out: TensorSpec, axis: int) -> int:
        """Return 2 for a network that gives a variance too, and 1 for others."""
        channels = out.shape[axis]
        return channels // self.shape[axis] if isinstance(channels, int) else 1

    @property
    def schedule(self) -> NoiseSchedule:
        """Return the schedule that the network was trained with."""
        from dpmrt.solvers_np import schedule_from_diffusers

        return schedule_from_diffusers(self._bundle.scheduler_config)

    def __call__(self, x: Array, t: float, v: Array) -> tuple[Array, Array]:
        """Return the output at the state `x` and the time `t`, and v^T J, both in float64 and the caller's."""
        self._buffers["sample"][self._own] = x
        self._buffers["timestep"].fill(t)
        self._buffers["cotangent"][...] = v
        self._call()
        self.calls += 1
        return self._raw[self._own].astype(np.float64), self._vjp.astype(np.float64)


def _buffer(spec: TensorSpec, sizes: list[int]) -> Array:
    shape = sizes if spec.role == "sample" else [axis if isinstance(axis, int) else sizes[0] for axis in spec.shape]
    return np.zeros(shape, spec.dtype)
