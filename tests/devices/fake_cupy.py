"""A CuPy for tests: arrays on the host, kernels compiled as C++, streams that can be captured and replayed.

It refuses what a GPU would refuse: allocations, copies, waits and the loading of kernels within a capture, kernels
without a stream of one's own, and everything once the device is `lost`. With `reads_host` it is a device that fetches
what it was given from the host when it comes to it, as those do that share the host's page tables.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from cuda_shim import compile_kernel


class CUDARuntimeError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class FakePointer:
    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


class Array(np.lib.mixins.NDArrayOperatorsMixin):
    """A device array: NumPy's memory, which only kernels, `set`, `get` and its own arithmetic reach."""

    def __init__(self, host: np.ndarray[Any, Any]) -> None:
        self._host = host

    dtype = property(lambda self: self._host.dtype)
    shape = property(lambda self: self._host.shape)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    data = property(lambda self: FakePointer(self._host.ctypes.data))
    __cuda_array_interface__ = property(lambda self: {"shape": self.shape, "data": (self.data.ptr, False)})

    @property
    def flags(self) -> Any:
        return types.SimpleNamespace(c_contiguous=self._host.flags.c_contiguous)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        if any(isinstance(value, np.ndarray) and value.ndim for value in inputs):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return elementwise(getattr(ufunc, method), *inputs, out=out, **kwargs)

    def all(self) -> Array:
        return elementwise(np.all, self)

    def __bool__(self) -> bool:
        _log("get", self.nbytes)
        return bool(self._host)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, index: Any) -> Array:
        return Array(self._host[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        _outside_capture("an elementwise assignment")
        self._host[index] = value._host if isinstance(value, Array) else value

    def reshape(self, *shape: Any) -> Array:
        viewed = self._host.reshape(*shape)
        assert np.may_share_memory(viewed, self._host) or not self.size
        return Array(viewed)

    def copy(self) -> Array:
        _outside_capture("an allocation")
        return Array(self._host.copy())

    def set(self, arr: Any, stream: Any = None) -> None:
        _outside_capture("a copy from pageable memory")
        assert isinstance(arr, np.ndarray)
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(f"{arr.dtype}{arr.shape} into {self.dtype}{self.shape}")
        _log("set", arr.nbytes)
        if device["reads_host"]:
            assert stream is not None
            stream.pending.append(lambda: self._host.__setitem__(..., arr))
        else:
            self._host[...] = arr

    def get(self, stream: Any = None) -> Any:
        _outside_capture("a copy to pageable memory")
        _log("get", self.nbytes)
        if stream is not None:
            stream.settle()
        return self._host.copy()


def elementwise(function: Any, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
    """Apply a function of NumPy to device arrays, outside of a capture."""
    _outside_capture("an allocation")
    out = out[0] if isinstance(out, tuple) else out
    if out is not None:
        kwargs["out"] = out._host
    made = function(*(value._host if isinstance(value, Array) else value for value in inputs), **kwargs)
    return out if out is not None else Array(np.asarray(made))


class Graph:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self._work = work

    def launch(self, stream: Any = None) -> None:
        _log("graph", len(self._work))
        for one in self._work:
            (stream or Stream.current[-1]).enqueue(one)


class Stream:
    current: ClassVar[list[Stream]] = []
    known: ClassVar[dict[int, Stream]] = {}

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr = 0x5000 + 16 * len(Stream.known)
        Stream.known[self.ptr] = self
        self.recording: list[Callable[[], None]] | None = None
        self.non_blocking = non_blocking
        self.refuse_capture: Exception | None = None
        self.pending: list[Callable[[], Any]] = []
        self.invalidated = False

    def __enter__(self) -> Stream:
        Stream.current.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        Stream.current.pop()

    def synchronize(self) -> None:
        _outside_capture("a synchronisation")
        _log("synchronize", 0)
        self.settle()

    def settle(self) -> None:
        """Do what the device has put off."""
        while self.pending:
            self.pending.pop(0)()

    def begin_capture(self, mode: int | None = None) -> None:
        if self.refuse_capture is not None:
            raise self.refuse_capture
        if self.recording is not None or not self.non_blocking:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted")
        self.recording = []

    def end_capture(self) -> Graph:
        if self.recording is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is not capturing")
        work, self.recording = self.recording, None
        if self.invalidated:
            self.invalidated = False
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")
        return Graph(work)

    def is_capturing(self) -> bool:
        return self.recording is not None

    def enqueue(self, work: Callable[[], None]) -> None:
        _alive()
        if self.recording is not None:
            self.recording.append(work)
        elif device["reads_host"]:
            # A device that is busy comes to nothing before it is waited for.
            self.pending.append(work)
        else:
            work()


class RawKernel:
    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        self._code, self._name = code, name
        self._run: Any = None

    def compile(self, log_stream: Any = None) -> None:
        _outside_capture("the loading of a kernel")
        if device["compiler"] is not None:
            raise RuntimeError(device["compiler"])
        self._run = compile_kernel(self._code, self._name)

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        assert Stream.current, f"{self._name} launched on no stream"
        assert all(isinstance(arg, np.generic) for arg in args)
        assert block[0] <= 1024
        assert grid[0] < 1 << 31
        if self._run is None:
            self.compile()
        run = self._run
        _log("kernel", self._name)
        Stream.current[-1].enqueue(lambda: run(grid, block, args))


log: list[tuple[str, object]] = []
memory = {"free": 8 << 30, "total": 16 << 30}
_SOUND: dict[str, Any] = {"reads_host": False, "compiler": None, "lost": False}
device = dict(_SOUND)


def _log(kind: str, what: object) -> None:
    log.append((kind, what))


def _alive() -> None:
    if device["lost"]:
        raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")


def _outside_capture(what: str) -> None:
    _alive()
    for stream in Stream.known.values():
        if stream.recording is not None:
            # What is not allowed within a capture ends it, too.
            stream.invalidated = True
            raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is capturing")


def _allocate(shape: Any, dtype: Any, value: Any) -> Array:
    """Allocate as a device does, at multiples of 512 bytes."""
    _outside_capture("an allocation")
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size > memory["free"]:
        raise OutOfMemoryError(f"Out of memory allocating {size} bytes")
    room = np.zeros(size + 512, np.uint8)
    shift = -room.ctypes.data % 512
    host = room[shift : shift + size].view(dtype).reshape(shape)
    host[...] = value
    return Array(host)


def module() -> types.ModuleType:
    """Return a new `cupy`, to put in sys.modules."""
    cupy = types.ModuleType("cupy")
    for kind in (Array, CUDARuntimeError, OutOfMemoryError, Stream, RawKernel, Graph):
        kind.__module__ = "cupy"
    runtime = types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        memGetInfo=lambda: (memory["free"], memory["total"]),
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        deviceGetAttribute=lambda which, ordinal: int(device["reads_host"] and which == 88),
    )
    cupy.cuda = types.SimpleNamespace(  # type: ignore[attr-defined]
        Stream=Stream, Graph=Graph, runtime=runtime, memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
    )
    names: dict[str, Any] = {
        "__version__": "14.2.0",
        "ndarray": Array,
        "RawKernel": RawKernel,
        "zeros": lambda shape, dtype=np.float64: _allocate(shape, dtype, 0),
        "full": lambda shape, value, dtype: _allocate(shape, dtype, value),
        "asarray": lambda values: Array(np.array(values)),
    }
    for name in ("multiply", "isfinite", "where", "sqrt", "exp"):
        names[name] = functools.partial(elementwise, getattr(np, name))
    for name, value in names.items():
        setattr(cupy, name, value)
    return cupy


def install(monkeypatch: Any) -> Any:
    """Make `import cupy` find this module."""
    gc.collect()
    log.clear()
    memory.update(free=8 << 30, total=16 << 30)
    device.update(_SOUND)
    Stream.known.clear()
    Stream.current.clear()
    made = module()
    monkeypatch.setitem(sys.modules, "cupy", made)
    return made
