"""Half precision decided in the graph: which nodes compute in fp32, and the casts between them and the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx
from onnxscript import ir

from dpmrt.errors import ExportError
from dpmrt.export.weights import NUMPY_TYPES, LazyWeight

HALF = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
LARGEST = {ir.DataType.FLOAT16: 65504.0, ir.DataType.BFLOAT16: float(np.finfo(np.float32).max)}
FULL = ir.DataType.FLOAT
FLOATS = frozenset([FULL, *LARGEST])
BF16_OPSET = 22
# What a number may be off by that half can hold: more is the fate of numbers near the least of fp16.
_CHANGED = 2.0**-8

#: operators that sum many numbers, or turn small differences into large ones
SENSITIVE = frozenset(
    [
        "InstanceNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "BatchNormalization",
        "RMSNormalization",
        "LpNormalization",
        "Softmax",
        "LogSoftmax",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceProd",
        "CumSum",
        "Pow",
        "Exp",
        "Log",
        "Sin",
        "Cos",
        "Softplus",
    ]
)
#: operators whose numbers are sizes, times or choices, or whose type is not that of an input
_UNTOUCHED = frozenset(
    [
        "Range",
        "ConstantOfShape",
        "EyeLike",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Constant",
        "Equal",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
        "IsNaN",
        "IsInf",
        "NonZero",
        "TopK",
        "ArgMax",
        "ArgMin",
    ]
)
#: operators that move numbers and change none
MOVES = frozenset(
    [
        "Reshape",
        "Transpose",
        "Slice",
        "Concat",
        "Split",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Gather",
        "GatherND",
        "GatherElements",
        "Identity",
        "Pad",
        "Flatten",
        "Tile",
        "Where",
        "DepthToSpace",
        "SpaceToDepth",
        "MaxPool",
        "Relu",
        "Neg",
        "Abs",
        "Max",
        "Min",
        "Clip",
        "ReduceMax",
        "ReduceMin",
        "Cast",
    ]
)
#: inputs that are fp32 whatever the others are
_ALWAYS_FULL = {"Resize": (1, 2), "Upsample": (1,)}
_NORMS = ("norm", "ln_", "layernorm")


def sensitive_nodes(model: ir.Model, timestep: str = "timestep") -> set[str]:
    """Return the names of the nodes that stay in fp32 in any half precision.

    They are normalisations with their scale and shift, softmax and sums, and all that depends on the time alone.
    """
    names = set()
    timed = _depending_on(model, timestep) - _depending_on(model, "sample")
    for node in model.graph:
        module = (node.name or "").rpartition("/")[0].rpartition(".")[2]
        norm = module.lower().startswith(_NORMS) or module.lower().endswith("norm")
        projected = "emb_proj" in (node.name or "") or node.op_type in MOVES
        if node.op_type in SENSITIVE | _UNTOUCHED or norm or (node in timed and not projected) or _counts(node):
            names.add(node.name or "")
    return (names | _between(model, names)) - {""}


def to_half(model: ir.Model, kind: str, full: Collection[str], *, pinned: Collection[str] = ()) -> ir.Model:
    """Return a graph that computes in half precision, but for the nodes named in `full` and `pinned`.

    Inputs and outputs stay fp32. A weight is stored in half, or in fp32 where a node in `full` reads it or half
    cannot hold it; pinned nodes read what is stored, so that pinning changes no weight. Nodes that read a weight
    beyond half, and operators that ONNX does not define in it, compute in fp32 too.
    """
    half = HALF[kind]
    result = model.clone()
    if half == ir.DataType.BFLOAT16:
        # Before opset 22 convolutions have no bf16; the operators that networks use mean the same in both.
        result.graph.opset_imports[""] = max(result.graph.opset_imports[""], BF16_OPSET)
    _Casting(result, half, set(full), set(full) | set(pinned)).run()
    return result


class _Casting:
    def __init__(self, model: ir.Model, half: ir.DataType, stored_full: set[str], full: set[str]) -> None:
        self.graph = model.graph
        self.half = half
        self.stored_full = stored_full
        self.full = full
        self.unfit: set[ir.Value] = set()
        self.made: dict[tuple[int, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        nodes = list(self.graph)
        if any(
            a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for n in nodes for a in n.attributes.values()
        ):
            raise ExportError(
                "half precision cannot be given to a graph with branches or loops",
                got=", ".join(sorted({n.op_type for n in nodes if n.op_type in ("If", "Loop", "Scan")})),
                expected="a graph without If, Loop and Scan",
                fix="export in fp32",
            )
        self._store()
        opset = self.graph.opset_imports[""]
        wanted = {node: self._type_of(node, opset) for node in nodes}
        for node in nodes:
            own = wanted[node]
            always = _ALWAYS_FULL.get(node.op_type, ())
            for index, value in enumerate(node.inputs):
                if value is None or value.dtype not in (FULL, self.half):
                    continue
                node.replace_input_with(index, self._as(value, FULL if index in always else own))
            if node.op_type == "Cast" and node.attributes["to"].as_int() == FULL:
                node.attributes["to"] = ir.AttrInt64("to", int(own))
            for value in node.outputs:
                if value.dtype == FULL:
                    value.type = ir.TensorType(own)
        for index, value in enumerate(self.graph.outputs):
            if value.dtype == self.half:
                self._restore_output(index, value)

    def _type_of(self, node: ir.Node, opset: int) -> ir.DataType:
        always = _ALWAYS_FULL.get(node.op_type, ())
        unfit = any(value in self.unfit and index not in always for index, value in enumerate(node.inputs))
        if unfit or node.name in self.full or not _defined(node, self.half, opset):
            return FULL
        return self.half

    def _store(self) -> None:
        for value in list(self.graph.initializers.values()):
            tensor = value.const_value
            if value.dtype != FULL or tensor is None:
                continue
            if not _fits(tensor, self.half):
                self.unfit.add(value)
                continue
            needs_full = any(
                node.name in self.stored_full or index in _ALWAYS_FULL.get(node.op_type, ())
                for node, index in value.uses()
            )
            if not needs_full:
                value.const_value = _stored(tensor, self.half)
                value.type = ir.TensorType(self.half)

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if value.dtype == dtype:
            return value
        key = id(value), dtype
        if key not in self.made:
            cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], num_outputs=1)
            cast.name = f"{value.name}/to_{_short(dtype)}"
            out = cast.outputs[0]
            out.name, out.type = f"{value.name}_{_short(dtype)}", ir.TensorType(dtype)
            producer = value.producer()
            if producer is not None:
                self.graph.insert_after(producer, cast)
            else:
                self.graph.insert_before(self.graph[0], cast)
            self.made[key] = out
        return self.made[key]

    def _restore_output(self, index: int, value: ir.Value) -> None:
        producer = value.producer()
        assert producer is not None
        name, shape = value.name, value.shape
        value.name = f"{name}_{_short(self.half)}"
        out = self._as(value, FULL)
        out.name, out.shape = name, shape
        value.shape = None
        self.graph.outputs[index] = out


def _fits(tensor: ir.TensorProtocol, half: ir.DataType) -> bool:
    """Return whether half can hold a weight: none of it overflows, and a number that stands alone is still itself."""
    if isinstance(tensor, LazyWeight) and tensor.size > 1:
        return tensor.largest <= LARGEST[half]
    values = np.abs(tensor.numpy().astype(np.float32))
    largest = float(values.max()) if values.size else 0.0
    if largest > LARGEST[half]:
        return False
    held = values.astype(NUMPY_TYPES[half]).astype(np.float32)
    return values.size != 1 or bool(np.abs(held - values).max() <= _CHANGED * largest)


def _defined(node: ir.Node, half: ir.DataType, opset: int) -> bool:
    """Return whether ONNX defines an operator on half precision."""
    if node.domain or not onnx.defs.has(node.op_type, opset):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset)
    allowed = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
    text = f"tensor({half.name.lower()})"
    floats = [(schema.inputs, node.inputs), (schema.outputs, node.outputs)]
    return all(
        text in allowed.get(formal.type_str, [formal.type_str])
        for formals, values in floats
        for index, value in enumerate(values)
        if value is not None and value.dtype in FLOATS and index not in _ALWAYS_FULL.get(node.op_type, ())
        for formal in [formals[min(index, len(formals) - 1)]]
    )


def _stored(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    if isinstance(tensor, LazyWeight):
        return tensor.astype(dtype)
    return ir.Tensor(tensor.numpy().astype(NUMPY_TYPES[dtype]), dtype=dtype, name=tensor.name)


def _short(dtype: ir.DataType) -> str:
    return {FULL: "fp32", ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}[dtype]


def _counts(node: ir.Node) -> bool:
    """Return whether a node turns floats into something else, or computes from no float at all."""
    gives = any(value.dtype == FULL for value in node.outputs)
    takes = any(value is not None and value.dtype == FULL for value in node.inputs)
    return (takes and not gives) or (gives and not takes and node.op_type != "Cast")


def _between(model: ir.Model, full: Collection[str]) -> set[str]:
    """Return the nodes that only move numbers from nodes in fp32, or inputs, to nodes in fp32."""
    exact: set[ir.Value] = set(model.graph.inputs)
    moving: list[ir.Node] = []
    for node in model.graph:
        floats = [value for value in node.inputs if value is not None and value.dtype == FULL]
        made = [value for value in floats if value.producer() is not None or value in exact]
        moves = node.op_type in MOVES and (made or node.op_type == "Cast")
        if node.name in full:
            exact.update(node.outputs)
        elif moves and all(value in exact for value in made):
            exact.update(node.outputs)
            moving.append(node)
    found: set[str] = set()
    for node in reversed(moving):
        readers = [reader.name for value in node.outputs for reader, _ in value.uses()]
        if any(name in full or name in found for name in readers):
            found.add(node.name or "")
    return found


def _depending_on(model: ir.Model, name: str) -> set[ir.Node]:
    start: Iterable[ir.Value] = [value for value in model.graph.inputs if value.name == name]
    found: set[ir.Node] = set()
    waiting: list[Any] = [node for value in start for node, _ in value.uses()]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [reader for value in node.outputs for reader, _ in value.uses()]
    return found
