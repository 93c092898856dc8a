"""What each engine needs, and what brings it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dpmrt.runtime.doctor.schema import Library


@dataclass(frozen=True)
class Need:
    """What one engine needs: any of some libraries, a provider of ONNX Runtime or a plugin for it, CuPy, a GPU.

    `install` is the line for pip that brings the libraries.
    """

    libraries: tuple[str, ...]
    install: str
    provider: str | None = None
    plugin: str | None = None
    cupy: bool = False
    gpu: bool = False


#: the package of ONNX Runtime's plugin for TensorRT-RTX
PLUGIN = "onnxruntime-ep-nv-tensorrt-rtx-cu13"

_CPU, _CUDA = "pip install 'dpmrt[cpu]'", "pip install 'dpmrt[cuda]'"
_TENSORRT, _RTX = "pip install 'dpmrt[tensorrt]'", "pip install 'dpmrt[rtx]'"

NEEDS: Mapping[str, Need] = {
    "onnxruntime": Need(("onnxruntime",), _CPU),
    "emulated": Need(("onnxruntime",), _CPU),
    "tensorrt": Need(("tensorrt", "tensorrt_rtx"), f"{_TENSORRT}, or {_RTX}", cupy=True, gpu=True),
    "tensorrt-rtx": Need(("tensorrt_rtx",), _RTX, cupy=True, gpu=True),
    "ort-cuda": Need(("onnxruntime",), _CUDA, "CUDAExecutionProvider", cupy=True, gpu=True),
    "ort-tensorrt": Need(("onnxruntime",), _CUDA, "TensorrtExecutionProvider", cupy=True, gpu=True),
    # The plugin is registered when the engine is opened, so that the list of providers does not show it yet.
    "ort-tensorrt-rtx": Need(("onnxruntime",), _CPU, plugin=PLUGIN, cupy=True, gpu=True),
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
    if need.plugin is not None and libraries[need.plugin].version is None:
        lacking[need.plugin] = f"pip install {need.plugin}"
    if need.cupy and not libraries["cupy"].works:
        lacking["cupy"] = need.install if need.install != _CPU else f"{_CUDA}, or {_RTX}"
    if need.gpu and gpu_problem is not None:
        lacking["an NVIDIA GPU"] = "there is none, or its driver cannot be used (see GPU)"
    return lacking
