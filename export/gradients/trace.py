"""A module whose forward holds a backward pass, traced to a graph of forward operators."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnxscript import ir
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn.attention import SDPBackend, sdpa_kernel

from dpmrt.errors import ExportError
from dpmrt.export.direct import leave_as_it_is
from dpmrt.export.gradients.adjoints import decompositions
from dpmrt.export.gradients.whereabouts import raised_at, whereabouts
from dpmrt.export.onnx_text import quietly, strip
from dpmrt.export.simplifying import simplify
from dpmrt.export.torch_onnx import OPSET, nothing_remembered, to_onnx
from dpmrt.export.translations import TRANSLATIONS

#: a batch that no other axis of a small network is as long as
TRACED_BATCH = 3
_OPERATOR = re.compile(r"OpOverload\(op='([\w.]+)'|\b((?:aten|prims)[.:]{1,2}\w+)")


@dataclass(frozen=True)
class Backward:
    """What is traced: a module with a backward pass in its forward, its inputs by name, and the network within.

    The first axis of an input of `batched` stays open; every other size is that of its example. `what` is what an
    error calls the network, and `call` runs it forward, to find out where in it an operator is called.
    """

    module: Any
    inputs: dict[str, torch.Tensor]
    batched: frozenset[str]
    outputs: tuple[str, ...]
    network: Any
    call: Callable[[], object]
    what: str


def trace_backward(subject: Backward) -> ir.Model:
    """Trace a backward pass to an ONNX graph with a free batch axis."""
    examples = tuple(subject.inputs.values())
    with quietly() as said, _plain_attention(), nothing_remembered():
        try:
            forward_only = make_fx(
                subject.module,
                decomposition_table=decompositions(),
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
            )(*_symbolic(subject))
        except Exception as error:
            raise _untraceable(subject, error, said) from error
        left = [str(node.target) for node in forward_only.graph.nodes if "_backward" in str(node.target)]
        if left:
            raise _unsupported(subject, left[0])
        batch = torch.export.Dim("batch")
        try:
            program = torch.export.export(
                forward_only,
                examples,
                dynamic_shapes=tuple({0: batch} if name in subject.batched else {} for name in subject.inputs),
                strict=False,
            )
            leave_as_it_is(program)
            graph: ir.Model = to_onnx(program, list(subject.inputs), subject.outputs, TRANSLATIONS).model
            simplify(graph, keeps=lambda node: False)
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
            raise _untraceable(subject, error.__cause__ or error, said) from error
    strip(graph)
    _name_batch(graph)
    return graph


def _name_batch(graph: ir.Model) -> None:
    """Call the axis that stays open what it is, in the inputs and outputs; of all between, no shape is said."""
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        sizes = value.shape or ()
        value.shape = ir.Shape([size if isinstance(size, int) else "batch" for size in sizes])
    for node in graph.graph.all_nodes():
        for value in node.outputs:
            if value not in graph.graph.outputs:
                value.shape = None


def _symbolic(subject: Backward) -> list[torch.Tensor]:
    """Return fakes of the inputs, of which the batch alone is a symbol: every other size stays a number."""
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    return [
        mode.from_tensor(
            tensor,
            symbolic_context=StatelessSymbolicContext(
                dynamic_sizes=[
                    DimDynamic.DUCK if axis == 0 and name in subject.batched else DimDynamic.STATIC
                    for axis in range(tensor.ndim)
                ]
            ),
        )
        for name, tensor in subject.inputs.items()
    ]


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    # The fused kernels have backward operators of their own, which nothing but torch has.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _unsupported(subject: Backward, operator: str) -> ExportError:
    return ExportError(
        "an operator's gradient cannot be exported",
        got=f"{operator}{_place(subject, operator)}",
        expected=f"a gradient of operators that ONNX has at opset {OPSET}",
        fix=f"write this part of the {subject.what} with other operators",
    )


def _untraceable(subject: Backward, error: BaseException, said: Sequence[str]) -> ExportError:
    named = _OPERATOR.search(str(getattr(error, "func", "")) or str(error))
    operator = next(filter(None, named.groups()), "") if named else ""
    # What torch adds below is how to debug torch.
    reason = str(error).strip().partition("\n\n")[0]
    return ExportError(
        f"torch cannot trace the {subject.what}'s gradient",
        got="\n".join(
            [
                f"{type(error).__name__}: {reason}{_place(subject, operator) or raised_at(error)}",
                *dict.fromkeys(said),
            ]
        ),
        expected=f"a network of operators that ONNX has at opset {OPSET}, with no branch on values",
    )


def _place(subject: Backward, operator: str) -> str:
    return whereabouts(subject.network, subject.call, operator, what=subject.what)
