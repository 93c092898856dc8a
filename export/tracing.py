"""A network as an ONNX graph in fp32: traced without its weights, which the graph then reads one at a time."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnxscript import ir

from dpmrt.engines import Origin, Shaped, Step, Turned
from dpmrt.errors import ExportError
from dpmrt.export.direct import leave_whole
from dpmrt.export.interfaces import Interface
from dpmrt.export.onnx_text import quietly, strip
from dpmrt.export.shortcuts import SHORTCUTS, Shortcuts
from dpmrt.export.simplifying import simplify
from dpmrt.export.torch_onnx import OPSET, nothing_remembered, to_onnx
from dpmrt.export.translations import TRANSLATIONS
from dpmrt.export.unexportable import operator_error
from dpmrt.export.weights import LazyWeight

# Tracing takes an axis of 1 or 0 for a constant, and two axes of one size for one axis.
_TRACED = {"batch": 3, "tokens": 7, "frames": 5}
_SCOPES = "pkg.torch.onnx.name_scopes"
_MODEL = "model."


_FAILURES = (
    torch.onnx.errors.OnnxExporterError,
    ir.passes.PassError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
)


class _Tensors(torch.nn.Module):  # type: ignore[misc]
    """The network with tensors in, in the order of its interface, and one tensor out."""

    def __init__(self, model: Any, interface: Interface, forward: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.model = model
        self._roles = [entry.role for entry in interface.inputs]
        self._forward = forward

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return the network's prediction."""
        with Shortcuts():
            return self._forward(self.model, dict(zip(self._roles, tensors)))


def trace(
    model: Any,
    interface: Interface,
    weights: Mapping[str, torch.Tensor],
    *,
    forward: Callable[..., torch.Tensor] | None = None,
) -> ir.Model:
    """Trace a network to a graph whose weights are read from `weights` when the graph is written.

    The parameters of `model` itself are never looked at. `forward(model, tensors)` computes the output from one
    tensor a role, by default as the interface says.
    """
    wrapper = _Tensors(model, interface, forward or interface.call)
    wrapper.eval()
    examples = interface.examples(**_traced_sizes(interface))
    inputs, outputs = interface.specs()
    axes = tuple(
        {index: torch.export.Dim.AUTO for index, axis in enumerate(entry.shape) if isinstance(axis, str)}
        for entry in interface.inputs
    )
    with quietly() as said, nothing_remembered():
        program = None
        try:
            program = torch.export.export(
                wrapper,
                tuple(examples.values()),
                dynamic_shapes={"tensors": axes},
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            leave_whole(program)
            taken, given = ([spec.name for spec in specs] for specs in (inputs, outputs))
            traced = to_onnx(program, taken, given, {**TRANSLATIONS, **SHORTCUTS})
            program = traced.exported_program or program
            graph = traced.model
            _bind(graph, weights)
            simplify(graph, keeps=_reads_weight)
            _settle(graph)
        except _FAILURES as error:
            raise operator_error(error, program, said, OPSET) from error
    _fold_layout(graph)
    for value in list(graph.graph.initializers.values()):
        value.name = (value.name or "").removeprefix(_MODEL)
    _name_nodes(graph)
    strip(graph)
    _name_axes(graph, interface)
    return graph


def _traced_sizes(interface: Interface) -> dict[str, int]:
    """Return sizes for tracing: small, allowed, and all different, lest two axes be taken for one."""
    sizes: dict[str, int] = {}
    for name, entry in interface.axes.items():
        axis = entry.axis
        least = max(axis.min, 2)
        size = -(-max(_TRACED.get(name, 4 * axis.multiple), least) // axis.multiple) * axis.multiple
        while size in sizes.values() and axis.takes(size + axis.multiple):
            size += axis.multiple
        sizes[name] = size if axis.takes(size) else axis.opt
    return sizes


class _Apart(LazyWeight):
    """A weight while the graph is optimised, which would make one of all that hold the same numbers.

    Those of another checkpoint need not be the same.
    """

    def tobytes(self) -> bytes:
        """Return what no other weight has."""
        return self.origin.tensor.encode()


def _bind(model: ir.Model, weights: Mapping[str, torch.Tensor]) -> None:
    named = {name.removeprefix(_MODEL): value for name, value in model.graph.initializers.items()}
    bound = {name: v for name, v in named.items() if name in weights and v.dtype == ir.DataType.FLOAT}
    for name, value in bound.items():
        shape = tuple(int(n) for n in value.shape or ())
        read = functools.partial(weights.__getitem__, name)
        value.const_value = _Apart(Origin(name), read, shape, ir.DataType.FLOAT, frozenset(bound))


def _settle(model: ir.Model) -> None:
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, _Apart):
            value.const_value = value.const_value.astype(value.const_value.dtype)


def _reads_weight(node: ir.Node) -> bool:
    return any(value is not None and isinstance(value.const_value, LazyWeight) for value in node.inputs)


def _fold_layout(model: ir.Model) -> None:
    """Let weights that are only turned or reshaped be stored that way."""
    graph = model.graph
    for node in list(graph):
        weight = node.inputs[0].const_value if node.inputs and node.inputs[0] is not None else None
        others = [value.const_value for value in node.inputs[1:] if value is not None]
        if not isinstance(weight, LazyWeight) or any(o is None or isinstance(o, LazyWeight) for o in others):
            continue
        shape = tuple(int(n) for n in weight.shape)
        steps = _layout(node, [o.numpy() for o in others if o is not None], shape)
        if steps is None:
            continue
        stand_in = Origin("", steps).apply(np.broadcast_to(np.float32(0), shape))
        tensor = weight.changed(steps, stand_in.shape)
        old = node.outputs[0]
        name = f"{node.inputs[0].name}.{node.op_type.lower()}"  # type: ignore[union-attr]
        while name in graph.initializers:
            name += "_"
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(stand_in.shape))
        value.const_value = tensor
        graph.register_initializer(value)
        ir.convenience.replace_all_uses_with(old, value)
        graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in graph.outputs:
            del graph.initializers[name]


