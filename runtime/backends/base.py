"""What a backend is: the tensors that a network takes and gives, and a call bound to fixed buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError
from dpmrt.solvers_np.execution.device.place import Place, address

Array: TypeAlias = NDArray[Any]
Call: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class Tensor:
    """One input or output of a graph, by its name there; a string in the shape is a free axis.

    >>> Tensor("sample", "float32", ("batch", 1, 8, 8)).rank
    4
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def rank(self) -> int:
        """Return the number of axes."""
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(str(axis) for axis in self.shape)}]"


@runtime_checkable
class Backend(Protocol):
    """A network that can be run, whatever runs it."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return what the network takes."""

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Return what the network gives."""

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Call:
        """Fix the buffers of a call once; the returned function reads `inputs` and writes into `outputs`.

        Every input needs a buffer; an output without one is not computed or thrown away. The buffers are kept alive
        by the function, keep their addresses, and no output shares memory with an input.
        """

    def close(self) -> None:
        """Let go of the network; a bound call made afterwards raises BackendError."""


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend whose buffers are device arrays, and whose calls are enqueued on the stream of its place."""

    @property
    def place(self) -> Place:
        """Return where the buffers have to be, and the stream that calls are ordered on."""

    @property
    def capturable(self) -> bool:
        """Return whether a call only enqueues, so that it may become part of a CUDA graph."""

    @property
    def generation(self) -> int:
        """Return a number that changes when a captured call would no longer be what a new one is."""


def check_buffers(
    specs: tuple[Sequence[Tensor], Sequence[Tensor]], inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> None:
    """Hold the buffers of a call against what the graph declares; raises ArrayError for the first that is wrong."""
    for kind, declared, given in (("input", specs[0], inputs), ("output", specs[1], outputs)):
        by_name = {spec.name: spec for spec in declared}
        complete = set(given) == set(by_name) if kind == "input" else bool(given) and set(given) <= set(by_name)
        if not complete:
            raise ArrayError(
                f"the {kind} buffers are not those of the graph",
                got=", ".join(sorted(given)) or "none",
                expected=", ".join(sorted(by_name)) or "none",
            )
        for name, array in given.items():
            _check_buffer(kind, by_name[name], array)
    for target in outputs:
        for source in inputs:
            if _overlap(outputs[target], inputs[source]):
                raise ArrayError(
                    "an output buffer shares memory with an input buffer",
                    got=f"{target} and {source}",
                    expected="separate buffers",
                    fix="allocate the output on its own",
                )


def run_once(backend: Backend, inputs: Mapping[str, Array], name: str, out: Array) -> Array:
    """Run a backend once from arrays of the host into `out`, wherever it computes, and return that.

    For a single answer, as in comparisons; sampling binds its buffers once.
    """
    if not isinstance(backend, DeviceBackend):
        backend.bind(inputs, {name: out})()
        return out
    place = backend.place
    with place.work():
        there = {key: place.zeros(array.shape, array.dtype) for key, array in inputs.items()}
        for key, array in inputs.items():
            place.upload(there[key], array)
        result = place.zeros(out.shape, out.dtype)
        backend.bind(there, {name: result})()
        out[...] = place.download(result)
    return out


def _check_buffer(kind: str, spec: Tensor, array: Array) -> None:
    fits = array.ndim == spec.rank and all(
        not isinstance(axis, int) or axis == size for axis, size in zip(spec.shape, array.shape)
    )
    if array.dtype != np.dtype(spec.dtype) or not fits:
        raise ArrayError(
            f"{kind} buffer `{spec.name}` does not fit the graph",
            got=f"{array.dtype}{list(array.shape)}",
            expected=spec,
        )
    if not array.flags.c_contiguous:
        raise ArrayError(
            f"{kind} buffer `{spec.name}` is not contiguous",
            got=f"strides {array.strides}",
            expected="C order",
            fix="pass np.ascontiguousarray(...)",
        )
    if kind == "output" and not getattr(array.flags, "writeable", True):
        raise ArrayError(f"output buffer `{spec.name}` is read-only", expected="a writeable array")


def _overlap(one: Array, other: Array) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.may_share_memory(one, other)
    # Device arrays are contiguous when they come here, so their addresses say it all.
    first, second = address(one), address(other)
    return first < second + other.nbytes and second < first + one.nbytes
