"""An emulated graph rounds as the half graph does, operator for operator."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from half_graphs import KINDS, Array, as_float32, dtypes, graph_of, halved, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnxscript import ir

from dpmrt.export.emulation import emulate
from dpmrt.export.precision import sensitive_nodes

TYPES: dict[str, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
UNIT = {"fp16": 2.0**-10, "bf16": 2.0**-7}
WEIGHT = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
SHAPE = np.array([4, 4])

#: operator: its further inputs, its attributes, and what it computes
STEPS: dict[str, tuple[tuple[str, ...], dict[str, Any], Any]] = {
    "Add": (("w",), {}, lambda x, w: x + w),
    "Mul": (("w",), {}, lambda x, w: x * w),
    "MatMul": (("w",), {}, lambda x, w: x @ w),
    "Softmax": ((), {}, lambda x: np.exp(x - x.max(-1, keepdims=True))),
    "Reshape": (("shape",), {}, lambda x, shape: x.reshape(shape)),
    "Transpose": ((), {"perm": [1, 0]}, lambda x: x.T),
    "Concat": (("w",), {"axis": 0}, lambda x, w: np.concatenate([x, w])),
    "ReduceMean": (("first",), {"keepdims": 1}, lambda x, first: x.mean(0, keepdims=True)),
    "Cast": ((), {"to": 1}, lambda x: x),
    "Where": (("chosen", "w"), {}, lambda x, chosen, w: np.where(chosen, x, w)),
}
WEIGHTS = {"w": WEIGHT, "shape": SHAPE, "first": np.array([0]), "chosen": WEIGHT > 0}


def rounded(array: Array, kind: str) -> Array:
    return as_float32(as_float32(array).astype(TYPES[kind]))


def chain(operators: list[str]) -> ir.Model:
    nodes, last = [], "x"
    for number, op in enumerate(operators):
        more, attributes, _ = STEPS[op]
        taken = (more[0], last, more[1]) if op == "Where" else (last, *more)
        nodes.append((op, taken, f"v{number}", attributes))
        last = f"v{number}"
        if op == "Concat":
            nodes.append(("Slice", (last, "start", "stop"), f"{last}_first", {}))
            last = f"{last}_first"
        if op == "ReduceMean":
            nodes.append(("Expand", (last, "shape"), f"{last}_all", {}))
            last = f"{last}_all"
    nodes.append(("Identity", (last,), "y", {}))
    weights = {**WEIGHTS, "start": np.array([1]), "stop": np.array([5])}
    used = {name for _, taken, _, _ in nodes for name in taken}
    return graph_of(nodes, {n: w for n, w in weights.items() if n in used}, inputs={"x": [4, 4]})


def simulated(model: ir.Model, operators: list[str], x: Array, kind: str) -> Array:
    """Compute a chain in NumPy: nodes in half round what they read and what they give."""
    full = sensitive_nodes(model)
    weight = {"w": rounded(WEIGHT, kind)}

    def step(name: str, compute: Any, x: Array) -> Array:
        if name in full:
            return as_float32(compute(as_float32(x)))
        return rounded(compute(rounded(x, kind)), kind)

    for number, op in enumerate(operators):
        more, _, compute = STEPS[op]
        others = [{**WEIGHTS, **weight}[name] for name in more]
        name = f"v{number}"
        if op == "Softmax":
            x = step(name, lambda x: compute(x) / compute(x).sum(-1, keepdims=True), x)  # noqa: B023
        else:
            x = step(name, lambda x: compute(x, *others), x)  # noqa: B023
        if op == "Concat":
            x = step(f"{name}_first", lambda x: x[1:5], x)
        if op == "ReduceMean":
            x = step(f"{name}_all", lambda x: np.broadcast_to(x, (4, 4)), x)
    return step("y", lambda x: x, x)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=7), st.integers(0, 99), st.sampled_from(KINDS))
def test_chains_are_rounded_as_numpy_rounds(operators: list[str], seed: int, kind: str) -> None:
    model = chain(operators)
    half = halved(model, kind)
    x = np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)
    expected = simulated(model, operators, x, kind)
    got = run(emulate(half), x=x)
    if {"MatMul", "Softmax", "ReduceMean"}.isdisjoint(operators):
        np.testing.assert_array_equal(got, expected)
    else:
        # Sums in another order may round to the neighbour, which later operators scale.
        np.testing.assert_allclose(got, expected, atol=8 * UNIT[kind] * max(1.0, float(np.abs(expected).max())))
    if kind == "fp16":
        (real,) = ReferenceEvaluator(ir.to_proto(half)).run(None, {"x": x})
        assert real.dtype == np.float32
        np.testing.assert_allclose(real, expected, atol=16 * UNIT[kind] * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("kind", KINDS)
def test_without_rounding_only_weights_are_rounded(traced: ir.Model, kind: str) -> None:
    half = halved(traced, kind)
    plain = emulate(half, rounding=False)
    types = {value.dtype for node in plain.graph for value in node.outputs if value.dtype is not None}
    assert types <= {ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL}
    again = traced.clone()
    for name, value in half.graph.initializers.items():
        if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
            array = as_float32(value.const_value.numpy())  # type: ignore[union-attr]
            again.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    rng = np.random.default_rng(0)
    feeds = {
        "sample": rng.normal(size=(3, 1, 8, 8)).astype(np.float32),
        "timestep": np.array([999, 500.5, 0], np.float32),
        "class_labels": np.array([0, 5, 10]),
    }
    np.testing.assert_allclose(run(plain, **feeds), run(again, **feeds), atol=1e-6)
    assert np.abs(run(plain, **feeds) - run(traced, **feeds)).max() > 1e-6
    assert np.abs(run(emulate(half), **feeds) - run(plain, **feeds)).max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_overflow_is_infinite_where_half_overflows(kind: str) -> None:
    model = graph_of([("Mul", ("x", "x"), "a"), ("Sqrt", ("a",), "y")])
    x = np.array([[1, 255, 256, 300]] * 2, np.float32)
    got = run(emulate(halved(model, kind)), x=x)
    np.testing.assert_array_equal(np.isinf(got[0]), [False, False, kind == "fp16", kind == "fp16"])
    plain = run(emulate(halved(model, kind), rounding=False), x=x)
    np.testing.assert_allclose(plain, x, rtol=1e-6)


def test_an_input_beyond_half_is_infinite() -> None:
    model = graph_of([("Sigmoid", ("x",), "a"), ("Add", ("a", "x"), "y")])
    x = np.full((2, 4), 1e5, np.float32)
    assert np.isinf(run(emulate(halved(model, "fp16")), x=x)).all()
    assert np.isfinite(run(emulate(halved(model, "fp16", ["y", "a"])), x=x)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_types(traced: ir.Model, kind: str) -> None:
    half = halved(traced, kind)
    graph = emulate(half)
    names = {value.name for node in graph.graph for value in node.outputs}
    assert {value.name for node in half.graph for value in node.outputs} <= names
    assert {node.name for node in half.graph} <= {node.name for node in graph.graph}
    assert dtypes(graph, "Conv", "MatMul", "Gemm", "Mul", "Add") == {"FLOAT"}
