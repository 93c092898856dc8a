"""The graph of a backward pass, checked and run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from dpmrt.errors import ExportError

Array = NDArray[Any]


def runner(path: Path) -> Callable[[Mapping[str, torch.Tensor]], list[Array]]:
    """Return the graph as a function; what ONNX Runtime refuses, at once or when called, is an ExportError."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with _valid():
        onnx.checker.check_model(str(path))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, torch.Tensor]) -> list[Array]:
        with _valid():
            answer: list[Array] = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return answer

    return run


@contextlib.contextmanager
def _valid() -> Iterator[None]:
    failures = onnxruntime.capi.onnxruntime_pybind11_state
    refused = (failures.Fail, failures.NotImplemented, failures.InvalidArgument, failures.RuntimeException)
    try:
        yield
    except (onnx.checker.ValidationError, *refused, RuntimeError) as error:
        raise ExportError(
            "ONNX Runtime cannot compute the exported gradient", got=error, expected="a graph that loads and runs"
        ) from error
