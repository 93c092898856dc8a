"""What GPU is here, asked of NVIDIA's driver itself, so that no package is needed to know."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

#: names and numbers from cuda.h
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18
_MEMINFO = "/proc/meminfo"


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, and the driver it was asked through.

    `cuda` is the newest version that the driver supports. What could not be found out is None: the driver's own
    version and the free memory come from NVML, which Jetson does not have in full.
    """

    name: str
    compute_capability: str
    cuda: str
    total_memory: int
    driver: str | None = None
    free_memory: int | None = None
    integrated: bool = False

    def __str__(self) -> str:
        driver = f", driver {self.driver}" if self.driver else ""
        return f"{self.name} (compute capability {self.compute_capability}{driver}, CUDA {self.cuda})"


def current_gpu(device: int = 0) -> Gpu | None:
    """Return the GPU that CUDA counts as `device`, or None; `why_no_gpu` then says why.

    >>> gpu = current_gpu()
    >>> gpu is not None or why_no_gpu() is not None
    True
    """
    found = _find(device)
    return found if isinstance(found, Gpu) else None


def why_no_gpu(device: int = 0) -> str | None:
    """Return why there is no GPU to use, or None if there is one."""
    found = _find(device)
    return found if isinstance(found, str) else None


def _find(device: int) -> Gpu | str:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"NVIDIA's driver cannot be loaded: {error}"
    try:
        return _Driver(cuda).describe(device)
    except _DriverError as error:
        return str(error)
    except AttributeError as error:
        return f"libcuda.so.1 is not a driver that dpmrt knows: {error}"


class _DriverError(Exception):
    """A call of the driver that failed."""


class _Driver:
    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code == 0:
            return
        text = ctypes.c_char_p()
        self._cuda.cuGetErrorString(code, ctypes.byref(text))
        raise _DriverError(f"{name} failed: {text.value.decode() if text.value else 'unknown error'} ({code})")

    def describe(self, ordinal: int) -> Gpu | str:
        self._call("cuInit", ctypes.c_uint(0))
        count, version, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        if not 0 <= ordinal < count.value:
            return f"there is no CUDA device {ordinal}: the driver sees {count.value} of them"
        self._call("cuDriverGetVersion", ctypes.byref(version))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
        name, bus = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
        self._call("cuDeviceGetName", name, ctypes.c_int(len(name)), device)
        self._call("cuDeviceGetPCIBusId", bus, ctypes.c_int(len(bus)), device)
        total = ctypes.c_size_t()
        self._call("cuDeviceTotalMem_v2", ctypes.byref(total), device)
        integrated = bool(self._attribute(_INTEGRATED, device))
        driver, free = _management(bus.value)
        return Gpu(
            name.value.decode(errors="replace"),
            f"{self._attribute(_MAJOR, device)}.{self._attribute(_MINOR, device)}",
            f"{version.value // 1000}.{version.value % 1000 // 10}",
            total.value,
            driver,
            _available() if free is None and integrated else free,
            integrated,
        )

    def _attribute(self, which: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(which), device)
        return value.value


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def _management(bus: bytes) -> tuple[str | None, int | None]:
    """Return the driver's version and the GPU's free memory from NVML, which makes no context on the device."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() != 0:
            return None, None
    except (OSError, AttributeError):
        return None, None
    try:
        version, handle, memory = ctypes.create_string_buffer(80), ctypes.c_void_p(), _Memory()
        known = nvml.nvmlSystemGetDriverVersion(version, ctypes.c_uint(len(version))) == 0
        # NVML counts devices in another order than CUDA; the bus says which one it is.
        found = nvml.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(handle)) == 0
        found = found and nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0
        return version.value.decode(errors="replace") if known else None, memory.free if found else None
    except AttributeError:
        return None, None
    finally:
        nvml.nvmlShutdown()


def _available() -> int | None:
    """Return what is free of the memory that an integrated GPU shares with the processor."""
    try:
        with open(_MEMINFO) as stream:
            kib = next(line.split()[1] for line in stream if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, IndexError):
        return None
    return int(kib) * 1024 if kib.isdigit() else None