def _layout(node: ir.Node, others: list[NDArray[Any]], shape: tuple[int, ...]) -> tuple[Step, ...] | None:
    """Return what a node does to the layout of its first input, and None where it does anything else."""
    if node.op_type == "Identity":
        return ()
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm", None)
        return (Turned(tuple(int(n) for n in (order or reversed(range(len(shape)))))),)
    stand_in = np.broadcast_to(np.float32(0), shape)
    if node.op_type == "Unsqueeze" and others:
        return (Shaped(np.expand_dims(stand_in, tuple(int(n) for n in others[0])).shape),)
    if node.op_type == "Reshape" and others and 0 not in others[0]:
        return (Shaped(stand_in.reshape(tuple(int(n) for n in others[0])).shape),)
    return None


def _name_nodes(model: ir.Model) -> None:
    """Name each node after the module that made it, as engines and reports show these names."""
    taken: dict[str, int] = {}
    for node in model.graph.all_nodes():
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
        named = (scope for scope in reversed(scopes[:-1]) if scope and not scope.startswith("_"))
        module = next(named, "").removeprefix("model").lstrip(".")
        name = f"{module}/{node.op_type}" if module else node.op_type
        count = taken[name] = taken.get(name, 0) + 1
        node.name = name if count == 1 else f"{name}_{count}"


def _name_axes(model: ir.Model, interface: Interface) -> None:
    """Give the graph's inputs and outputs the shapes that are declared; an axis that tracing fixed is an error."""
    inputs, outputs = interface.specs()
    for value, spec in zip((*model.graph.inputs, *model.graph.outputs), (*inputs, *outputs), strict=True):
        shape = list(value.shape or ())
        fixed = [name for name, got in zip(spec.shape, shape) if isinstance(name, str) and isinstance(got, int)]
        wrong = [
            (n, got) for n, got in zip(spec.shape, shape) if isinstance(n, int) and isinstance(got, int) and n != got
        ]
        if len(shape) != len(spec.shape) or wrong:
            raise ExportError(
                f"`{spec.name}` has another shape than is declared",
                got=f"[{', '.join(str(axis) for axis in shape)}]",
                expected=f"[{', '.join(str(axis) for axis in spec.shape)}]",
                fix="mend the shape in the spec, or the network's config",
            )
        if fixed:
            raise ExportError(
                f"the network cannot have an open axis {fixed[0]}: its code fixes the size",
                got=f"`{spec.name}` with [{', '.join(str(axis) for axis in shape)}]",
                expected=f"[{', '.join(str(axis) for axis in spec.shape)}]",
                fix=f"fix it: --axis {fixed[0]}=SIZE",
            )
        value.shape = ir.Shape(spec.shape)
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value not in model.graph.outputs:
                value.shape = None
