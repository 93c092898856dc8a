"""The bundle's side: the same calls and the same trajectory on one backend, held against torch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import BackendParity, CallParity, Limits, Manifest, Peak, StepDrift, hash_file
from dpmrt.errors import NonFiniteError, VerificationError
from dpmrt.export.certificate.backends import graph_of
from dpmrt.export.certificate.backward import ExpectedBackward
from dpmrt.export.certificate.cases import Case
from dpmrt.export.certificate.conditions import request
from dpmrt.export.certificate.limits import failures_of
from dpmrt.export.certificate.measures import compare_call, compare_step
from dpmrt.export.certificate.runners import BackendRunner
from dpmrt.export.torch_sampler import Condition, Trajectory
from dpmrt.runtime import load
from dpmrt.runtime.backends import Backend, open_backend

if TYPE_CHECKING:
    from dpmrt.runtime import Pipeline
    from dpmrt.solvers_np import StepEvent, StepPlan

Array = NDArray[np.float32]
Tell = Callable[[str, int, int], None]
CALLS, TRAJECTORY = "single calls", "trajectory"


@dataclass(frozen=True)
class Expected:
    """What torch computed, and all that a backend needs to repeat it."""

    cases: Sequence[Case]
    outputs: Sequence[NDArray[Any]]
    condition: Condition
    trajectory: Trajectory
    plan: StepPlan
    peak: Peak
    limits: Limits
    backward: Sequence[ExpectedBackward] = ()


@dataclass(frozen=True)
class Ran:
    """What came of one backend; `sample` is its last state, None where there was no end."""

    parity: BackendParity
    sample: Array | None


def run_backend(root: Path, manifest: Manifest, name: str, expected: Expected, tell: Tell) -> Ran:
    """Run all on one backend, with one session for calls and trajectory, and compare."""
    backend = open_backend(name, root, manifest.unet)
    with load(root, backend) as pipeline:
        calls = _calls(name, backend, manifest, expected, tell)
        times, states, broken = _sample(pipeline, expected, lambda done, total: tell(TRAJECTORY, done, total))
    steps = _steps(expected, times, states, whole=broken is None)
    last = steps[-1] if broken is None else None
    failures = (
        *failures_of(expected.cases, calls, expected.limits),
        *([f"trajectory: {broken}"] if broken else []),
        *(_trajectory_failures(last, expected.limits) if last else []),
    )
    graph = graph_of(manifest, name)
    parity = BackendParity(
        backend=name,
        passed=not failures,
        graph=graph,
        onnx_sha256=hash_file(root / graph),
        steps=steps,
        drift=last.drift if last else None,
        psnr=last.psnr if last else None,
        calls=calls,
        failures=failures,
    )
    return Ran(parity, states[-1] if last else None)


def _calls(name: str, backend: Backend, manifest: Manifest, expected: Expected, tell: Tell) -> tuple[CallParity, ...]:
    rows = []
    # Polygraphy's CompareFunc judges each element by itself; the limit here is a part of the whole output's RMS.
    with BackendRunner(name, backend, manifest.unet) as runner:
        for number, (case, output) in enumerate(zip(expected.cases, expected.outputs), start=1):
            got = runner.infer(case.tensors, check_inputs=False)["out_sample"]
            rows.append(compare_call(case, output, got))
            tell(CALLS, number, len(expected.cases))
    return tuple(rows)


def _sample(
    pipeline: Pipeline, expected: Expected, tell: Callable[[int, int], None]
) -> tuple[list[float], list[Array], str | None]:
    """Return times and states of the steps, and what broke them off."""
    times: list[float] = []
    states: list[Array] = []

    def keep(event: StepEvent) -> None:
        times.append(event.t)
        states.append(np.array(event.x, dtype=np.float32))
        tell(event.index + 1, event.total)

    start = expected.trajectory
    try:
        pipeline.sample(
            len(start.x_T),
            plan=expected.plan,
            x_T=start.x_T,
            noise=start.noise,
            callback=keep,
            **request(pipeline.manifest, expected.condition),
        )
    except NonFiniteError as error:
        return times, states, f"{error.what}: {error.got}"
    return times, states, None


def _steps(expected: Expected, times: list[float], states: list[Array], *, whole: bool) -> tuple[StepDrift, ...]:
    """Compare state by state; of a trajectory that broke off, those that there are."""
    reference = expected.trajectory
    known = reference.times if whole else reference.times[: len(times)]
    if len(times) != len(known) or not np.allclose(times, known, atol=1e-3):
        raise VerificationError(
            "the bundle takes other steps than diffusers",
            got=f"{len(times)} steps at {_brief(times)}",
            expected=f"{len(reference.times)} steps at {_brief(reference.times)}",
            fix="report the bundle's scheduler_config.json",
        )
    pairs = zip(reference.times, reference.states, states)
    return tuple(compare_step(t, a, b, expected.peak) for t, a, b in pairs if np.isfinite(b).all())


def _trajectory_failures(last: StepDrift, limits: Limits) -> list[str]:
    lines = []
    if limits.drift is not None and not last.drift <= limits.drift:
        lines.append(f"trajectory: a relative drift of {last.drift:.2e} at the end, limit {limits.drift:.2g}")
    if limits.psnr is not None and last.psnr is not None and not last.psnr >= limits.psnr:
        lines.append(f"trajectory: a PSNR of {last.psnr:.1f} dB at the end, limit {limits.psnr:g} dB")
    return lines


def _brief(times: Any) -> str:
    shown = [f"{t:g}" for t in times]
    return ", ".join(shown if len(shown) <= 4 else [*shown[:2], "...", shown[-1]])
