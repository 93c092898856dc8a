"""Which nodes to keep in fp32, by what a probe read: what overflows, and what drifts most."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnxscript import ir

from dpmrt.engines import Pin
from dpmrt.export.precision import FLOATS, LARGEST, MOVES
from dpmrt.export.probe import Readings

# Part of the largest number that half can hold which calibration may use: real requests differ from it.
_HEADROOM = 0.5


def measured(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """Return the value whose numbers are looked at for an output: its own, or those that a cast to half is given."""
    if value.dtype not in FLOATS:
        return None
    source = node.inputs[0] if node.op_type == "Cast" else None
    if source is not None and source.dtype in FLOATS:
        return source if value.dtype in LARGEST and not source.is_initializer() else None
    return None if node.op_type in MOVES and node.op_type != "Cast" else value


def overflowing(half: ir.Model, readings: Readings, held: float) -> list[Pin]:
    """Return what to pin for every tensor that nears what half can hold: its node, and those that read it."""
    pins: dict[str, Pin] = {}
    large = {name: most for name, most in zip(readings.points, readings.largest) if not most <= held * _HEADROOM}
    for node in half.graph:
        for value in node.outputs:
            source = measured(node, value)
            if source is None or value.dtype not in LARGEST or source.name not in large:
                continue
            why = f"reaches {large[source.name]:.3g}, and half holds {held:.6g}"
            _pin(pins, node, why)
            for reader in _readers(value):
                _pin(pins, reader, f"reads {_maker(source)}, which {why}")
    return list(pins.values())


def drifting(half: ir.Model, readings: Readings, count: int) -> list[Pin]:
    """Return what to pin for the `count` tensors whose error grows most over that of what they are made from.

    Where such a tensor is made in fp32 already, as a small difference of large numbers may be, what it is made from
    is to blame.
    """
    error = dict(zip(readings.points, readings.error))
    grown: list[tuple[float, ir.Node]] = []
    for node in half.graph:
        known = [error[value.name] for value in node.outputs if value.name in error]
        if known and node.op_type not in MOVES:
            before = max((_arriving(source, error) for source in node.inputs if source is not None), default=0.0)
            after = max(known)
            growth = after - before if np.isfinite(after) else np.inf if np.isfinite(before) else -1.0
            grown.append((float(growth), node))
    pins: dict[str, Pin] = {}
    for growth, node in sorted(grown, key=lambda entry: -entry[0]):
        why = f"adds a relative error of {growth:.2g}"
        size = len(pins)
        if makes_half(node):
            _pin(pins, node, why)
            for value in node.outputs:
                for reader in _readers(value):
                    _pin(pins, reader, f"reads {node.name}, which {why}")
        else:
            for source in node.inputs:
                for maker in _makers(source):
                    _pin(pins, maker, f"is read by {node.name}, which {why}")
        count -= len(pins) > size
        if count == 0:
            break
    return list(pins.values())


def _arriving(value: ir.Value, error: Mapping[str, float]) -> float:
    """Return the error of a value, through nodes that only move numbers or convert them."""
    if (value.name or "") in error:
        return float(error[value.name or ""])
    producer = value.producer()
    if producer is None or producer.op_type not in MOVES:
        return 0.0
    return max((_arriving(source, error) for source in producer.inputs if source is not None), default=0.0)


def _makers(value: ir.Value | None) -> list[ir.Node]:
    """Return the node that computes a value, and those that only move it from there."""
    node = None if value is None else value.producer()
    if node is None or value is None or value.dtype not in FLOATS:
        return []
    moved = [maker for source in node.inputs for maker in _makers(source)] if node.op_type in MOVES else []
    return [node, *moved]


def _maker(value: ir.Value) -> str:
    producer = value.producer()
    return f"`{value.name}`" if producer is None else producer.name or ""


def _readers(value: ir.Value) -> list[ir.Node]:
    """Return the nodes that compute with a value, and those that only move it on the way there."""
    found: list[ir.Node] = []
    for node, _ in value.uses():
        found.append(node)
        if node.op_type in MOVES:
            for out in node.outputs:
                found += _readers(out)
    return found


def _pin(pins: dict[str, Pin], node: ir.Node, why: str) -> None:
    if node.name and makes_half(node) and not node.name.endswith(("/to_fp16", "/to_bf16")):
        pins.setdefault(node.name, Pin(node.name, why))


def makes_half(node: ir.Node) -> bool:
    """Return whether a node gives numbers in half."""
    return any(value.dtype in LARGEST for value in node.outputs)
