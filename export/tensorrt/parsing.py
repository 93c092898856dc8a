"""An ONNX file into a TensorRT network, with every error of the parser told with its node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpmrt.engines.built import EngineTensor
from dpmrt.runtime.tensorrt_library import TensorRT

_SHOWN = 8


class ParseFailure(Exception):
    """The parser refused the graph; the text lists its errors."""


def parse_network(trt: TensorRT, builder: Any, logger: Any, graph: Path) -> tuple[Any, Any]:
    """Return the network of an ONNX file and its parser, which owns the weights and has to be kept.

    The network is strongly typed: what computes in half precision was decided in the graph. TensorRT 10 has to be
    told so; in 11 and in TensorRT-RTX it is so anyway.
    """
    module = trt.module
    flags = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = module.OnnxParser(network, logger)
    # By path, so that the parser finds the weights that lie beside the graph.
    if not parser.parse_from_file(str(graph)):
        raise ParseFailure(_errors(parser) or "the parser gave no reason")
    if network.num_outputs == 0:
        raise ParseFailure("the graph has no outputs")
    return network, parser


def describe(trt: TensorRT, network: Any) -> tuple[tuple[EngineTensor, ...], tuple[EngineTensor, ...]]:
    """Return the inputs and outputs of a network; a free axis has the graph's name for it, or a question mark."""
    inputs = tuple(_tensor(trt, network.get_input(index)) for index in range(network.num_inputs))
    outputs = tuple(_tensor(trt, network.get_output(index)) for index in range(network.num_outputs))
    return inputs, outputs


def _tensor(trt: TensorRT, tensor: Any) -> EngineTensor:
    shape = tuple(
        int(size) if size >= 0 else tensor.get_dimension_name(axis) or "?" for axis, size in enumerate(tensor.shape)
    )
    kinds = trt.module.DataType.__members__
    names = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT32": "int32", "INT64": "int64"}
    dtype = next((ours for theirs, ours in names.items() if kinds.get(theirs) == tensor.dtype), str(tensor.dtype))
    return EngineTensor(tensor.name, dtype, shape)


def _errors(parser: Any) -> str:
    lines = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = (
            f"node {error.node_name() or error.node()} ({error.node_operator()}): " if error.node_operator() else ""
        )
        lines.append(where + " ".join(error.desc().split()))
    lines = list(dict.fromkeys(lines))
    return "\n".join(lines[:_SHOWN] + [f"and {len(lines) - _SHOWN} more"] * (len(lines) > _SHOWN))
