"""Traced programs that torch.onnx may translate as they are, and need not be traced twice more to be taken apart."""

from __future__ import annotations

from typing import Any

import torch

from dpmrt.export.shortcuts import SHORTCUTS
from dpmrt.export.torch_onnx import is_translated
from dpmrt.export.translations import TRANSLATIONS

_aten = torch.ops.aten

# Operators that torch.onnx or a translation of ours turns to ONNX one by one, and that write to none of their inputs.
_TRANSLATED = frozenset(
    """
    _to_copy.default add.Tensor arange.default arange.start avg_pool2d.default baddbmm.default bmm.default
    broadcast_to.default cat.default chunk.default concat.default conv1d.default conv2d.default conv3d.default
    cos.default div.Tensor embedding.default exp.default expand.default flatten.using_ints full_like.default
    gelu.default group_norm.default layer_norm.default linear.default log.default matmul.default mish.default
    mul.Tensor neg.default ones.default pad.default permute.default pow.Tensor_Scalar relu.default repeat.default
    repeat_interleave.self_int reshape.default rsub.Scalar scaled_dot_product_attention.default select.int
    sigmoid.default silu.default sin.default slice.Tensor softmax.int split.Tensor sqrt.default squeeze.dim
    stack.default sub.Tensor sym_size.int tanh.default transpose.int unsqueeze.default upsample_nearest1d.vec
    upsample_nearest2d.vec upsample_nearest3d.vec view.default where.self zeros.default
    """.split()  # noqa: SIM905
)
# Of one tensor, these give it back; so do a dropout that drops nothing and a conversion to the type it has.
_SAME = frozenset([_aten.contiguous.default, _aten.detach.default])
_CHECKS = frozenset([_aten._assert_tensor_metadata.default, _aten._assert_scalar.default])


def leave_whole(program: Any) -> None:
    """Spare a program that torch.onnx takes it apart, if each of its operators is translated by itself.

    To take a program apart costs more than to trace it did, and such a one gives the same graph without it.
    """
    graph = program.graph
    calls = [node for node in graph.nodes if node.op == "call_function"]
    if any(node.op == "get_attr" for node in graph.nodes) or not all(_translated(node) for node in calls):
        return
    for node in calls:
        if node.target in _CHECKS:
            graph.erase_node(node)
        elif _gives_back(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target is _aten.to.dtype:
            node.target, node.args, node.kwargs = _aten._to_copy.default, node.args[:1], {"dtype": node.args[1]}
    _keep(program)


def leave_as_it_is(program: Any) -> None:
    """Spare a program of nothing but operators that are translated, and that write to none of their inputs.

    Such a one torch.onnx would trace again, for as long as it took to trace it, and take nothing apart.
    """
    nodes = program.graph.nodes
    calls = [node for node in nodes if node.op == "call_function"]
    if not any(node.op == "get_attr" for node in nodes) and all(_plain(node) for node in calls):
        _keep(program)


def _keep(program: Any) -> None:
    program.run_decompositions = lambda *arguments, **options: program


def _plain(node: Any) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return not isinstance(node.target, torch._ops.HigherOrderOperator)
    known = is_translated(node.target) or node.target in TRANSLATIONS or node.target in _CHECKS
    return known and not node.target._schema.is_mutable


def _translated(node: Any) -> bool:
    # Besides operators there is arithmetic with sizes, and taking one of several results.
    if not isinstance(node.target, torch._ops.OpOverload):
        return not isinstance(node.target, torch._ops.HigherOrderOperator)
    known = node.target.namespace == "aten" and str(node.target).removeprefix("aten.") in _TRANSLATED
    return known or node.target in SHORTCUTS or node.target in _CHECKS or _gives_back(node) or _converts(node)


def _gives_back(node: Any) -> bool:
    if node.target is _aten.dropout.default:
        return node.args[2] is False
    return node.target in _SAME or (_converts(node) and node.args[0].meta["val"].dtype == node.args[1])


def _converts(node: Any) -> bool:
    return node.target is _aten.to.dtype and len(node.args) == 2 and not node.kwargs
