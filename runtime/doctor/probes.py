"""What a child process finds out: each function imports one library and says what it is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from dpmrt.runtime.doctor.child import answer

_INSTALLED = "libnvinfer.so", "libtensorrt_rtx.so"


def numpy() -> dict[str, str]:
    """NumPy."""
    return {"version": str(importlib.import_module("numpy").__version__)}


def onnxruntime() -> dict[str, str]:
    """ONNX Runtime, and what it can run on."""
    library: Any = importlib.import_module("onnxruntime")
    library.set_default_logger_severity(4)
    return {"version": str(library.__version__), "providers": ", ".join(library.get_available_providers())}


def cupy() -> dict[str, str]:
    """CuPy, the CUDA it was made for, and how many GPUs it sees."""
    library: Any = importlib.import_module("cupy")
    found = {"version": str(library.__version__)}
    try:
        runtime = library.cuda.runtime
        found["CUDA"] = _dotted(runtime.runtimeGetVersion())
        found["devices"] = str(runtime.getDeviceCount())
    except Exception as error:
        found["devices"] = f"none: {_line(error)}"
    return found


def tensorrt() -> dict[str, str]:
    """TensorRT's bindings, and the library that they loaded."""
    return _tensorrt("tensorrt")


def tensorrt_rtx() -> dict[str, str]:
    """TensorRT-RTX's bindings, and the library that they loaded."""
    return _tensorrt("tensorrt_rtx")


def openvino() -> dict[str, str]:
    """OpenVINO, and what it can run on."""
    library: Any = importlib.import_module("openvino")
    return {"version": str(library.__version__), "devices": ", ".join(library.Core().available_devices)}


def opens(bundle: str, engine: str) -> dict[str, str]:
    """Open a bundle's network with an engine, as sampling does."""
    from dpmrt.runtime.loading import load

    with load(bundle, engine):
        return {"opens": "yes"}


PROBES: dict[str, Callable[..., dict[str, str]]] = {
    function.__name__: function for function in (numpy, onnxruntime, cupy, tensorrt, tensorrt_rtx, openvino, opens)
}


def _tensorrt(name: str) -> dict[str, str]:
    library: Any = importlib.import_module(name)
    # A module without a builder is a package whose native part never came.
    found, _ = {"version": str(library.__version__), "bindings": str(library.__version__)}, library.Builder
    path, number = _loaded_library()
    if number is not None:
        found["library"] = number
    if path is not None:
        found["loaded from"] = path
    return found


def _loaded_library() -> tuple[str | None, str | None]:
    """Return path and version of the TensorRT library that this process has loaded."""
    import ctypes

    try:
        with open("/proc/self/maps") as stream:
            paths = {line.split(maxsplit=5)[-1].strip() for line in stream if ".so" in line}
        path = next(path for path in sorted(paths) if path.rsplit("/", 1)[-1].startswith(_INSTALLED))
        return path, _triple(int(ctypes.CDLL(path).getInferLibVersion()))
    except (OSError, StopIteration, AttributeError):
        return None, None


def _triple(number: int) -> str:
    """Return a version that NVIDIA packed into a number: with two digits a part since 10, one or two before.

    >>> _triple(100300), _triple(8601)
    ('10.3.0', '8.6.1')
    """
    if number >= 10_000:
        return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
    return f"{number // 1000}.{number // 100 % 10}.{number % 100}"


def _dotted(number: int) -> str:
    """Return a version of CUDA.

    >>> _dotted(12060)
    '12.6'
    """
    return f"{number // 1000}.{number % 1000 // 10}"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def main() -> None:
    """Run the probe that the command line names."""
    name, *arguments = sys.argv[1:]
    try:
        answer(PROBES[name](*arguments))
    except Exception as error:
        parts = [_line(error) if not hasattr(error, "what") else str(error.what)]
        parts += [str(value) for value in (getattr(error, "got", None), getattr(error, "fix", None)) if value]
        answer("; ".join(" ".join(part.split()) for part in parts))


if __name__ == "__main__":
    main()
