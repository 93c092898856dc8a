"""Graphs on disk, and held against torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxscript import ir

from dpmrt.errors import ExportError
from dpmrt.export.closeness import close_to_torch, largest_error
from dpmrt.export.interfaces import Interface

MODEL_NAME = "model.onnx"
DATA_NAME = "model.onnx_data"

# A protobuf holds less than 2 GiB, and the graph needs some of it.
EXTERNAL_ABOVE = 2_000_000_000

_CHECKED_BATCHES = (1, 2)
_TOLERANCE = 1e-4
# Above this many bytes of weights ONNX Runtime is not let make its own copy of them.
_LARGE = 500_000_000

Forward = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class OnnxFiles:
    """The graph, and the file with its weights where they do not fit inside."""

    graph: Path
    data: Path | None


def weight_bytes(graph: ir.Model) -> int:
    """Return the size of the weights of a graph."""
    tensors = (value.const_value for value in graph.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def write_onnx(
    graph: ir.Model,
    folder: Path,
    *,
    external_above: int = EXTERNAL_ABOVE,
    progress: Callable[[int, int], None] | None = None,
) -> OnnxFiles:
    """Write `model.onnx`, with the weights in `model.onnx_data` where they exceed `external_above` bytes.

    The weights in the graph then refer to that file. `progress` is called with the bytes written and those in all.
    """
    path = folder / MODEL_NAME
    total = weight_bytes(graph)
    external = total > external_above
    done = 0

    def tell(tensor: ir.TensorProtocol, info: object) -> None:
        nonlocal done
        done += tensor.nbytes
        if progress:
            progress(done, total)

    if external:
        # One weight at a time: memory is scarcer than a few seconds.
        ir.save(graph, path, external_data=DATA_NAME, callback=tell, max_workers=1)
    else:
        ir.save(graph, path)
    return OnnxFiles(path, folder / DATA_NAME if external else None)


def check_onnx(path: Path, forward: Forward, interface: Interface, *, tolerance: float = _TOLERANCE) -> float:
    """Return the graph's largest error against torch, relative to the RMS of torch's output; refuse a large one."""
    cases = check_cases(interface)
    with torch.inference_mode():
        expected = [forward(case).float().numpy() for case in cases]
    return compare_onnx(path, cases, expected, tolerance=tolerance)


def check_cases(interface: Interface) -> list[dict[str, torch.Tensor]]:
    """Return the inputs that a graph is checked with: two batches, at sizes that differ from the traced ones."""
    return [interface.examples(seed=n, **small_sizes(interface, n)) for n in _CHECKED_BATCHES]


def compare_onnx(
    path: Path,
    cases: Sequence[Mapping[str, torch.Tensor]],
    expected: Sequence[NDArray[Any]],
    *,
    tolerance: float = _TOLERANCE,
) -> float:
    """Return the graph's largest error against what torch gave, relative to its RMS; refuse a large one."""
    try:
        onnx.checker.check_model(str(path))
        session = session_of(path)
    except (onnx.checker.ValidationError, onnxruntime.capi.onnxruntime_pybind11_state.Fail, RuntimeError) as error:
        raise ExportError("the exported graph is not valid ONNX", got=error, expected="a graph that loads") from error
    worst = 0.0
    for case, reference in zip(cases, expected):
        if not np.isfinite(reference).all():
            raise ExportError(
                "the network gives no finite numbers in torch",
                got=f"{np.count_nonzero(~np.isfinite(reference))} of {reference.size} that are NaN or infinite",
                expected="finite numbers",
                fix="look at the weights: they were trained or saved in a way that lost them",
            )
        (got,) = session.run(None, {name: tensor.numpy() for name, tensor in case.items()})
        worst = max(
            worst,
            close_to_torch(
                largest_error(got, reference),
                tolerance,
                "the exported graph computes something else than torch",
                where=f"at batch {len(got)}, with output shape {got.shape}",
                shape=f", with output shape {reference.shape}",
            ),
        )
    return worst


def session_of(path: Path) -> Any:
    """Return an ONNX Runtime session that takes no second copy of large weights."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    data = path.with_name(DATA_NAME)
    if path.stat().st_size + (data.stat().st_size if data.exists() else 0) > _LARGE:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        # To plan which tensors share memory takes ten seconds for Stable Diffusion's; the arena sees to it as well.
        options.enable_mem_reuse = options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def small_sizes(interface: Interface, batch: int) -> dict[str, int]:
    """Return sizes that are quick to compute with: the batch, and other open axes small and unlike the usual ones."""
    sizes = {}
    for name, entry in interface.axes.items():
        axis = entry.axis
        wanted = batch if name == "batch" else 5 if name in ("tokens", "frames") else (1 + batch) * axis.multiple
        size = max(axis.min, min(wanted, axis.max or wanted, max(axis.opt, batch if name == "batch" else 1)))
        sizes[name] = size if axis.takes(size) else axis.opt
    return sizes
