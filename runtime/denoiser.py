"""The network as the executor sees it: backend, timestep, conditions and guidance behind one bound call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from dpmrt.engines import Network, TensorSpec
from dpmrt.errors import BundleError, OptionError
from dpmrt.runtime.backends.base import Array, Backend, Call, Tensor
from dpmrt.solvers_np import StepPlan

StepCall: TypeAlias = Callable[[float, int], None]


class Denoiser:
    """A model for the executor, for one batch size, with or without classifier-free guidance.

    Unguided, the backend reads the executor's state and writes into its slots, and nothing is copied. Guided, it
    runs once on a doubled batch, whose first half is conditioned and whose second is not.

    `conditions` gives, role by role, the shape of one sample's condition; `condition` fills them in.
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
        self._backend = backend
        self._network = network
        self._batch = batch
        self._guided = guided
        self._rows = 2 * batch if guided else batch
        self._sample = _of_role(network.inputs, "sample")
        self._out = _of_role(network.outputs, "out_sample")
        time = _of_role(network.inputs, "timestep")
        self._time = np.zeros([_extent(axis, self._rows) for axis in time.shape], time.dtype)
        self._conditions = {
            role: np.zeros((self._rows, *shape), _of_role(network.inputs, role).dtype)
            for role, shape in (conditions or {}).items()
        }
        self._scale = 1.0
        _check_batch(self._sample, batch, guided)

    def condition(
        self, values: Mapping[str, Array], null: Mapping[str, Array] | None = None, scale: float = 1.0
    ) -> None:
        """Write the conditions of the next run into the bound buffers; `null` and `scale` are for guidance."""
        self._scale = float(scale)
        for role, buffer in self._conditions.items():
            buffer[: self._batch] = values[role]
            if self._guided:
                buffer[self._batch :] = (null or {})[role]

    def bind(self, x: Array, outputs: Sequence[Array]) -> StepCall:
        """Return call(t, slot), which runs the network on `x` and writes its output into outputs[slot].

        Of a network that also learned a variance, the outputs hold it or not, as the plan reads it or not.
        """
        channels = _channels(self._out, x)
        if outputs[0].shape[1] > channels:
            raise OptionError(
                "the plan reads a variance that the network did not learn",
                got=f"{channels} output channels",
                expected=outputs[0].shape[1],
                fix="choose variance_type='fixed_small', or a network that learned its variance",
            )
        if self._guided:
            return self._bind_guided(x, outputs)
        direct = self._sample.dtype == x.dtype.name and self._out.dtype == x.dtype.name
        if direct and channels == outputs[0].shape[1]:
            return self._bind_direct(x, outputs)
        return self._bind_staged(x, outputs)

    def _bind_direct(self, x: Array, outputs: Sequence[Array]) -> StepCall:
        calls = [self._bind(x, output) for output in outputs]
        time = self._time

        def call(t: float, slot: int) -> None:
            time.fill(t)
            calls[slot]()

        return call

    def _bind_staged(self, x: Array, outputs: Sequence[Array]) -> StepCall:
        source, raw = self._stage(x)
        run, time, kept = self._bind(source, raw), self._time, raw[:, : outputs[0].shape[1]]

        def call(t: float, slot: int) -> None:
            time.fill(t)
            np.copyto(source, x, casting="same_kind")
            run()
            np.copyto(outputs[slot], kept)

        return call

    def _bind_guided(self, x: Array, outputs: Sequence[Array]) -> StepCall:
        source, raw = self._stage(x)
        run, time = self._bind(source, raw), self._time
        halves = (source[: self._batch], source[self._batch :])
        channels = x.shape[1]
        given, null = raw[: self._batch, :channels], raw[self._batch :, :channels]
        variance = raw[: self._batch, channels : outputs[0].shape[1]]
        guided = [out[:, :channels] for out in outputs]

        def call(t: float, slot: int) -> None:
            time.fill(t)
            for half in halves:
                np.copyto(half, x, casting="same_kind")
            run()
            out = guided[slot]
            np.subtract(given, null, out=out, dtype=out.dtype)
            np.multiply(out, self._scale, out=out)
            np.add(out, null, out=out)
            if variance.size:
                np.copyto(outputs[slot][:, channels:], variance)

        return call

    def _stage(self, x: Array) -> tuple[Array, Array]:
        shape = x.shape[1:]
        source = np.zeros((self._rows, *shape), self._sample.dtype)
        raw = np.zeros((self._rows, _channels(self._out, x), *shape[1:]), self._out.dtype)
        return source, raw

    def _bind(self, x: Array, out: Array) -> Call:
        buffers = {"sample": x, "timestep": self._time, **self._conditions}
        inputs = {spec.name: buffers[spec.role] for spec in self._network.inputs}
        return self._backend.bind(inputs, {self._out.name: out})


