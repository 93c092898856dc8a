"""The inputs and outputs of an ONNX file, read without the onnx package and without reading its weights.

Only the fields of `onnx.proto` that are named below are looked at; everything else is skipped by its length.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dpmrt.errors import BundleError
from dpmrt.runtime.backends.base import Tensor

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_INITIALIZER_DIMS, _INITIALIZER_ELEMENT, _INITIALIZER_NAME = 1, 2, 8
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR = 1
_TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2
_SHAPE_DIM = 1
_DIM_VALUE, _DIM_PARAM = 1, 2
_ELEMENTS = {1: "float32", 6: "int32", 7: "int64", 10: "float16", 11: "float64", 16: "bfloat16"}

_Field: TypeAlias = "tuple[int, int | memoryview]"


@dataclass(frozen=True)
class GraphHeader:
    """What a graph takes and gives, and how many numbers of a floating-point type it keeps as weights."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    numbers: int = 0


def read_graph_header(path: Path) -> GraphHeader:
    """Read what a graph takes, gives and keeps as weights; BundleError for a file that holds no ONNX graph."""
    try:
        with path.open("rb") as stream:
            # Not closed by hand: a map with views on it refuses that, and it goes with the last view anyway.
            return _read_model(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    except FileNotFoundError:
        raise BundleError("a file of the bundle is missing", got=f"no {path}", expected="an ONNX model") from None
    except (OSError, ValueError, IndexError) as error:
        raise BundleError(
            f"{path.name} is not an ONNX model",
            got=error,
            expected="a file that torch.onnx or optimum wrote",
            fix="export the network again: dpmrt export SOURCE -o BUNDLE",
        ) from None


def _read_model(data: memoryview) -> GraphHeader:
    graph = next((_message(value) for field, value in _fields(data) if field == _MODEL_GRAPH), None)
    if graph is None:
        raise ValueError("no graph in the file")
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    weights: set[str] = set()
    numbers = 0
    for field, value in _fields(graph):
        if field == _GRAPH_INPUT:
            inputs.append(_tensor(_message(value)))
        elif field == _GRAPH_OUTPUT:
            outputs.append(_tensor(_message(value)))
        elif field == _GRAPH_INITIALIZER:
            name, count = _weight(_message(value))
            weights.add(name)
            numbers += count
    if not outputs:
        raise ValueError("the graph has no outputs")
    return GraphHeader(tuple(spec for spec in inputs if spec.name not in weights), tuple(outputs), numbers)


def _weight(data: memoryview) -> tuple[str, int]:
    """Return the name of an initializer, and how many numbers it holds if they are no integers."""
    name, element, count = "", 0, 1
    for field, value in _fields(data):
        if field == _INITIALIZER_NAME:
            name = _text(value)
        elif field == _INITIALIZER_ELEMENT and isinstance(value, int):
            element = value
        elif field == _INITIALIZER_DIMS:
            for size in (value,) if isinstance(value, int) else _packed(value):
                count *= size
    return name, count if "float" in _ELEMENTS.get(element, "") else 0


def _packed(data: memoryview) -> Iterator[int]:
    position = 0
    while position < len(data):
        size, position = _varint(data, position)
        yield size


def _tensor(data: memoryview) -> Tensor:
    name = dtype = ""
    shape: tuple[int | str, ...] = ()
    for field, value in _fields(data):
        if field == _VALUE_NAME:
            name = _text(value)
        elif field == _VALUE_TYPE:
            for kind, tensor in _fields(_message(value)):
                if kind == _TYPE_TENSOR:
                    dtype, shape = _tensor_type(_message(tensor))
    return Tensor(name, dtype, shape)


def _tensor_type(data: memoryview) -> tuple[str, tuple[int | str, ...]]:
    dtype = ""
    shape: tuple[int | str, ...] = ()
    for field, value in _fields(data):
        if field == _TENSOR_ELEMENT:
            if value not in _ELEMENTS:
                raise ValueError(f"an input or output has ONNX element type {value}")
            dtype = _ELEMENTS[int(value)]
        elif field == _TENSOR_SHAPE:
            shape = tuple(_axis(_message(dim)) for number, dim in _fields(_message(value)) if number == _SHAPE_DIM)
    return dtype, shape


def _axis(data: memoryview) -> int | str:
    for field, value in _fields(data):
        if field == _DIM_VALUE and isinstance(value, int):
            return value
        if field == _DIM_PARAM:
            return _text(value)
    return "?"


def _fields(data: memoryview) -> Iterator[_Field]:
    """Yield (number, value) of each field of a protobuf message: an int, or the bytes of a nested one."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown protobuf wire type {wire}")
        if number == 0 or position + length > len(data):
            raise ValueError("the file is truncated or is no protobuf message")
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        result |= (byte & 0x7F) << shift
        position += 1
        if not byte & 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("a protobuf number is too long")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message should")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
