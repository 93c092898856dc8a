"""ONNX Runtime on the CPU: the backend that always works."""

from __future__ import annotations

import os
from pathlib import Path

from dpmrt.errors import BackendError, OptionError
from dpmrt.runtime.backends.ort_session import OrtSession, error_types, load_onnxruntime, session_options
from dpmrt.solvers_np.execution.device.place import first_line


class OrtBackend(OrtSession):
    """A network in an ONNX Runtime session, run through I/O binding straight into the caller's buffers.

    `threads` is the number of threads inside one operator; None leaves it to ONNX Runtime (one per physical core).
    """

    def __init__(self, model: Path, *, threads: int | None = None) -> None:
        ort = load_onnxruntime()
        options = session_options(ort)
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        if threads is not None:
            options.intra_op_num_threads = _check_threads(threads)
        try:
            session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except error_types(ort) as error:
            raise BackendError(
                "ONNX Runtime refuses the network",
                got=first_line(error),
                expected=f"a valid ONNX model in {model}",
                fix="export the network again: dpmrt export SOURCE -o BUNDLE",
            ) from error
        super().__init__(ort, session, "cpu")


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
