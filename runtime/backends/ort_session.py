"""What every backend of ONNX Runtime shares: a session, bound to the addresses of its buffers."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal

import numpy as np

from dpmrt.errors import BackendError, MissingExtraError
from dpmrt.runtime.backends.base import Call, Tensor, check_buffers
from dpmrt.runtime.interrupt import was_interrupted
from dpmrt.solvers_np.execution.device.place import address, first_line

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bfloat16)": "bfloat16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}
_FATAL_ONLY = 4


class OrtSession:
    """A network in a session of ONNX Runtime, whose buffers are all on one device."""

    def __init__(self, ort: Any, session: Any, device: Literal["cpu", "cuda"]) -> None:
        self._errors = error_types(ort)
        self._session, self._device = session, device
        self._binding = ort.IOBinding
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = _FATAL_ONLY
        self.inputs = tuple(_tensor(node) for node in session.get_inputs())
        self.outputs = tuple(_tensor(node) for node in session.get_outputs())

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Call:
        """Fix the buffers of a call once."""
        self._open_session()
        check_buffers((self.inputs, self.outputs), inputs, outputs)
        # ONNX Runtime only gets addresses; the closure below is what keeps the arrays alive.
        buffers = (dict(inputs), dict(outputs))
        try:
            binding = self._binding(self._session)
            for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
                for name, array in arrays.items():
                    kind, shape = np.dtype(array.dtype).type, tuple(array.shape)
                    bind(name, self._device, 0, kind, shape, address(array))
        except self._errors as error:
            raise BackendError("ONNX Runtime refuses the buffers", got=first_line(error)) from error

        def run(_alive: object = buffers) -> None:
            session = self._open_session()
            try:
                session.run_with_iobinding(binding, self._run_options)
            except self._errors as error:
                raise BackendError("the network failed in ONNX Runtime", got=first_line(error)) from error

        return run

    def close(self) -> None:
        """Let go of the session."""
        self._session = None

    def _open_session(self) -> Any:
        if self._session is None:
            raise BackendError("the backend is closed", fix="load the bundle again")
        return self._session


def load_onnxruntime() -> ModuleType:
    """Return ONNX Runtime, imported when it is needed, or say what is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise MissingExtraError(
                "the engine `onnxruntime` needs a package that is not installed",
                got="no module onnxruntime",
                expected="onnxruntime 1.18 or later",
                fix="pip install 'dpmrt[cpu]'",
            ) from None
        raise BackendError(
            "onnxruntime is installed but cannot be loaded",
            got=error,
            fix="pip install --force-reinstall 'dpmrt[cpu]'",
        ) from error
    # The session's own level does not cover what the library writes to stderr while it looks for devices.
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    module: ModuleType = onnxruntime
    return module


def session_options(ort: Any) -> Any:
    """Return options of a session that says only what is fatal, and optimises the graph."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return options


def error_types(ort: ModuleType) -> tuple[type[Exception], ...]:
    """Return the exceptions of the library, which share no base class of their own."""
    state = ort.capi.onnxruntime_pybind11_state
    own = (value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*own, RuntimeError, ValueError)


def _tensor(node: Any) -> Tensor:
    """Return an input or output of a session."""
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise BackendError(
            f"`{node.name}` has a type that dpmrt cannot bind",
            got=node.type,
            expected=", ".join(sorted(_DTYPES)),
        )
    shape = tuple(axis if isinstance(axis, int) else str(axis or "?") for axis in node.shape)
    return Tensor(node.name, dtype, shape)
