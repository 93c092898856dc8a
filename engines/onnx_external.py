"""Where an ONNX file keeps weights outside itself, read without the onnx package and without reading the weights.

Every tensor counts: those of the graph, of nodes, of nested graphs and of functions. All else is skipped by length.
"""

from __future__ import annotations

import mmap
from collections.abc import Container, Iterator
from pathlib import Path

# The fields of onnx.proto that lead to a tensor, message by message.
_BELOW = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external_data"},
}
_KEY, _VALUE = 1, 2


def external_locations(path: Path) -> set[str]:
    """Return the `location` of every tensor that is stored elsewhere; ValueError for what is no ONNX model."""
    found: set[str] = set()
    with path.open("rb") as stream:
        # Not closed by hand: a map with views on it refuses that, and it goes with the last view anyway.
        whole = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    waiting = [("model", whole)]
    graphs = 0
    while waiting:
        kind, message = waiting.pop()
        if kind == "external_data":
            entry = dict(_messages(message, (_KEY, _VALUE)))
            if bytes(entry.get(_KEY, b"")) == b"location":
                found.add(bytes(entry.get(_VALUE, b"")).decode())
            continue
        below = _BELOW[kind]
        waiting.extend((below[number], value) for number, value in _messages(message, below))
        graphs += kind == "graph"
    if not graphs:
        raise ValueError("no graph in the file")
    return found


def _messages(data: memoryview, wanted: Container[int]) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of each field of a protobuf message that has a length and a number that is wanted."""
    position, end = 0, len(data)
    while position < end:
        # Most numbers take one byte, and a graph has a hundred thousand of them.
        key = data[position]
        position += 1
        if key >= 0x80:
            key, position = _varint(data, position - 1)
        wire = key & 7
        if wire == 2:
            length = data[position] if position < end else 0x80
            position += 1
            if length >= 0x80:
                length, position = _varint(data, position - 1)
            stop = position + length
            if key >> 3 in wanted and stop <= end:
                yield key >> 3, data[position:stop]
            position = stop
        elif wire == 0:
            _, position = _varint(data, position)
        elif wire == 1:
            position += 8
        elif wire == 5:
            position += 4
        else:
            raise ValueError(f"unknown protobuf wire type {wire}")
    if position > end:
        raise ValueError("the file is truncated or is no protobuf message")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise ValueError("a protobuf number is cut off or too long")
