"""A bundle on every engine, one after another: first a fresh process, then batch by batch, then a peer beside it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from dpmrt import __version__
from dpmrt.errors import BackendError, DpmrtError, OptionError
from dpmrt.runtime.backends import engine_options, open_backend, plain_engines
from dpmrt.runtime.bench.first import first_sample
from dpmrt.runtime.bench.peers import Peer, open_peer
from dpmrt.runtime.bench.request import Request, make_request
from dpmrt.runtime.bench.schema import (
    VERSION,
    BenchReport,
    Comparison,
    EngineResult,
    Failure,
    FirstSample,
    Machine,
    Measured,
    PeerResult,
    Unable,
)
from dpmrt.runtime.bench.subject import Overheard, PipelineSubject, measure_subject
from dpmrt.runtime.bench.timer import Clock, Timing
from dpmrt.runtime.bundle import OpenBundle, open_bundle
from dpmrt.runtime.gpu import current_gpu
from dpmrt.runtime.machine import installed, load_average, memory_bytes, processor, system, usable_cores
from dpmrt.runtime.pipeline import Pipeline
from dpmrt.runtime.request import check_whole
from dpmrt.solvers_np import StepPlan, plan_from_diffusers

#: called with an engine, what is being done, and how much of that is done
Tell: TypeAlias = Callable[[str, str, float], object]
#: what an engine gave for a batch: its times and its samples
Ran: TypeAlias = "tuple[Measured, NDArray[Any]]"

FIRST = "fresh process"
_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "cupy-cuda12x", "cupy-cuda13x", "tensorrt")
_MOST_ROWS = 1 << 20


def bench_bundle(
    bundle: str | Path,
    *,
    engines: Sequence[str] | None = None,
    batches: Sequence[int] = (1,),
    steps: int | None = None,
    solver: str | None = None,
    shape: Sequence[int] | None = None,
    guidance: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    timing: Timing | None = None,
    fresh: bool = True,
    against: str | None = None,
    source: str | Path | None = None,
    compiled: bool = False,
    progress: Tell | None = None,
    clock: Clock = time.perf_counter,
) -> BenchReport:
    """Measure how fast a bundle samples on each engine: those named, or else all that can run it here.

    `fresh` also times a process of its own, from its start to its first sample. `against="torch"` times the network
    that the bundle came from beside it, which is read from `source`, or from where the manifest says it came from;
    `compiled` passes it through torch.compile. Labels and conditions are made up, alike on all sides.

        report = bench_bundle("digits", batches=(1, 4), timing=Timing(duration=1.0))
        report.engines[0].batches[0].sample.p50
    """
    tell = progress or (lambda engine, phase, part: None)
    timing = timing or Timing()
    batches = _batches(batches)
    if compiled and against is None:
        raise OptionError("--compile is for the peer", got="no --against", fix="--against torch --compile")
    if source is not None and against is None:
        raise OptionError("--source is for the peer", got="no --against", fix="--against torch --source FOLDER")
    opened = open_bundle(bundle)
    plan = _plan(opened, steps, solver, against)
    steps = opened.manifest.defaults.steps if steps is None else steps
    requests = [make_request(opened, batch, shape=shape, guidance=guidance, seed=seed) for batch in batches]
    _check_engines(engines)
    started = load_average()
    options = {} if threads is None else {"threads": threads}
    task = {
        "bundle": str(opened.root),
        "scheduler": against is not None,
        "steps": steps,
        "solver": solver,
        "batch": batches[0],
        "shape": requests[0].shape,
        "guidance": guidance,
        "seed": seed,
    }
    # A peer that cannot be had is known before minutes have passed.
    peer = None if against is None else open_peer(against, opened, source=source, compiled=compiled, threads=threads)
    results: list[EngineResult] = []
    unable: list[Unable] = []
    ran: dict[str, dict[int, Ran]] = {}
    for name in dict.fromkeys(engines or plain_engines()[1:]):
        # Threads are for engines on the processor; one that was asked for by name says so itself.
        taken = options if engines else {key: value for key, value in options.items() if key in engine_options(name)}
        try:
            with _opened(opened, name, taken) as (pipeline, overheard):
                device = overheard.device
                ran[name], failures = _run_batches((name, pipeline, overheard), requests, plan, timing, tell, clock)
        except DpmrtError as error:
            # What was asked for by name has to run; what was not is listed.
            if engines:
                raise
            unable.append(Unable(name, _in_a_line(error)))
            continue
        first = None
        if fresh and not failures:
            tell(name, FIRST, 0.0)
            first = FirstSample(**first_sample({**task, "engine": name, "engine_options": taken}))
            tell(name, FIRST, 1.0)
        measured = tuple(entry[0] for entry in ran[name].values())
        results.append(EngineResult(name, device, first, measured, failures))
    if not results:
        raise BackendError(
            "no engine here can run the bundle",
            got="\n".join(f"{entry.engine}: {entry.reason}" for entry in unable),
            expected="one that can",
            fix=f"dpmrt doctor {bundle}",
        )
    peers: list[PeerResult] = []
    versions = {"dpmrt": __version__, **installed(_PACKAGES)}
    if peer is not None and against is not None:
        versions |= peer.versions()
        for device in dict.fromkeys(result.device for result in results):
            peer.move(device)
            beside = {result.engine: ran[result.engine] for result in results if result.device == device}
            peers.append(_run_peer(against, peer, beside, requests, steps, timing, tell, clock, compiled))
    return BenchReport(
        format="dpmrt-bench",
        version=VERSION,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        bundle=opened.manifest.name,
        network_sha256=_hash(opened),
        precision=opened.manifest.unet.precision.kind,
        solver=_solver(plan),
        steps=steps,
        shape=requests[0].shape,
        guidance=requests[0].settled.scale,
        seed=seed,
        options={
            "warm_up": timing.warm_up,
            "duration": timing.duration,
            "iterations": timing.iterations,
            "average": timing.average,
            "threads": threads,
        },
        machine=_machine(started),
        versions=versions,
        engines=tuple(results),
        unable=tuple(unable),
        peers=tuple(peers),
    )


def _plan(opened: OpenBundle, steps: int | None, solver: str | None, against: str | None) -> StepPlan:
    """Compile the plan before anything is loaded; a peer follows the scheduler's config, and so does its engine."""
    if against is None:
        nothing = open_backend("numpy", opened.root, opened.manifest.unet, function=lambda **inputs: None)
        return Pipeline(opened, nothing).plan(steps, solver)
    if solver is not None:
        raise OptionError(
            "a peer follows the bundle's own scheduler",
            got=f"--against {against} --solver {solver}",
            expected="no solver, so that both sides take the same steps",
            fix="leave out --solver, or --against",
        )
    return plan_from_diffusers(opened.scheduler_config, opened.manifest.defaults.steps if steps is None else steps)


