"""What each engine needs, and what brings it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dpmrt.runtime.doctor.schema import Library


@dataclass(frozen=True)
class Need:
    """What one engine needs: any of some libraries, a provider of ONNX Runtime, CuPy, a GPU; and the line for pip."""

    libraries: tuple[str, ...]
    install: str
    provider: str | None = None
    cupy: bool = False
    gpu: bool = False


_CPU, _CUDA = "pip install 'dpmrt[cpu]'", "pip install 'dpmrt[cuda]'"
_TENSORRT, _RTX = "pip install 'dpmrt[tensorrt]'", "pip install 'dpmrt[rtx]'"

NEEDS: Mapping[str, Need] = {
    "onnxruntime": Need(("onnxruntime",), _CPU),
    "emulated": Need(("onnxruntime",), _CPU),
    "tensorrt": Need(("tensorrt", "tensorrt_rtx"), f"{_TENSORRT}, or {_RTX}", cupy=True, gpu=True),
    "tensorrt-rtx": Need(("tensorrt_rtx",), _RTX, cupy=True, gpu=True),
    "ort-cuda": Need(("onnxruntime",), _CUDA, "CUDAExecutionProvider", cupy=True, gpu=True),
    "ort-tensorrt": Need(("onnxruntime",), _CUDA, "TensorrtExecutionProvider", cupy=True, gpu=True),
    # The plugin registers itself when the engine is opened, so that the list of providers does not show it yet.
    "ort-tensorrt-rtx": Need(("onnxruntime",), _CUDA, cupy=True, gpu=True),
}


def missing(need: Need, libraries: Mapping[str, Library], gpu_problem: str | None) -> dict[str, str]:
    """Return what an engine needs and is not here, each with what brings it."""
    lacking: dict[str, str] = {}
    candidates = [libraries[name] for name in need.libraries if name in libraries]
    if not any(library.works for library in candidates):
        broken = [f"{one.name}, which is installed and cannot be loaded" for one in candidates if one.version]
        lacking[" or ".join(broken or need.libraries)] = need.install
    elif need.provider is not None:
        providers = libraries[need.libraries[0]].facts.get("providers", "").split(", ")
        if need.provider not in providers:
            lacking[f"onnxruntime with {need.provider}"] = f"pip uninstall onnxruntime, then {need.install}"
    if need.cupy and not libraries["cupy"].works:
        lacking["cupy"] = need.install
    if need.gpu and gpu_problem is not None:
        lacking["an NVIDIA GPU"] = gpu_problem
    return lacking
