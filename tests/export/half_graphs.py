"""Small graphs and networks to try half precision on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxscript import ir

from dpmrt.engines import Axis
from dpmrt.export.calibration import calibration
from dpmrt.export.guard import Guarded, guard
from dpmrt.export.interfaces import Interface
from dpmrt.export.interfaces.interface import Draw, FreeAxis, Input
from dpmrt.export.onnx_files import write_onnx
from dpmrt.export.precision import sensitive_nodes, to_half
from dpmrt.export.torch_onnx import OPSET
from dpmrt.export.tracing import trace

KINDS = ("fp16", "bf16")
DDIM = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "clip_sample": False}
Array = NDArray[Any]


def graph_of(
    nodes: Sequence[tuple[Any, ...]],
    weights: Mapping[str, Array] | None = None,
    *,
    inputs: Mapping[str, Sequence[int | str]] | None = None,
    outputs: Sequence[str] = ("y",),
    integers: Mapping[str, Sequence[int | str]] | None = None,
) -> ir.Model:
    """Return a graph of (operator, inputs, output, attributes) with each node named after its output."""
    made = [
        helper.make_node(op, list(taken), [given], name=given, **(more[0] if more else {}))
        for op, taken, given, *more in nodes
    ]
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info(name, float32, shape) for name, shape in (inputs or {"x": [2, 4]}).items()]
        + [helper.make_tensor_value_info(name, int64, shape) for name, shape in (integers or {}).items()],
        [helper.make_tensor_value_info(name, float32, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    return model


def halved(model: ir.Model, kind: str, pinned: Sequence[str] = ()) -> ir.Model:
    return to_half(model, kind, sensitive_nodes(model), pinned=pinned)


def run(model: ir.Model, **feeds: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    result: Array = session.run(None, feeds)[0]
    return result


def dtypes(model: ir.Model, *operators: str) -> set[str]:
    """Return the floating types that these operators read."""
    return {
        value.dtype.name
        for node in model.graph
        if node.op_type in operators
        for value in node.inputs
        if value is not None and value.dtype is not None and value.dtype.is_floating_point()
    }


class Formula(torch.nn.Module):
    """A network that is a formula of the sample, and of a level if it takes one."""

    def __init__(self, formula: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
        return self.formula(sample, **others) + 0 * timestep[:, None, None, None]


def image_interface(level: float | None = None) -> Interface:
    shape = ("batch", 2, 8, 8)
    more = () if level is None else (Input("level", ("batch", 1, 1, 1), draw=Draw("uniform", level / 2, level)),)
    return Interface(
        inputs=(Input("sample", shape), Input("timestep", ("batch",)), *more),
        output=shape,
        axes={"batch": FreeAxis(Axis(1))},
    )


def guarded(
    network: torch.nn.Module,
    folder: Path,
    kind: str = "fp16",
    *,
    least: float | None = None,
    level: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Guarded:
    """Trace a network, and guard its half precision over four steps of DDIM."""
    interface = image_interface(level)
    graph = trace(network, interface, network.state_dict())
    full = sensitive_nodes(graph)
    files = write_onnx(to_half(graph, kind, full), folder, external_above=-1)
    case = calibration(interface, DDIM, parameters=1, steps=4)
    return guard(graph, kind, full, files.graph, case, least=least, tell=tell)


def stored_bytes(model: ir.Model) -> int:
    return sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )


def as_float32(array: Array) -> Array:
    return np.asarray(array, np.float32)