def check_times(network: Network, plan: StepPlan) -> None:
    """Refuse a plan with times between the whole numbers for a network that takes integers."""
    time = _of_role(network.inputs, "timestep")
    broken = plan.timesteps[plan.timesteps != np.rint(plan.timesteps)]
    if time.dtype.startswith("int") and broken.size:
        raise OptionError(
            "the network takes whole timesteps, and the plan has others",
            got=f"t = {broken[0]:g}",
            expected=f"whole numbers, as `{time.name}` is {time.dtype}",
            fix="choose a grid of whole timesteps, or export the network again with dpmrt, whose timestep is a float",
        )


def check_network(backend: Backend, network: Network) -> None:
    """Hold what the manifest says about a graph against the graph."""
    for kind, specs, tensors in (
        ("input", network.inputs, backend.inputs),
        ("output", network.outputs, backend.outputs),
    ):
        found = {tensor.name: tensor for tensor in tensors}
        extra = set(found) - {spec.name for spec in specs}
        if extra and kind == "input":
            raise _disagree(f"the manifest lacks the input `{min(extra)}`", found[min(extra)], None)
        for spec in specs:
            tensor = found.get(spec.name)
            if tensor is None:
                raise _disagree(f"the graph has no {kind} `{spec.name}`", ", ".join(sorted(found)), spec)
            if tensor.dtype != spec.dtype or tensor.rank != len(spec.shape) or not _agree(tensor, spec):
                raise _disagree(f"manifest and graph disagree about the {kind} `{spec.name}`", tensor, spec)
            if spec.dtype == "bfloat16":
                raise BundleError(
                    f"NumPy has no bfloat16, which the {kind} `{spec.name}` has",
                    got=tensor,
                    expected="float32 or float16",
                    fix="export the network with float32 inputs and outputs",
                )


def _agree(tensor: Tensor, spec: TensorSpec) -> bool:
    pairs = zip(tensor.shape, spec.shape)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _disagree(what: str, got: object, spec: TensorSpec | None) -> BundleError:
    expected = Tensor(spec.name, spec.dtype, spec.shape) if spec else "the inputs that dpmrt.json lists"
    fix = "export the network again: dpmrt export SOURCE -o BUNDLE"
    return BundleError(what, got=got, expected=expected, fix=fix)


def _check_batch(sample: TensorSpec, batch: int, guided: bool) -> None:
    fixed, rows = sample.shape[0], 2 * batch if guided else batch
    if isinstance(fixed, int) and fixed != rows:
        raise OptionError(
            "the network was exported for one batch size",
            got=f"batch {batch}" + (", doubled for guidance" * guided),
            expected=f"{fixed} in all",
            fix="export the network again with a free batch axis",
        )


def _of_role(specs: Sequence[TensorSpec], role: str) -> TensorSpec:
    return next(spec for spec in specs if spec.role == role)


def _extent(axis: int | str, rows: int) -> int:
    return axis if isinstance(axis, int) else rows


def _channels(out: TensorSpec, x: Array) -> int:
    """Return the network's output channels: more than `x` has where it also learned a variance, which is left out."""
    channels = out.shape[1] if len(out.shape) == x.ndim else None
    fits = [a == b for a, b in zip(out.shape[2:], x.shape[2:]) if isinstance(a, int)]
    if channels is None or (isinstance(channels, int) and channels < x.shape[1]) or not all(fits):
        raise BundleError(
            "the network's output is no sample",
            got=Tensor(out.name, out.dtype, out.shape),
            expected=f"a tensor like the input's {list(x.shape[1:])}",
        )
    return channels if isinstance(channels, int) else int(x.shape[1])
