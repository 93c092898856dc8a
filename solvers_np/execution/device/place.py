"""A place to compute: a CuPy-like namespace and one stream of its device."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dpmrt.errors import BackendError, DpmrtError

#: cudaDevAttrPageableMemoryAccess, from CUDA's driver_types.h
_READS_HOST = 88


@dataclass(frozen=True)
class Place:
    """Where device arrays live (`xp`, CuPy) and the stream that everything is ordered on.

    `reads_host` says that the device reads ordinary memory of the host by itself. Elsewhere CUDA has put a copy of
    such memory aside when an asynchronous transfer returns; there it need not.
    """

    xp: Any
    stream: Any
    reads_host: bool = False

    @staticmethod
    def new(xp: Any) -> Place:
        """Return a place with a stream of its own, which a graph can be captured on."""
        cuda = xp.cuda.runtime
        reads_host = bool(cuda.deviceGetAttribute(_READS_HOST, cuda.getDevice()))
        return Place(xp, xp.cuda.Stream(non_blocking=True), reads_host)

    def zeros(self, shape: int | Sequence[int], dtype: DTypeLike) -> Any:
        """Return a zeroed array, allocated for the stream."""
        with self.stream:
            return self.xp.zeros(shape, dtype)

    def upload(self, target: Any, values: NDArray[Any]) -> None:
        """Copy from the host, in the order of the stream; the host array may be changed as soon as this returns."""
        target.set(np.ascontiguousarray(values, dtype=target.dtype).reshape(target.shape), stream=self.stream)
        if self.reads_host:
            self.stream.synchronize()

    def download(self, source: Any) -> NDArray[Any]:
        """Return a copy on the host, when all that the stream was given before is done."""
        values: NDArray[Any] = source.get(stream=self.stream)
        return values

    def settle(self) -> None:
        """Wait for what was enqueued, after a failure; a device that is lost has nothing left to wait for."""
        with contextlib.suppress(Exception):
            self.stream.synchronize()

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Make the stream the current one, and what CUDA refuses a BackendError."""
        try:
            with self.stream:
                yield
        except DpmrtError:
            raise
        except Exception as error:
            if not type(error).__module__.startswith(("cupy", self.xp.__name__.split(".")[0])):
                raise
            if isinstance(error, MemoryError):
                raise BackendError(
                    "the device's memory is exhausted",
                    got=first_line(error),
                    expected="enough free memory for network and buffers",
                    fix="ask for a smaller batch or shape, or close what else runs on the GPU",
                ) from error
            raise BackendError("CUDA failed", got=f"{type(error).__name__}: {first_line(error)}") from error


def place_of(array: object) -> Place | None:
    """Return the place of a device array, its namespace taken from its type; None for an array of NumPy.

    >>> import numpy as np
    >>> place_of(np.zeros(3)) is None
    True
    """
    if isinstance(array, np.ndarray) or not hasattr(array, "__cuda_array_interface__"):
        return None
    return Place.new(sys.modules[type(array).__module__.split(".")[0]])


def address(array: Any) -> int:
    """Return where the numbers of an array begin, on the host or on the device."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
