"""CuPy, imported when a GPU is asked for, and what it says about the device's memory."""

from __future__ import annotations

import importlib
from importlib.metadata import packages_distributions
from typing import Any

from dpmrt.errors import BackendError, MissingExtraError
from dpmrt.runtime.gpu import Gpu, current_gpu, why_no_gpu
from dpmrt.runtime.interrupt import was_interrupted
from dpmrt.solvers_np.execution.device.place import Place, first_line

#: since this version CuPy waits for the copies to the host that it makes
OLDEST = 13


def require_gpu(engine: str) -> Gpu:
    """Return the GPU that is here, or say why there is none."""
    gpu = current_gpu()
    if gpu is None:
        raise BackendError(
            f"the engine `{engine}` needs an NVIDIA GPU, and there is none to use",
            got=why_no_gpu(),
            expected="a GPU and its driver",
            fix="engine='onnxruntime', which runs on the processor",
        )
    return gpu


def open_place(engine: str) -> Place:
    """Return CuPy and a stream of its own, or say what is missing for the engine."""
    gpu = require_gpu(engine)
    wanted = f"cupy-cuda{gpu.cuda.partition('.')[0]}x"
    try:
        cupy: Any = importlib.import_module("cupy")
    except ImportError as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise MissingExtraError(
                f"the engine `{engine}` needs a package that is not installed",
                got="no module cupy",
                expected=f"CuPy {OLDEST} or newer, for CUDA {gpu.cuda}",
                fix=f"pip install '{wanted}[ctk]', or without [ctk] where a CUDA toolkit is installed",
            ) from None
        raise BackendError(
            "CuPy is installed and cannot be loaded",
            got=first_line(error),
            fix=f"pip install --force-reinstall {_installed() or wanted}",
        ) from error
    _check_version(str(cupy.__version__), wanted)
    try:
        place = Place.new(cupy)
    except Exception as error:
        raise BackendError(
            "CuPy cannot use the GPU",
            got=f"{type(error).__name__}: {first_line(error)}",
            expected=f"a CuPy for the driver's CUDA {gpu.cuda}",
            fix=f"pip uninstall {_installed() or 'cupy'}; pip install '{wanted}[ctk]'",
        ) from error
    _check_compiler(cupy, wanted)
    return place


def _installed() -> str | None:
    """Return the distribution that CuPy came with: another one beside it would overwrite half of its files."""
    return next(iter(packages_distributions().get("cupy", ())), None)


def _check_version(version: str, wanted: str) -> None:
    """Refuse a CuPy whose copies to the host return before they are done."""
    if not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) < OLDEST:
        raise BackendError(
            "CuPy is too old",
            got=version,
            expected=f"CuPy {OLDEST} or newer",
            fix=f"pip install --upgrade '{_installed() or wanted}[ctk]'",
        )


def _check_compiler(cupy: Any, wanted: str) -> None:
    """Compile a kernel that does nothing: for want of CUDA's compiler or headers CuPy raises a mere RuntimeError."""
    try:
        cupy.RawKernel('extern "C" __global__ void probe() {}', "probe").compile()
    except Exception as error:
        raise BackendError(
            "CuPy cannot compile kernels for the GPU",
            got=f"{type(error).__name__}: {first_line(error)}",
            expected="NVRTC and the headers of CUDA, which CuPy's wheels do not bring",
            fix=f"pip install '{_installed() or wanted}[ctk]', or set CUDA_PATH to a CUDA toolkit",
        ) from error


def free_memory(place: Place) -> int:
    """Return how many bytes of the device's memory are free, counting what CuPy holds in reserve."""
    free, _ = place.xp.cuda.runtime.memGetInfo()
    pool = getattr(place.xp, "get_default_memory_pool", None)
    return int(free) + (int(pool().free_bytes()) if pool is not None else 0)


def release_reserve(place: Place) -> None:
    """Give back what CuPy holds in reserve, for a library that allocates by itself."""
    pool = getattr(place.xp, "get_default_memory_pool", None)
    if pool is not None:
        pool().free_all_blocks()


def require_memory(place: Place, needed: int, what: str, fix: str) -> None:
    """Refuse what would exhaust the device's memory, before it is tried."""
    free = free_memory(place)
    if needed > free:
        raise BackendError(
            f"the device's memory does not suffice for {what}",
            got=f"{size(free)} free",
            expected=f"{size(needed)}",
            fix=fix,
        )
    release_reserve(place)


def size(count: int) -> str:
    """Return a number of bytes to read.

    >>> size(3 << 29)
    '1.50 GiB'
    """
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count} bytes"
