"""A traced graph without what the tracing left in it: constants folded, moves that undo each other gone."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir.passes.common as passes
from onnxscript import ir
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewritePass, RewriteRule
from onnxscript.rewriter.rules import common

_ROUNDS = 2

# Those of onnxscript's own optimiser by the operator that they end in, but for the one that makes a Split of two
# Slices: looking for pairs, it takes the square of the number of nodes, half a minute for Stable Diffusion's, and
# networks are traced to Split anyway.
_RULES: dict[str, tuple[RewriteRule, ...]] = {
    "Mul": tuple(common.mul_by_1_rule.commute()),
    "Add": tuple(common.add_0_rule.commute()),
    "Sub": (common.sub_0_rule,),
    "Div": (common.div_by_1_rule,),
    "Dropout": (common.dropout_zero_rule, common.dropout_inference_rule),
    "Slice": (common.collapse_slice_rule, common.collapse_slice2_rule),
    "Reshape": (
        common.two_reshapes_matmul_reshape_rule,
        common.one_reshape_matmul_reshape_rule,
        common.materialize_reshape_shape_rule,
        common.reshape_reshape_rule,
        common.squeeze_reshape_1d_rule,
    ),
    "Min": (common.min_min_rule, common.max_min_rule),
    "Max": (common.max_max_rule, common.min_max_rule),
    "Clip": (common.successive_clip_rule, common.successive_clip_relu_rule),
    "Relu": (common.successive_relu_rule, common.successive_relu_clip_rule),
    "Cast": (
        common.cast_constant_of_shape_rule,
        common.cast_constant_of_shape_without_value_rule,
        common.cast_cast_rule,
        common.no_op_cast_rule,
    ),
    "Expand": (common.no_op_expand_rule,),
    "Flatten": (common.flatten_to_reshape_rule,),
    "Transpose": (common.no_op_transpose_rule, common.transpose_transpose_rule),
    "Unsqueeze": (common.unsqueeze_unsqueeze_rule,),
    "ScatterND": (common.no_op_dynamic_scatter_nd_rule, common.no_op_static_scatter_nd_rule),
    "Conv": (
        common.normalize_pad_format_conv_rule,
        common.fuse_pad_into_conv_rule,
        common.remove_optional_bias_from_conv_rule,
    ),
    "ConvTranspose": (common.remove_optional_bias_from_conv_transpose_rule,),
    "Gemm": (common.remove_optional_bias_from_gemm_rule,),
    "BatchNormalization": (
        common.fuse_batchnorm_into_conv_rule,
        common.fuse_batchnorm_into_conv_transpose_rule,
        common.fuse_batchnorm_into_gemm_rule,
    ),
}


def simplify(graph: ir.Model, keeps: Callable[[ir.Node], bool]) -> None:
    """Simplify a graph in place; no node for which `keeps` is true is computed beforehand."""
    passes.InlinePass()(graph)
    for _ in range(_ROUNDS):
        folded = fold_constants_ir(
            graph, onnx_shape_inference=True, should_fold=lambda node: False if keeps(node) else None
        )
        there = {node.op_type for node in graph.graph.all_nodes()}
        rules = [rule for name, some in _RULES.items() if name in there for rule in some]
        changed = bool(rules) and RewritePass(rules)(graph).modified
        passes.RemoveUnusedNodesPass()(graph)
        if not (folded.modified or changed):
            break
    for last in (
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        last(graph)
