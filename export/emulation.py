"""What hardware with half precision would compute, on hardware that has none."""

from __future__ import annotations

from onnxscript import ir

from dpmrt.export.precision import FULL, MOVES

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def emulate(model: ir.Model, *, rounding: bool = True) -> ir.Model:
    """Return a graph over the same weights that computes in fp32 and rounds each result to half as `model` does.

    Without `rounding` it is the network in fp32, with the weights as they are stored. Nodes keep their names, and so
    do values before they are rounded.
    """
    result = model.clone()
    graph = result.graph
    for value in list(graph.initializers.values()):
        if value.dtype in _HALF:
            _widen(graph, value)
    for node in list(graph):
        halves = [value for value in node.outputs if value.dtype in _HALF]
        if node.op_type == "Cast" and not halves:
            node.attributes["to"] = ir.AttrInt64("to", int(node.outputs[0].dtype or FULL))
        for value in halves:
            half = value.dtype
            assert half is not None
            value.type = ir.TensorType(FULL)
            if node.op_type == "Cast":
                node.attributes["to"] = ir.AttrInt64("to", int(FULL))
            if rounding and (node.op_type not in MOVES or node.op_type == "Cast"):
                _round(graph, node, value, half)
    return result


def rounded_name(name: str) -> str:
    """Return the name that `emulate` gives a value after it is rounded."""
    return f"{name}/back_"


def _widen(graph: ir.Graph, value: ir.Value) -> None:
    uses = list(value.uses())
    cast = _cast(value, FULL, f"{value.name}/widened")
    graph.insert_before(graph[0], cast)
    for node, index in uses:
        node.replace_input_with(index, cast.outputs[0])


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value, half: ir.DataType) -> None:
    uses = list(value.uses())
    down = _cast(value, half, f"{value.name}/rounded")
    up = _cast(down.outputs[0], FULL, f"{value.name}/back")
    up.outputs[0].name = rounded_name(value.name or "")
    graph.insert_after(node, [down, up])
    for reader, index in uses:
        reader.replace_input_with(index, up.outputs[0])


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], num_outputs=1, name=name)
    out = node.outputs[0]
    out.name, out.type = f"{name}_", ir.TensorType(dtype)
    return node
