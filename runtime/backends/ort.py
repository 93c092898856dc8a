"""ONNX Runtime on the CPU: the backend that always works."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from dpmrt.errors import BackendError, MissingExtraError, OptionError
from dpmrt.runtime.backends.base import Array, Call, Tensor, check_buffers
from dpmrt.runtime.interrupt import was_interrupted

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bfloat16)": "bfloat16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}
_FATAL_ONLY = 4


class OrtBackend:
    """A network in an ONNX Runtime session, run through I/O binding straight into the caller's buffers.

    `threads` is the number of threads inside one operator; None leaves it to ONNX Runtime (one per physical core).
    """

    def __init__(self, model: Path, *, threads: int | None = None) -> None:
        ort = load_onnxruntime()
        self._errors = error_types(ort)
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        if threads is not None:
            options.intra_op_num_threads = _check_threads(threads)
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = _FATAL_ONLY
        try:
            self._session: Any = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise BackendError(
                "ONNX Runtime refuses the network",
                got=first_line(error),
                expected=f"a valid ONNX model in {model}",
                fix="export the network again: dpmrt export SOURCE -o BUNDLE",
            ) from error
        self._binding = ort.IOBinding
        self.inputs = tuple(tensor_of(node) for node in self._session.get_inputs())
        self.outputs = tuple(tensor_of(node) for node in self._session.get_outputs())

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Call:
        """Fix the buffers of a call once."""
        self._open_session()
        check_buffers((self.inputs, self.outputs), inputs, outputs)
        # ONNX Runtime only gets addresses; the closure below is what keeps the arrays alive.
        buffers = (dict(inputs), dict(outputs))
        try:
            binding = self._binding(self._session)
            for name, array in inputs.items():
                binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            for name, array in outputs.items():
                binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
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


def error_types(ort: ModuleType) -> tuple[type[Exception], ...]:
    """Return the exceptions of the library, which share no base class of their own."""
    state = ort.capi.onnxruntime_pybind11_state
    own = (value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*own, RuntimeError, ValueError)


def tensor_of(node: Any) -> Tensor:
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


def _check_threads(threads: object) -> int:
    most = 4 * (os.cpu_count() or 1)
    index = getattr(threads, "__index__", None)
    number = 0 if index is None or isinstance(threads, bool) else int(index())
    if not 1 <= number <= most:
        raise OptionError(
            "threads is out of range",
            got=repr(threads)[:60],
            expected=f"a whole number from 1 to {most}, four times the processors here",
            fix="threads=2",
        )
    return number


def first_line(error: Exception) -> str:
    """Return the first line of what the library says."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
