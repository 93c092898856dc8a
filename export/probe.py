"""How far each tensor of a rounded graph is from the same tensor without rounding, all in one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxscript import ir

from dpmrt.export.emulation import rounded_name

_PREFIX = "rounded/"
_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Probe:
    """A graph that gives three numbers for each tensor of `points`: error, size and largest magnitude."""

    model: ir.Model
    points: tuple[str, ...]


@dataclass(frozen=True)
class Readings:
    """For each point: the relative error of the rounded tensor, and the largest finite magnitude of the exact one."""

    points: tuple[str, ...]
    error: NDArray[np.float64]
    largest: NDArray[np.float64]

    def worst_of(self, other: Readings | None) -> Readings:
        """Return the larger numbers of two readings."""
        if other is None:
            return self
        return Readings(self.points, np.fmax(self.error, other.error), np.fmax(self.largest, other.largest))


def build_probe(reference: ir.Model, rounded: ir.Model, points: list[str]) -> Probe:
    """Join a graph and its rounded twin over the same inputs and weights, and measure the values in `points`.

    Errors are those after rounding. Where the exact value is infinite, as in a mask, half is right to be so too.
    """
    model = reference.clone()
    graph = model.graph
    twin = rounded.clone().graph
    shared = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    exact = {value.name: value for value in graph.inputs}
    exact.update((value.name, value) for node in graph for value in node.outputs)
    for value in (*twin.inputs, *twin.initializers.values()):
        own = shared[value.name]
        for node, index in list(value.uses()):
            node.replace_input_with(index, own)
    moved = list(twin)
    twin.outputs.clear()
    twin.remove(moved)
    other = dict(exact)
    for node in moved:
        node.name = f"{_PREFIX}{node.name}"
        for value in node.outputs:
            other[value.name] = value
            value.name = f"{_PREFIX}{value.name}"
    graph.extend(moved)
    graph.outputs.clear()
    empty = _constant(graph, "probe/shape", np.array([1], np.int64))
    rows: list[list[ir.Value]] = [[], [], []]
    zero = _constant(graph, "probe/zero", np.array(0, np.float32))
    for number, point in enumerate(points):
        a, b = exact[point], other.get(rounded_name(point), other[point])

        def add(op: str, *inputs: ir.Value, name: str, at: str = f"probe/{number}", **attributes: int) -> ir.Value:
            return _node(graph, op, list(inputs), f"{at}/{name}", **attributes)

        same = add("Equal", a, b, name="same")
        difference = add("Where", same, zero, add("Sub", b, a, name="minus"), name="difference")
        finite = add("Where", add("IsInf", a, name="infinite"), zero, a, name="finite")
        measured = (
            add("ReduceSumSquare", difference, name="error", keepdims=0),
            add("ReduceSumSquare", finite, name="size", keepdims=0),
            add("ReduceMax", add("Abs", finite, name="abs"), name="most", keepdims=0),
        )
        for row, value in zip(rows, measured):
            row.append(_node(graph, "Reshape", [value, empty], f"{value.name}/one"))
    for name, row in zip(("error", "size", "largest"), rows):
        out = _node(graph, "Concat", row, name, axis=0)
        out.type = ir.TensorType(ir.DataType.FLOAT)
        out.shape = ir.Shape([len(points)])
        graph.outputs.append(out)
    return Probe(model, tuple(points))


def build_ranges(reference: ir.Model) -> Probe:
    """Let a graph give the largest magnitude of each tensor that it takes or computes.

    This takes no second graph, so that it is as cheap as a call.
    """
    model = reference.clone()
    graph = model.graph
    made = [value for node in graph if not _widens(node) for value in node.outputs]
    values = [value for value in (*graph.inputs, *made) if value.dtype == _FLOAT]
    graph.outputs.clear()
    for number, value in enumerate(values):
        magnitude = _node(graph, "Abs", [value], f"range/{number}/abs")
        most = _node(graph, "ReduceMax", [magnitude], f"range/{number}/most", keepdims=0)
        most.type, most.shape = ir.TensorType(_FLOAT), ir.Shape([])
        graph.outputs.append(most)
    return Probe(model, tuple(value.name or "" for value in values))


def read_ranges(points: tuple[str, ...], outputs: list[NDArray[np.float32]]) -> Readings:
    """Return what a run of a graph with ranges says; a mask's infinity is meant, and no reason to pin anything."""
    largest = np.array([float(value) for value in outputs])
    meant = np.where(np.isinf(largest), 0.0, np.nan_to_num(largest, nan=np.inf))
    return Readings(points, np.zeros(len(points)), meant)


def _widens(node: ir.Node) -> bool:
    return node.op_type == "Cast" and node.inputs[0] is not None and node.inputs[0].is_initializer()


def read(points: tuple[str, ...], outputs: list[NDArray[np.float32]]) -> Readings:
    """Return what a run of a probe says; what is no number counts as infinitely wrong."""
    error, size, largest = (np.asarray(values, np.float64) for values in outputs)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.sqrt(error / np.where(size > 0, size, 1.0))
    return Readings(
        points, np.where(np.isnan(relative), np.inf, relative), np.where(np.isnan(largest), np.inf, largest)
    )


def _node(graph: ir.Graph, op: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
    node = ir.Node("", op, inputs, [ir.AttrInt64(k, v) for k, v in attributes.items()], num_outputs=1, name=name)
    node.outputs[0].name = name
    graph.append(node)
    return node.outputs[0]


def _constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    value.const_value = tensor
    graph.register_initializer(value)
    return value
