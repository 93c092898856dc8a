"""ONNX Runtime's GPU providers as backends: CUDA, TensorRT, and the plugin for TensorRT-RTX."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

from dpmrt.engines import Network
from dpmrt.errors import BackendError, MissingExtraError
from dpmrt.runtime.backends.ort_session import OrtSession, error_types, load_onnxruntime, session_options
from dpmrt.runtime.devices.cupy_device import open_place, require_gpu
from dpmrt.runtime.devices.provider_cache import provider_cache
from dpmrt.solvers_np.execution.device.place import Place, first_line

Provider = Literal["cuda", "tensorrt", "tensorrt-rtx"]
NAMES: dict[Provider, str] = {
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"


class OrtGpuBackend(OrtSession):
    """A network in an ONNX Runtime session on the GPU, bound to device arrays by their addresses.

    A session that ONNX Runtime quietly moved to the processor is refused. What the TensorRT providers compile is kept
    in a folder of the bundle that is named after all that it depends on.
    """

    #: its calls wait for the stream, which a capture forbids
    capturable = False
    generation = 0

    def __init__(
        self,
        root: Path,
        network: Network,
        provider: Provider,
        *,
        folder: str | Path | None = None,
        place: Place | None = None,
    ) -> None:
        engine = f"ort-{provider}"
        gpu = require_gpu(engine)
        ort = load_onnxruntime()
        plugin = None if provider != "tensorrt-rtx" else _register_plugin(ort)
        if plugin is None:
            _require_provider(ort, provider)
        self.place = open_place(engine) if place is None else place
        options = session_options(ort)
        settings = _settings(provider, self.place)
        if provider != "cuda":
            versions = {"onnxruntime": str(ort.__version__), "plugin": "" if plugin is None else plugin[1]}
            cache = provider_cache(root, network, provider, gpu, versions, settings, folder)
            settings |= _cached(provider, cache, network)
        model = str(root / network.path)
        # A provider that fails is not to be replaced by the processor, with its reason printed and lost.
        alone = {"enable_fallback": 0}
        try:
            if plugin is not None:
                options.add_provider_for_devices(plugin[0], settings)
                session: Any = ort.InferenceSession(model, options, **alone)
            else:
                providers = [(NAMES[provider], settings), "CPUExecutionProvider"]
                session = ort.InferenceSession(model, options, providers=providers, **alone)
        except error_types(ort) as error:
            raise BackendError(
                f"ONNX Runtime cannot open the network with {NAMES[provider]}",
                got=first_line(error),
                expected=f"a valid ONNX model in {model}, and a provider that suits {gpu}",
                fix="engine='onnxruntime', which runs it on the processor",
            ) from error
        used = session.get_providers()
        if not used or used[0] != NAMES[provider]:
            raise BackendError(
                f"ONNX Runtime does not use {NAMES[provider]}",
                got=", ".join(used),
                expected=f"{NAMES[provider]} first",
                fix="see that its CUDA and cuDNN libraries are found (pip install 'onnxruntime-gpu[cuda,cudnn]'), "
                "or choose engine='onnxruntime'",
            )
        # A failing run must not be tried again elsewhere.
        session.disable_fallback()
        super().__init__(ort, session, "cuda")


def _settings(provider: Provider, place: Place) -> dict[str, str]:
    """Return what every provider is told: the device, and the stream that the buffers are ordered on."""
    return {"device_id": "0", "has_user_compute_stream": "1", "user_compute_stream": str(int(place.stream.ptr))}


def _cached(provider: Provider, cache: Path, network: Network) -> dict[str, str]:
    if provider == "tensorrt-rtx":
        return {"nv_runtime_cache_path": str(cache)}
    settings = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }
    # Without leave to use them, the provider would run a network of half precision in float32.
    return settings | {"fp16": {"trt_fp16_enable": "1"}, "bf16": {"trt_bf16_enable": "1"}}.get(
        network.precision.kind, {}
    )


def _require_provider(ort: Any, provider: Provider) -> None:
    available = ort.get_available_providers()
    if NAMES[provider] not in available:
        raise BackendError(
            f"this ONNX Runtime has no {NAMES[provider]}",
            got=", ".join(available),
            expected=NAMES[provider],
            fix="pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]'",
        )


def _register_plugin(ort: Any) -> tuple[list[Any], str]:
    """Return the devices of the TensorRT-RTX plugin, and its version; registered once in a process."""
    try:
        package: Any = importlib.import_module(_PLUGIN)
    except ImportError as error:
        raise MissingExtraError(
            "the engine `ort-tensorrt-rtx` needs a plugin that is not installed",
            got=f"no module {_PLUGIN}" if getattr(error, "name", None) == _PLUGIN else str(error),
            expected="the TensorRT-RTX provider of ONNX Runtime",
            fix="pip install onnxruntime-ep-nv-tensorrt-rtx-cu13",
        ) from None
    if not hasattr(ort, "register_execution_provider_library"):
        raise BackendError(
            "this ONNX Runtime takes no plugins",
            got=str(ort.__version__),
            expected="1.23 or newer",
            fix="pip install --upgrade onnxruntime",
        )
    name = str(package.get_ep_name())
    try:
        if not _devices(ort, name):
            ort.register_execution_provider_library(name, package.get_library_path())
    except error_types(ort) as error:
        raise BackendError(
            "ONNX Runtime cannot load the TensorRT-RTX provider",
            got=first_line(error),
            expected="a plugin that suits ONNX Runtime, the driver and its CUDA",
            fix="pip install --upgrade --force-reinstall onnxruntime-ep-nv-tensorrt-rtx-cu13",
        ) from error
    devices = _devices(ort, name)
    if not devices:
        raise BackendError(
            "the TensorRT-RTX provider finds no GPU that it supports",
            got="no device",
            expected="an NVIDIA GPU of compute capability 7.5 or newer",
            fix="engine='ort-cuda', or engine='onnxruntime'",
        )
    return devices[:1], str(package.__version__)


def _devices(ort: Any, name: str) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == name]
