"""ONNX Runtime with GPU providers for tests: sessions on the CPU, reached through addresses on the device."""

from __future__ import annotations

import ctypes
import sys
import types
from typing import Any

import numpy as np
import onnxruntime as real

state: dict[str, Any] = {}


class Session:
    def __init__(self, model: str, options: Any, providers: Any = None, enable_fallback: int = 1) -> None:
        if providers is None:
            name, settings = options.plugin
            listed = [name, "CPUExecutionProvider"]
        else:
            (name, settings), _ = providers
            listed = [name, "CPUExecutionProvider"]
        state["settings"] = settings
        if reason := state.get("provider_fails"):
            if not enable_fallback:
                raise RuntimeError(reason)
            # what ONNX Runtime's Python does unless it is told not to
            print(f"EP Error {reason} when using {listed}")
            listed = ["CPUExecutionProvider"]
        if state.get("falls_back"):
            # what ONNX Runtime does where a library of the provider is not found: a line on stderr, and the CPU
            listed = ["CPUExecutionProvider"]
        self._providers = listed
        self._session = real.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs

    def get_providers(self) -> list[str]:
        return self._providers

    def disable_fallback(self) -> None:
        state["fallback"] = False

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        assert state["fallback"] is False
        if state.get("fail"):
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
        feeds = {name: _at(*spec) for name, spec in binding.inputs.items()}
        results = self._session.run(list(binding.outputs), feeds)
        for spec, value in zip(binding.outputs.values(), results):
            _at(*spec)[...] = value


class IOBinding:
    def __init__(self, session: Session) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def bind_input(self, name: str, device: str, index: int, kind: Any, shape: Any, ptr: int) -> None:
        assert (device, index) == ("cuda", 0)
        self.inputs[name] = (ptr, tuple(shape), kind)

    def bind_output(self, name: str, device: str, index: int, kind: Any, shape: Any, ptr: int) -> None:
        assert (device, index) == ("cuda", 0)
        self.outputs[name] = (ptr, tuple(shape), kind)


class SessionOptions:
    def __init__(self) -> None:
        self.plugin: Any = None

    def add_provider_for_devices(self, devices: Any, settings: dict[str, str]) -> None:
        assert all(isinstance(value, str) for value in settings.values())
        self.plugin = devices[0].ep_name, settings


def _at(address: int, shape: tuple[int, ...], kind: Any) -> np.ndarray[Any, Any]:
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), kind).reshape(shape)


def install(monkeypatch: Any, *providers: str, devices: int = 1) -> dict[str, Any]:
    """Make `import onnxruntime` find one with these providers, and the plugin's package."""
    state.clear()
    module = types.ModuleType("onnxruntime")
    names: dict[str, Any] = {
        "__version__": "1.31.1",
        "capi": real.capi,
        "InferenceSession": Session,
        "IOBinding": IOBinding,
        "SessionOptions": SessionOptions,
        "RunOptions": types.SimpleNamespace,
        "GraphOptimizationLevel": real.GraphOptimizationLevel,
        "ExecutionMode": real.ExecutionMode,
        "get_available_providers": lambda: [*providers, "CPUExecutionProvider"],
        "set_default_logger_severity": lambda level: None,
        "get_ep_devices": lambda: list(state.get("devices", [])),
        "register_execution_provider_library": lambda name, path: _register(name, path, devices),
    }
    for name, value in names.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    plugin = types.ModuleType("onnxruntime_ep_nv_tensorrt_rtx")
    plugin.__version__ = "0.5.0"  # type: ignore[attr-defined]
    plugin.get_ep_name = lambda: "NvTensorRTRTXExecutionProvider"  # type: ignore[attr-defined]
    plugin.get_library_path = lambda: "/nowhere/provider.so"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", plugin)
    return state


def _register(name: str, path: str, devices: int) -> None:
    state["registered"] = state.get("registered", 0) + 1
    if state.get("broken"):
        raise RuntimeError("libcudart.so.13: cannot open shared object file")
    state["devices"] = [types.SimpleNamespace(ep_name=name)] * devices
