"""The NaN guard: half precision held against fp32 on whole trajectories, and mended where it breaks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxscript import ir

from dpmrt.engines import Pin
from dpmrt.errors import ExportError
from dpmrt.export.calibration import Calibration, Trajectory
from dpmrt.export.emulation import emulate
from dpmrt.export.onnx_files import session_of
from dpmrt.export.pinning import drifting, makes_half, measured, overflowing
from dpmrt.export.precision import HALF, LARGEST, MOVES, to_half
from dpmrt.export.probe import Readings, build_probe, build_ranges, read, read_ranges

#: PSNR of the final sample against fp32, in dB, that a precision has to reach
LEAST_PSNR = {"fp16": 40.0, "bf16": 30.0}
EMULATED_NAME = "emulated.onnx"
REFERENCE_NAME = "reference.onnx"
PROBE_NAME = "probe.onnx"

_ROUNDS = 24
_PROBED = 3
# Above this share of its nodes kept in fp32 for the sake of PSNR alone, half precision is not what is exported.
_MOST_PINNED = 0.5

Array = NDArray[Any]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Guarded:
    """A graph in half precision that passed: itself, its emulation, what was pinned, and how near it comes."""

    half: ir.Model
    emulated: ir.Model
    pins: tuple[Pin, ...]
    psnr: float


def guard(
    graph: ir.Model,
    kind: str,
    full: Collection[str],
    written: Path,
    case: Calibration,
    *,
    least: float | None = None,
    tell: Tell = lambda text: None,
) -> Guarded:
    """Pin what breaks in half precision until the trajectory's PSNR reaches `least`, by default LEAST_PSNR.

    `written` is the half graph on disk, whose weights all trials share; what is tried is written beside it.
    """
    least = LEAST_PSNR[kind] if least is None else least
    stored = ir.load(written)
    reference = emulate(stored, rounding=False)
    session = _session(reference, written.with_name(REFERENCE_NAME))
    exact = case.trajectory(session)
    _check_exact(exact)
    del session
    ranges = _measure_ranges(reference, written, case, exact.calls) if kind == "fp16" else None
    pins: list[Pin] = []
    count = 1
    for attempt in range(_ROUNDS):
        half = _over(to_half(graph, kind, full, pinned=[pin.node for pin in pins]), stored)
        rounded = emulate(half)
        tried = case.trajectory(_session(rounded, written.with_name(EMULATED_NAME)))
        psnr = exact.psnr(tried)
        tell(f"round {attempt + 1}: {psnr:.1f} dB, {len(pins)} nodes pinned")
        computing = len(pins) + sum(makes_half(node) and node.op_type not in MOVES for node in half.graph)
        found: list[Pin] = []
        if ranges is not None:
            found = overflowing(half, ranges, LARGEST[HALF[kind]])
        if not found and psnr < least and len(pins) <= _MOST_PINNED * computing:
            readings = _measure(reference, rounded, half, written, case, exact.calls, tried.lost)
            found = drifting(half, readings, count)
            count *= 2
        if not found:
            break
        pins += found
    if psnr >= least and not found:
        return Guarded(half, rounded, tuple(pins), psnr)
    raise ExportError(
        f"the network does not hold in {kind}",
        got=f"{psnr:.1f} dB from fp32 with {len(pins)} of {computing} nodes kept in fp32",
        expected=f"at least {least:g} dB",
        fix="export in bf16 or fp32" if kind == "fp16" else "export in fp32 or fp16",
    )


def _measure(
    reference: ir.Model,
    rounded: ir.Model,
    half: ir.Model,
    written: Path,
    case: Calibration,
    calls: list[tuple[Array, Array]],
    lost: int | None,
) -> Readings:
    points = dict.fromkeys(
        source.name or "" for node in half.graph for value in node.outputs if (source := measured(node, value))
    )
    probe = build_probe(reference, rounded, list(points))
    session = _session(probe.model, written.with_name(PROBE_NAME))
    total: Readings | None = None
    chosen = {round(k) for k in np.linspace(0, len(calls) - 1, _PROBED)} | ({lost} if lost is not None else set())
    for k in sorted(chosen):
        total = read(probe.points, session.run(None, case.inputs(*calls[k]))).worst_of(total)
    assert total is not None
    return total


def _measure_ranges(
    reference: ir.Model, written: Path, case: Calibration, calls: list[tuple[Array, Array]]
) -> Readings:
    probe = build_ranges(reference)
    session = _session(probe.model, written.with_name(PROBE_NAME))
    total: Readings | None = None
    for k in sorted({round(k) for k in np.linspace(0, len(calls) - 1, _PROBED)}):
        total = read_ranges(probe.points, session.run(None, case.inputs(*calls[k]))).worst_of(total)
    assert total is not None
    return total


def _over(graph: ir.Model, stored: ir.Model) -> ir.Model:
    """Let a graph read the weights that are stored."""
    for name, value in graph.graph.initializers.items():
        value.const_value = stored.graph.initializers[name].const_value
    return graph


def _session(graph: ir.Model, path: Path) -> Any:
    ir.save(graph, path)
    return session_of(path)


def _check_exact(path: Trajectory) -> None:
    states = [bool(np.isfinite(x).all()) for x, _ in path.calls]
    lost = path.lost if path.lost is not None else states.index(False) if False in states else None
    if lost is None and np.isfinite(path.last).all():
        return
    time = 0.0 if lost is None else float(np.ravel(path.calls[lost][1])[0])
    raise ExportError(
        "the network gives no finite numbers even in fp32",
        got=f"NaN or infinity at t = {time:g}",
        expected="finite numbers on the calibration trajectory",
        fix="look at the weights and the scheduler, or pass --no-guard",
    )