@contextmanager
def _opened(opened: OpenBundle, name: str, options: Mapping[str, Any]) -> Iterator[tuple[Pipeline, Overheard]]:
    overheard = Overheard(open_backend(name, opened.root, opened.manifest.unet, **options))
    with Pipeline(opened, overheard.backend) as pipeline:
        yield pipeline, overheard


def _run_batches(
    engine: tuple[str, Pipeline, Overheard],
    requests: Sequence[Request],
    plan: StepPlan,
    timing: Timing,
    tell: Tell,
    clock: Clock,
) -> tuple[dict[int, Ran], tuple[Failure, ...]]:
    name, pipeline, overheard = engine
    ran: dict[int, Ran] = {}
    failures: list[Failure] = []
    for request in requests:
        try:
            subject = PipelineSubject(pipeline, overheard, request, plan)
            measured = measure_subject(subject, request, timing, tell=_part(tell, name, request), clock=clock)
        except DpmrtError as error:
            failures.append(Failure(request.batch, _in_a_line(error)))
            continue
        ran[request.batch] = measured, subject.result
    return ran, tuple(failures)


def _run_peer(
    name: str,
    peer: Peer,
    beside: Mapping[str, Mapping[int, Ran]],
    requests: Sequence[Request],
    steps: int,
    timing: Timing,
    tell: Tell,
    clock: Clock,
    compiled: bool,
) -> PeerResult:
    measured: list[Measured] = []
    compared: list[Comparison] = []
    failures: list[Failure] = []
    for request in requests:
        try:
            subject = peer.subject(request, steps=steps)
            theirs = measure_subject(subject, request, timing, tell=_part(tell, name, request), clock=clock)
        except DpmrtError as error:
            failures.append(Failure(request.batch, _in_a_line(error)))
            continue
        measured.append(theirs)
        for engine, ran in beside.items():
            if request.batch in ran:
                compared.append(peer.compare(engine, ran[request.batch], (theirs, subject.result)))
    return PeerResult(
        peer=name,
        device=peer.device,
        precision=peer.precision,
        compiled=compiled,
        scheduler=peer.scheduler,
        batches=tuple(measured),
        comparisons=tuple(compared),
        failures=tuple(failures),
    )


def _part(tell: Tell, name: str, request: Request) -> Callable[[str, float], object]:
    return lambda phase, part: tell(name, f"batch {request.batch}: {phase}", part)


def _batches(batches: Sequence[int]) -> tuple[int, ...]:
    if not batches:
        raise OptionError("there is no batch to measure", got="an empty list", expected="as 1,2,4", fix="--batch 1")
    return tuple(dict.fromkeys(check_whole("batch", batch, 1, _MOST_ROWS, fix="--batch 1,2,4") for batch in batches))


def _check_engines(engines: Sequence[str] | None) -> None:
    for name in engines or ():
        if name not in plain_engines():
            known = ", ".join(plain_engines())
            raise OptionError("unknown engine", got=repr(name), expected=known, fix="leave --engine out")


def _in_a_line(error: DpmrtError) -> str:
    parts = [error.what, *(f"{label} {value}" for label, value in (("got", error.got), ("fix:", error.fix)) if value)]
    return "; ".join(" ".join(str(part).split()) for part in parts)


def _hash(opened: OpenBundle) -> str | None:
    record = opened.manifest.files.get(opened.manifest.unet.path)
    return record.sha256 if record else None


def _machine(load: float | None) -> Machine:
    memory = memory_bytes()
    gpu = current_gpu()
    return Machine(
        processor=processor(),
        cores=usable_cores(),
        memory_bytes=memory[0] if memory else None,
        system=system(),
        gpu=str(gpu) if gpu else None,
        load=load,
    )


def _solver(plan: StepPlan) -> str:
    followed = plan.meta.get("scheduler")
    return f"{plan.meta.get('solver', 'a plan')}" + (f" ({followed})" if followed else "")
