"""The NaN guard: half precision held against fp32 on whole trajectories, and mended where it breaks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxscript import ir

from dpmrt.engines import Pin
from dpmrt.errors import ExportError, OptionError
from dpmrt.export.emulation import emulate
from dpmrt.export.interfaces import Interface
from dpmrt.export.onnx_files import session_of, small_sizes
from dpmrt.export.precision import HALF, LARGEST, MOVES, to_half
from dpmrt.export.probe import Readings, build_probe, read
from dpmrt.solvers_np import StepPlan, plan_from_diffusers, randn, run_plan

#: PSNR of the final sample against fp32, in dB, that a precision has to reach
LEAST_PSNR = {"fp16": 40.0, "bf16": 30.0}
EMULATED_NAME = "emulated.onnx"

_ROUNDS = 24
# Part of the largest number that half can hold which calibration may use: real requests differ from it.
_HEADROOM = 0.5
_SEED = 20
_LARGE_PARAMETERS = 200_000_000
_LARGE_STEPS = 3
_PROBED = 3

Array = NDArray[Any]
Feeds = dict[str, Array]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """Trajectories to try a precision on: the plan, the conditions, and where it starts."""

    plan: StepPlan
    x: Array
    feeds: Feeds
    extra: Array | None
    channel_axis: int

    def call(self, session: Any, x: Array, t: Array) -> Array:
        """Run a network once."""
        result: Array = session.run(None, self.inputs(x, t))[0]
        return result

    def inputs(self, x: Array, t: Array) -> Feeds:
        """Return what the graph is fed with at one state and time."""
        sample = x if self.extra is None else np.concatenate([x, self.extra], axis=self.channel_axis)
        time = np.asarray(t, np.float32)
        return {**self.feeds, "sample": sample.astype(np.float32), "timestep": time if time.ndim else time[None]}

    def trajectory(self, session: Any) -> list[tuple[Array, Array]]:
        """Return state and time of each call, and the final sample with time 0."""
        seen: list[tuple[Array, Array]] = []

        def model(x: Array, t: Array) -> Array:
            seen.append((x.copy(), np.asarray(t).copy()))
            output = self.call(session, x, t)
            # The state may be lost already; the executor would say so in the words of a sampling user.
            return np.nan_to_num(output, nan=0.0, posinf=1e4, neginf=-1e4)

        last = run_plan(self.plan, model, self.x.copy())
        return [*seen, (last, np.zeros(1, np.float32))]


@dataclass(frozen=True)
class Guarded:
    """A graph in half precision that passed: itself, its emulation, what was pinned, and how near it comes."""

    half: ir.Model
    emulated: ir.Model
    pins: tuple[Pin, ...]
    psnr: float


def calibration(
    interface: Interface, scheduler_config: Mapping[str, Any], *, parameters: int, steps: int
) -> Calibration:
    """Return what to calibrate with: the scheduler, made-up conditions, and small sizes for large networks."""
    large = parameters > _LARGE_PARAMETERS
    sizes = small_sizes(interface, 1) if large else interface.sizes(batch=1)
    try:
        plan = plan_from_diffusers(scheduler_config, _LARGE_STEPS if large else steps)
    except OptionError:
        plan = plan_from_diffusers(scheduler_config, steps)
    examples = interface.examples(seed=_SEED, **sizes)
    feeds = {role: tensor.numpy() for role, tensor in examples.items() if role not in ("sample", "timestep")}
    shape = interface.state_shape(**sizes)
    axis = interface.channel_axis
    batch = examples["sample"].shape[0]
    own = shape[axis - 1]
    whole = examples["sample"].numpy()
    extra = np.take(whole, range(own, whole.shape[axis]), axis=axis) if whole.shape[axis] > own else None
    x = randn((batch, *shape), seed=_SEED).astype(np.float32) * np.float32(plan.init_scale)
    return Calibration(plan, x, feeds, extra, axis)


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
    session = _session(reference, written.with_name("reference.onnx"))
    exact = case.trajectory(session)
    _check_exact(exact)
    del session
    pins: list[Pin] = []
    for attempt in range(_ROUNDS):
        half = _over(to_half(graph, kind, full, pinned=[pin.node for pin in pins]), stored)
        rounded = emulate(half)
        session = _session(rounded, written.with_name(EMULATED_NAME))
        psnr = _psnr(exact[-1][0], case.trajectory(session)[-1][0], case, session, exact)
        tell(f"round {attempt + 1}: {psnr:.1f} dB, {len(pins)} nodes pinned")
        readings = None
        if psnr < least or kind == "fp16":
            readings = _measure(reference, rounded, half, written, case, exact)
        limit = LARGEST[HALF[kind]] * _HEADROOM
        found = _overflowing(half, readings, limit) if readings and kind == "fp16" else []
        if not found and psnr >= least:
            return Guarded(half, rounded, tuple(pins), psnr)
        if not found and readings:
            found = _drifting(half, readings)
        known = {pin.node for pin in pins}
        fresh = [pin for pin in found if pin.node not in known]
        if not fresh:
            break
        pins += fresh
    raise ExportError(
        f"the network does not hold in {kind}",
        got=f"{psnr:.1f} dB from fp32 with {len(pins)} nodes kept in fp32",
        expected=f"at least {least:g} dB",
        fix="export in bf16 or fp32" if kind == "fp16" else "export in fp32 or fp16",
    )


def _psnr(exact: Array, got: Array, case: Calibration, session: Any, path: list[tuple[Array, Array]]) -> float:
    """Return the PSNR of the final sample in dB; of a network that gives no number anywhere, minus infinity."""
    for x, t in path[:-1]:
        if not np.isfinite(case.call(session, x, t)).all():
            return float("-inf")
    rmse = float(np.sqrt(np.mean(np.square(got.astype(np.float64) - exact))))
    width = float(exact.max() - exact.min())
    return float("inf") if rmse == 0 else 20 * float(np.log10(width / rmse)) if width > 0 else 0.0


def _measure(
    reference: ir.Model, rounded: ir.Model, half: ir.Model, written: Path, case: Calibration, path: list[Any]
) -> Readings:
    points = [value.name or "" for node in half.graph for value in node.outputs if _computed(node, value)]
    probe = build_probe(reference, rounded, points)
    session = _session(probe.model, written.with_name("probe.onnx"))
    total: Readings | None = None
    chosen = sorted({round(k) for k in np.linspace(0, len(path) - 2, _PROBED)})
    for x, t in (path[k] for k in chosen):
        total = read(probe.points, session.run(None, case.inputs(x, t))).worst_of(total)
    assert total is not None
    return total


def _computed(node: ir.Node, value: ir.Value) -> bool:
    return value.dtype in LARGEST and node.op_type not in MOVES


def _overflowing(half: ir.Model, readings: Readings, limit: float) -> list[Pin]:
    """Return what to pin for every tensor beyond the limit: the node that makes it, and those that read it."""
    pins: dict[str, Pin] = {}
    large = {name: most for name, most in zip(readings.points, readings.largest) if not most <= limit}
    for node in half.graph:
        for value in node.outputs:
            if (most := large.get(value.name or "")) is not None:
                why = f"reaches {most:.3g}, and half holds {limit / _HEADROOM:.6g}"
                _pin(pins, node, why)
                for reader in _readers(value):
                    _pin(pins, reader, f"reads {node.name}, which {why}")
    return list(pins.values())


def _drifting(half: ir.Model, readings: Readings) -> list[Pin]:
    """Return what to pin for the tensor whose error grows most over that of what it is made from."""
    error = dict(zip(readings.points, readings.error))
    best: tuple[float, ir.Node] | None = None
    for node in half.graph:
        for value in node.outputs:
            name = value.name or ""
            if name not in error:
                continue
            before = max((_arriving(source, error) for source in node.inputs if source is not None), default=0.0)
            growth = error[name] - before if np.isfinite(error[name]) else (np.inf if np.isfinite(before) else -1.0)
            if best is None or growth > best[0]:
                best = growth, node
    if best is None:
        return []
    pins: dict[str, Pin] = {}
    _pin(pins, best[1], f"adds a relative error of {best[0]:.2g}")
    for value in best[1].outputs:
        for reader in _readers(value):
            _pin(pins, reader, f"reads {best[1].name}")
    return list(pins.values())


def _arriving(value: ir.Value, error: Mapping[str, float]) -> float:
    """Return the error of a value, through nodes that only move numbers or convert them."""
    if (value.name or "") in error:
        return float(error[value.name or ""])
    producer = value.producer()
    if producer is None or producer.op_type not in MOVES:
        return 0.0
    return max((_arriving(source, error) for source in producer.inputs if source is not None), default=0.0)


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
    makes_half = any(value.dtype in LARGEST for value in node.outputs)
    if node.name and makes_half and not node.name.endswith(("/to_fp16", "/to_bf16")):
        pins.setdefault(node.name, Pin(node.name, why))


def _over(graph: ir.Model, stored: ir.Model) -> ir.Model:
    """Let a graph read the weights that are stored."""
    for name, value in graph.graph.initializers.items():
        value.const_value = stored.graph.initializers[name].const_value
    return graph


def _session(graph: ir.Model, path: Path) -> Any:
    ir.save(graph, path)
    return session_of(path)


def _check_exact(path: list[tuple[Array, Array]]) -> None:
    for x, t in path:
        if not np.isfinite(x).all():
            raise ExportError(
                "the network gives no finite numbers even in fp32",
                got=f"NaN or infinity at t = {float(np.ravel(t)[0]):g}",
                expected="finite numbers on the calibration trajectory",
                fix="look at the weights and the scheduler, or pass --no-guard",
            )
