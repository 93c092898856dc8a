"""A graph is simplified by each rule where it is said to apply, and computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxscript import ir

from dpmrt.export.simplifying import simplify

ONE = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
ZERO = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
AXES = [helper.make_tensor(f"axis{n}", TensorProto.INT64, [1], [n]) for n in (0, 1)]
LONG = helper.make_tensor("long", TensorProto.INT64, [2], [-1, 3])


def graph_of(*nodes: tuple[str, list[str], str, dict[str, object]]) -> ir.Model:
    made = [helper.make_node(op, inputs, [out], **attributes) for op, inputs, out, attributes in nodes]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(made, "g", [x], [y], [ONE, ZERO, *AXES, LONG])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def run(graph: ir.Model, path: Path, x: np.ndarray) -> np.ndarray:
    ir.save(graph, path)
    (y,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    return np.asarray(y)


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ([("Mul", ["x", "one"], "a", {}), ("Sigmoid", ["a"], "y", {})], ["Sigmoid"]),
        ([("Add", ["zero", "x"], "a", {}), ("Sub", ["a", "zero"], "b", {}), ("Sin", ["b"], "y", {})], ["Sin"]),
        ([("Relu", ["x"], "a", {}), ("Relu", ["a"], "y", {})], ["Relu"]),
        (
            [
                ("Transpose", ["x"], "a", {"perm": [1, 0, 2]}),
                ("Transpose", ["a"], "b", {"perm": [1, 0, 2]}),
                ("Cos", ["b"], "y", {}),
            ],
            ["Cos"],
        ),
        ([("Cast", ["x"], "a", {"to": TensorProto.FLOAT}), ("Cos", ["a"], "y", {})], ["Cos"]),
        ([("Reshape", ["x", "long"], "a", {}), ("Reshape", ["a", "long"], "y", {})], ["Reshape"]),
        ([("Unsqueeze", ["x", "axis0"], "a", {}), ("Unsqueeze", ["a", "axis1"], "y", {})], ["Unsqueeze"]),
    ],
)
def test_what_changes_nothing_goes(
    nodes: list[tuple[str, list[str], str, dict[str, object]]], left: list[str], tmp_path: Path
) -> None:
    x = np.random.default_rng(0).standard_normal((4, 2, 3), np.float32)
    expected = run(graph_of(*nodes), tmp_path / "before.onnx", x)
    graph = graph_of(*nodes)
    simplify(graph, keeps=lambda node: False)
    assert [node.op_type for node in graph.graph] == left
    np.testing.assert_array_equal(run(graph, tmp_path / "after.onnx", x), expected)


def test_constants_are_folded_unless_they_are_kept() -> None:
    nodes = [("Exp", ["one"], "a", {}), ("Mul", ["x", "a"], "y", {})]
    folded, kept = graph_of(*nodes), graph_of(*nodes)
    simplify(folded, keeps=lambda node: False)
    simplify(kept, keeps=lambda node: any(value is not None and value.name == "one" for value in node.inputs))
    assert [node.op_type for node in folded.graph] == ["Mul"]
    assert [node.op_type for node in kept.graph] == ["Exp", "Mul"]


def test_a_graph_that_no_rule_is_for_stays() -> None:
    graph = graph_of(("Erf", ["x"], "y", {}))
    simplify(graph, keeps=lambda node: False)
    assert [node.op_type for node in graph.graph] == ["Erf"]
