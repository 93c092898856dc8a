"""A UNet as an ONNX file: traced by torch, stripped of the build machine's traces, held against torch."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxscript import ir

from dpmrt.errors import ExportError
from dpmrt.export.signature import Signature

OPSET = 20
MODEL_NAME = "model.onnx"
DATA_NAME = "model.onnx_data"

# A protobuf holds less than 2 GiB, and the graph needs some of it.
EXTERNAL_ABOVE = 2_000_000_000

_TRACED_BATCH = 2
_CHECKED_BATCHES = (1, 3)
_TOLERANCE = 1e-4
_CHATTY = ("torch", "onnxscript", "onnx_ir")


class _TensorsOnly(torch.nn.Module):  # type: ignore[misc]
    """The network with tensors in and one tensor out, as a graph has it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the network's prediction."""
        given = {"encoder_hidden_states": encoder_hidden_states, "class_labels": class_labels}
        conditions = {name: tensor for name, tensor in given.items() if tensor is not None}
        return self.model(sample, timestep, **conditions, return_dict=False)[0]


@dataclass(frozen=True)
class OnnxFiles:
    """The graph, and the file with its weights where they do not fit inside."""

    graph: Path
    data: Path | None


def trace(model: Any, signature: Signature) -> ir.Model:
    """Trace a diffusers UNet to an ONNX graph with a free batch axis and the names that bundles use."""
    wrapper = _TensorsOnly(model)
    wrapper.eval()
    with _quietly() as said:
        try:
            program = torch.onnx.export(
                wrapper,
                kwargs=signature.examples(_TRACED_BATCH),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=signature.dynamic_shapes(),
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
            reason = error.__cause__ or error
            raise ExportError(
                "torch cannot trace the network",
                got="\n".join([f"{type(reason).__name__}: {reason}", *dict.fromkeys(said)]),
                expected=f"a network of operators that ONNX has at opset {OPSET}",
            ) from error
    _strip(program.model)
    return program.model


def write_onnx(graph: ir.Model, folder: Path, *, external_above: int = EXTERNAL_ABOVE) -> OnnxFiles:
    """Write `model.onnx`, with the weights in `model.onnx_data` where they exceed `external_above` bytes."""
    path = folder / MODEL_NAME
    weights = (value.const_value for value in graph.graph.initializers.values())
    external = sum(tensor.nbytes for tensor in weights if tensor is not None) > external_above
    ir.save(graph, path, external_data=DATA_NAME if external else None)
    return OnnxFiles(path, folder / DATA_NAME if external else None)


def check_onnx(path: Path, model: Any, signature: Signature, *, batches: Sequence[int] = _CHECKED_BATCHES) -> float:
    """Return the graph's largest error against torch, relative to the RMS of torch's output; refuse a large one."""
    try:
        onnx.checker.check_model(str(path))
        session = _session(path)
    except (onnx.checker.ValidationError, onnxruntime.capi.onnxruntime_pybind11_state.Fail, RuntimeError) as error:
        raise ExportError("the exported graph is not valid ONNX", got=error, expected="a graph that loads") from error
    worst = 0.0
    for batch in batches:
        inputs = signature.examples(batch, seed=batch)
        with torch.inference_mode():
            expected = model(**inputs, return_dict=False)[0].numpy()
        (got,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        difference = _relative_error(got, expected)
        if not difference <= _TOLERANCE:
            raise ExportError(
                "the exported graph computes something else than torch",
                got=f"a relative error of {difference:.2e} at batch {batch}, with output shape {got.shape}",
                expected=f"at most {_TOLERANCE:.0e}, with output shape {expected.shape}",
                fix="report the network's config.json and the versions of torch and onnxscript",
            )
        worst = max(worst, difference)
    return worst


def _relative_error(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    if got.shape != expected.shape:
        return float("inf")
    largest = float(np.abs(got - expected).max())
    return largest / float(np.sqrt(np.mean(np.square(expected, dtype=np.float64)))) if largest else 0.0


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _strip(model: ir.Model) -> None:
    # torch notes stack traces with the paths of the build machine on every node; they outweigh a small network.
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


@contextlib.contextmanager
def _quietly() -> Iterator[list[str]]:
    """Collect what the exporter would print, for the error if it fails."""
    said: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            said.append(record.getMessage())
        return False

    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith(_CHATTY)]
    handlers = {handler for logger in [*loggers, logging.root] for handler in logger.handlers}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for handler in handlers:
            handler.addFilter(collect)
        try:
            yield said
        finally:
            for handler in handlers:
                handler.removeFilter(collect)
            said.extend(str(warning.message) for warning in caught)
