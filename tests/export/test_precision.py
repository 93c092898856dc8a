"""What computes in half and what in fp32, and that nothing else about a graph changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from half_graphs import KINDS, dtypes, graph_of, halved, run, stored_bytes
from onnx import helper
from onnxscript import ir

from dpmrt.errors import ExportError
from dpmrt.export.emulation import emulate
from dpmrt.export.precision import sensitive_nodes, to_half

HALF_NAMES = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}


@pytest.fixture(scope="module", params=["labelled", "conditional"])
def network(request: pytest.FixtureRequest, traced: ir.Model, traced_conditional: ir.Model) -> ir.Model:
    return traced if request.param == "labelled" else traced_conditional


def tensors(values: Any) -> list[tuple[str, Any, Any]]:
    return [(value.name, value.dtype, value.shape) for value in values]


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_are_valid(network: ir.Model, kind: str) -> None:
    half = halved(network, kind)
    for graph in (half, emulate(half), emulate(half, rounding=False)):
        onnx.checker.check_model(ir.to_proto(graph), full_check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_computes_in_which_type(network: ir.Model, kind: str) -> None:
    half = halved(network, kind)
    assert dtypes(half, "InstanceNormalization", "Softmax", "Sin", "Cos", "LayerNormalization") == {"FLOAT"}
    assert dtypes(half, "Conv", "MatMul") == {HALF_NAMES[kind]}
    timed = [node for node in half.graph if (node.name or "").startswith(("time_proj", "time_embedding"))]
    assert len(timed) > 8
    for node in timed:
        types = {v.dtype for v in (*node.inputs, *node.outputs) if v is not None and v.dtype.is_floating_point()}
        assert types <= {ir.DataType.FLOAT}, node.name


@pytest.mark.parametrize("kind", KINDS)
def test_no_cast_undoes_another(network: ir.Model, kind: str) -> None:
    for node in halved(network, kind).graph:
        if node.op_type == "Cast":
            producer = node.inputs[0].producer() if node.inputs[0] is not None else None
            assert producer is None or producer.op_type != "Cast", node.name
            assert node.inputs[0].dtype != node.outputs[0].dtype, node.name  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_outputs_and_names_are_kept(network: ir.Model, kind: str) -> None:
    half = halved(network, kind)
    for graph in (half, emulate(half)):
        assert tensors(graph.graph.inputs) == tensors(network.graph.inputs)
        assert tensors(graph.graph.outputs) == tensors(network.graph.outputs)
        assert {node.name for node in network.graph} <= {node.name for node in graph.graph}
    assert {value.dtype for value in half.graph.inputs} <= {ir.DataType.FLOAT, ir.DataType.INT64}


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_given_is_left_alone_and_the_same_bytes_come_out(network: ir.Model, kind: str) -> None:
    before = ir.to_proto(network).SerializeToString()
    first, second = (ir.to_proto(emulate(halved(network, kind))).SerializeToString() for _ in range(2))
    assert first == second
    assert ir.to_proto(network).SerializeToString() == before


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_are_stored_in_half_of_the_bytes(network: ir.Model, kind: str) -> None:
    half = halved(network, kind)
    full = sensitive_nodes(network)
    stored = half.graph.initializers
    for name, value in network.graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT and value.const_value is not None:
            expected = 1 if any(node.name in full for node, _ in value.uses()) else 2
            expected = 1 if any(node.op_type == "Resize" for node, _ in value.uses()) else expected
            assert value.const_value.nbytes == expected * stored[name].const_value.nbytes, name  # type: ignore[union-attr]
    assert stored_bytes(half) < 0.75 * stored_bytes(network)


@pytest.mark.parametrize("kind", KINDS)
def test_pinning_changes_no_weight(network: ir.Model, kind: str) -> None:
    convolutions = [node.name or "" for node in network.graph if node.op_type == "Conv"]
    half, pinned = halved(network, kind), halved(network, kind, convolutions)
    assert dtypes(pinned, "Conv") == {"FLOAT"}
    assert {name: value.dtype for name, value in pinned.graph.initializers.items()} == {
        name: value.dtype for name, value in half.graph.initializers.items()
    }
    onnx.checker.check_model(ir.to_proto(pinned), full_check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_scales_of_resize_stay_fp32(kind: str) -> None:
    scales = np.array([1, 1, 1.1, 1.1], np.float32)
    graph = graph_of([("Resize", ("x", "", "scales"), "y")], {"scales": scales}, inputs={"x": [1, 1, 10, 10]})
    half = halved(graph, kind)
    onnx.checker.check_model(ir.to_proto(half), full_check=True)
    assert half.graph.initializers["scales"].dtype == ir.DataType.FLOAT
    assert half.graph.initializers["scales"].uses()[0].node.op_type == "Resize"
    assert run(emulate(half), x=np.zeros((1, 1, 10, 10), np.float32)).shape == (1, 1, 11, 11)


@pytest.mark.parametrize("kind", KINDS)
def test_integers_are_untouched(kind: str) -> None:
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    nodes = [("Gather", ("table", "label"), "row"), ("Add", ("x", "row"), "y")]
    half = halved(graph_of(nodes, {"table": table}, integers={"label": [2]}), kind)
    assert half.graph.inputs[1].dtype == ir.DataType.INT64
    assert next(node for node in half.graph if node.name == "row").inputs[1] is half.graph.inputs[1]
    got = run(emulate(half), x=np.ones((2, 4), np.float32), label=np.array([2, 0]))
    np.testing.assert_array_equal(got, 1 + table[[2, 0]])


@pytest.mark.parametrize(
    ("number", "fp32_in"),
    [(1e5, {"fp16"}), (3e38, {"fp16"}), (1e-9, {"fp16"}), (1e-6, {"fp16"}), (1e-5, set()), (65504.0, set())],
)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_half_cannot_hold(number: float, fp32_in: set[str], kind: str) -> None:
    graph = graph_of([("Mul", ("x", "number"), "y")], {"number": np.array(number, np.float32)})
    half = halved(graph, kind)
    expected = "FLOAT" if kind in fp32_in else HALF_NAMES[kind]
    assert half.graph.initializers["number"].dtype.name == expected  # type: ignore[union-attr]
    assert dtypes(half, "Mul") == {expected}
    x = np.full((2, 4), 0.5, np.float32)
    np.testing.assert_allclose(run(emulate(half), x=x), 0.5 * number, rtol=0.01)


def test_weights_that_only_have_small_numbers_among_them_are_halved() -> None:
    weight = np.array([1.0, 1e-9, 0, 2], np.float32)
    half = halved(graph_of([("Mul", ("x", "w"), "y")], {"w": weight}), "fp16")
    assert half.graph.initializers["w"].dtype == ir.DataType.FLOAT16


def test_operators_without_bf16_compute_in_fp32() -> None:
    nodes = [("Einsum", ("x", "w"), "z", {"equation": "ij,jk->ik"}), ("Neg", ("z",), "y")]
    graph = graph_of(nodes, {"w": np.ones((4, 4), np.float32)})
    for kind, expected in (("fp16", "FLOAT16"), ("bf16", "FLOAT")):
        half = halved(graph, kind)
        onnx.checker.check_model(ir.to_proto(half), full_check=True)
        assert dtypes(half, "Einsum") == {expected}


def test_what_only_moves_numbers_between_fp32_nodes_stays_fp32() -> None:
    nodes = [
        ("Reshape", ("x", "shape"), "a"),
        ("Softmax", ("a",), "b"),
        ("Transpose", ("b",), "c"),
        ("Softmax", ("c",), "d"),
        ("Transpose", ("d",), "e"),
        ("Sigmoid", ("e",), "y"),
    ]
    half = halved(graph_of(nodes, {"shape": np.array([4, 2])}), "fp16")
    by_name = {node.name: node.outputs[0].dtype.name for node in half.graph}  # type: ignore[union-attr]
    assert {name: by_name[name] for name in "abcde"} == dict.fromkeys("abcd", "FLOAT") | {"e": "FLOAT16"}


def test_whole_numbers_beyond_half_become_floats_exactly() -> None:
    nodes = [("Cast", ("position",), "a", {"to": 1}), ("Sin", ("a",), "b"), ("Mul", ("x", "b"), "y")]
    half = halved(graph_of(nodes, integers={"position": [4]}), "fp16")
    position = np.array([0, 2049, 70001, 100001])
    got = run(emulate(half), x=np.ones((2, 4), np.float32), position=position)
    np.testing.assert_allclose(got[0], np.sin(position), atol=1e-3)


def test_nodes_without_a_name_are_not_taken_for_sensitive_ones() -> None:
    graph = graph_of([("Softmax", ("x",), "a"), ("MatMul", ("a", "w"), "y")], {"w": np.ones((4, 4), np.float32)})
    for node in graph.graph:
        node.name = ""
    assert sensitive_nodes(graph) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_branches_are_refused(kind: str) -> None:
    float32 = onnx.TensorProto.FLOAT
    branch = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["z"])], "then", [], [helper.make_tensor_value_info("z", float32, [1])]
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch, else_branch=branch)],
        "graph",
        [
            helper.make_tensor_value_info("x", float32, [1]),
            helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", float32, [1])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    with pytest.raises(ExportError) as caught:
        to_half(model, kind, ())
    assert str(caught.value).splitlines() == [
        "half precision cannot be given to a graph with branches or loops",
        "  got:      If",
        "  expected: a graph without If, Loop and Scan",
        "  fix:      export in fp32",
    ]


def test_an_output_that_is_read_inside_too() -> None:
    graph = graph_of([("Sigmoid", ("x",), "y"), ("Neg", ("y",), "z")], outputs=("y", "z"))
    half = halved(graph, "fp16")
    onnx.checker.check_model(ir.to_proto(half), full_check=True)
    assert [value.name for value in half.graph.outputs] == ["y", "z"]
    assert {value.dtype for value in half.graph.outputs} == {ir.DataType.FLOAT}


def test_the_fp16_graph_itself_computes_the_network(traced: ir.Model) -> None:
    half = halved(traced, "fp16")
    rng = np.random.default_rng(0)
    feeds = {
        "sample": rng.normal(size=(2, 1, 8, 8)).astype(np.float32),
        "timestep": np.array([987.65, 3.5], np.float32),
        "class_labels": np.array([1, 10]),
    }
    exact = run(traced, **feeds)
    # ONNX Runtime computes these in fp32 itself, which is within what half precision lets pass.
    np.testing.assert_allclose(run(half, **feeds), exact, atol=1e-2)
    np.testing.assert_allclose(run(emulate(half), **feeds), exact, atol=1e-2)
