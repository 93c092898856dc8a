"""A network's graphs in a folder, in the precision asked for: traced, written, checked, guarded."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxscript import ir

from dpmrt.engines import Network, Pin, Precision, PrecisionName, write_origins
from dpmrt.export.calibration import calibration
from dpmrt.export.emulation import emulate
from dpmrt.export.folding import Forward
from dpmrt.export.guard import EMULATED_NAME, PROBE_NAME, REFERENCE_NAME, guard
from dpmrt.export.interfaces import Interface
from dpmrt.export.onnx_files import DATA_NAME, EXTERNAL_ABOVE, check_cases, compare_onnx, write_onnx
from dpmrt.export.precision import sensitive_nodes, to_half
from dpmrt.export.sources import Source
from dpmrt.export.tracing import trace
from dpmrt.export.weights import origins

#: largest error of one call against torch in fp32 that an export lets pass, relative to the RMS of the output
CALL_LIMITS: dict[str, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
_SCRATCH = (REFERENCE_NAME, PROBE_NAME)


@dataclass(frozen=True)
class Plan:
    """How a network is exported: its interface and forward, with guidance folded in or not, and its precision."""

    source: Source
    interface: Interface
    forward: Forward
    kind: PrecisionName
    guarded: bool = True
    external_above: int = EXTERNAL_ABOVE


@dataclass(frozen=True)
class Written:
    """What was written: the network as a manifest lists it, and what was measured on the way."""

    network: Network
    error: float
    psnr: float | None


def write_network(
    plan: Plan,
    graph: ir.Model,
    draft: Network,
    folder: Path,
    scheduler: Mapping[str, Any],
    steps: int,
    tell: Callable[..., None],
) -> Written:
    """Write the graph into the folder of `draft`, hold it against torch, and mend its precision where that breaks."""
    home = (folder / draft.path).parent
    tell("write")
    write_origins(folder / draft.path, origins(graph))
    if plan.kind == "fp32":
        files = write_onnx(graph, home, external_above=plan.external_above, progress=_share(tell))
        error = _check(plan, files.graph, tell)
        return Written(_described(plan, draft, files.data is not None, (), None), error, None)
    full = sensitive_nodes(graph)
    # The graphs that half precision is judged by read the same file of weights, so they never lie in the graph.
    files = write_onnx(to_half(graph, plan.kind, full), home, external_above=-1, progress=_share(tell))
    stored = ir.load(files.graph)
    reference = home / REFERENCE_NAME
    ir.save(emulate(stored, rounding=False), reference)
    error = _check(plan, reference, tell)
    pins: tuple[Pin, ...] = ()
    psnr = None
    if plan.guarded:
        tell("guard")
        case = calibration(plan.interface, scheduler, parameters=plan.source.parameters, steps=steps)
        result = guard(graph, plan.kind, full, files.graph, case, tell=lambda text: tell("guard", text))
        pins, psnr = result.pins, result.psnr
        # Its emulation is written already: the guard ran it from there.
        ir.save(result.half, files.graph)
    else:
        ir.save(emulate(stored), home / EMULATED_NAME)
    for name in _SCRATCH:
        (home / name).unlink(missing_ok=True)
    return Written(_described(plan, draft, True, pins, EMULATED_NAME), error, psnr)


def trace_network(plan: Plan) -> ir.Model:
    """Trace the network of a plan to a graph in fp32."""
    return trace(plan.source.skeleton, plan.interface, plan.source.weights, forward=plan.forward)


def _check(plan: Plan, graph: Path, tell: Callable[..., None]) -> float:
    tell("check")
    cases = check_cases(plan.interface)
    source = plan.source
    expected = source.run_each(plan.forward, cases)
    gc.collect()
    return compare_onnx(graph, cases, expected, tolerance=CALL_LIMITS[plan.kind])


def _described(plan: Plan, draft: Network, external: bool, pins: tuple[Pin, ...], emulated: str | None) -> Network:
    home = Path(draft.path).parent.as_posix()
    return Network(
        path=draft.path,
        inputs=draft.inputs,
        outputs=draft.outputs,
        data=(f"{home}/{DATA_NAME}",) if external else (),
        config=draft.config,
        axes=draft.axes,
        channel_axis=draft.channel_axis,
        precision=Precision(plan.kind, pins, f"{home}/{emulated}" if emulated else None),
    )


def _share(tell: Callable[..., None]) -> Callable[[int, int], None]:
    return lambda done, total: tell("write", f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
