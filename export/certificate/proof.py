"""Holding a bundle against the torch network it came from: single calls, then whole trajectories."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpmrt.engines import DRIFT_NAME, PARITY_VERSION, Manifest, ParityReport, is_shipped, write_parity
from dpmrt.errors import OptionError, OutputError
from dpmrt.export.certificate.backends import choose_backends
from dpmrt.export.certificate.backward import backward_in_torch, backward_names, compare_backward
from dpmrt.export.certificate.bundle_side import CALLS, TRAJECTORY, Expected, Ran, run_backend
from dpmrt.export.certificate.cases import call_times, make_cases
from dpmrt.export.certificate.classifier_source import find_classifier
from dpmrt.export.certificate.conditions import guidance_scale, make_condition
from dpmrt.export.certificate.limits import limits_of
from dpmrt.export.certificate.measures import peak_of
from dpmrt.export.certificate.reference import find_source, rounding_little, run_calls
from dpmrt.export.certificate.sizes import sizes_of_shape
from dpmrt.export.classifier import ClassifierSource
from dpmrt.export.provenance import library_versions, utc_date
from dpmrt.export.sources import Source
from dpmrt.export.torch_sampler import follow_with_torch, sample_with_torch
from dpmrt.files import atomic_write, check_writable
from dpmrt.runtime import open_bundle
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.charts import check_drawing
from dpmrt.runtime.machine import processor
from dpmrt.runtime.request import check_batch
from dpmrt.solvers_np import TorchCPUNoise, plan_from_diffusers
from dpmrt.solvers_np.from_diffusers.own_schedule import OWN_SCHEDULE

Progress = Callable[[str, int, int], None]


def verify(
    bundle: str | Path,
    *,
    against: str | Path | None = None,
    spec: str | Path | Mapping[str, Any] | None = None,
    weights: Path | None = None,
    classifier: str | Path | ClassifierSource | bool | None = None,
    backends: Sequence[str] | None = None,
    steps: int | None = None,
    batch: int = 2,
    seed: int = 0,
    shape: Sequence[int] | None = None,
    tolerance: float | None = None,
    guidance: float | None = None,
    write: bool | None = None,
    plot: str | Path | bool = True,
    progress: Progress | None = None,
) -> ParityReport:
    """Hold a bundle against its torch network, call by call and step by step, on every backend that can run it here.

    `against` is the torch network's folder, by default the one that the manifest names; a factory needs its `spec`
    again, and its `weights` where it had some. The gradient of the bundle's classifier is held against that of the
    `classifier` in torch, by default the one that the manifest names, and is left out for False; a bundle's
    vector-Jacobian product is held against torch's too.

    The verdict is in `report.passed`; the limits are those of the bundle's precision, with `tolerance` in place of
    the trajectory's relative drift. `shape` is one sample's, where the network leaves it open. `write` says whether
    parity.json and drift.png are written into the bundle: by default into any but those that ship with dpmrt. `plot`
    names another file for the picture, or is False for none. A schedule of dpmrt's own, which diffusers has no
    scheduler for, is sampled in torch by the bundle's plan: `report.followed` is "plan" then. `progress` is called
    with the name of a phase, what is done and what there is in all: 0 where that is not known yet.

        verify("bundles/digits").passed
    """
    tell = progress or (lambda phase, done, total: None)
    _check_numbers(batch, steps, seed)
    opened = open_bundle(bundle)
    names = choose_backends(opened.manifest, backends)
    limits_of(opened.manifest.unet.precision.kind, tolerance)
    scale = guidance_scale(opened.manifest, guidance)
    if plot is not False:
        check_drawing()
    if isinstance(plot, (str, Path)):
        check_writable(plot)
    judge = find_classifier(opened.root, opened.manifest, classifier)
    for phase in _phases(names, backward_names(opened.manifest, judge)):
        tell(phase, 0, 0)
    steps = opened.manifest.defaults.steps if steps is None else steps
    with rounding_little(opened.manifest.unet.precision.kind):
        expected, digest = _expected(
            opened,
            functools.partial(find_source, opened.root, opened.manifest, against, spec, weights),
            judge,
            tell,
            steps=steps,
            batch=batch,
            seed=seed,
            shape=shape,
            tolerance=tolerance,
            guidance=scale,
        )
    ran = [_run(opened, name, expected, tell) for name in names]
    graphs = compare_backward(opened.root, expected.backward, lambda name, *done: tell(f"bundle: {name}", *done))
    report = ParityReport(
        format="dpmrt-parity",
        version=PARITY_VERSION,
        passed=all(entry.parity.passed for entry in ran) and all(graph.passed for graph in graphs),
        precision=opened.manifest.unet.precision.kind,
        limits=expected.limits,
        scheduler=str(opened.scheduler_config["_class_name"]),
        options={"steps": steps, "batch": batch, "seed": seed, "guidance": scale},
        backends=tuple(entry.parity for entry in ran),
        weights_sha256=digest,
        date=utc_date(),
        versions=library_versions("torch", "diffusers", "numpy", "onnxruntime"),
        machine=processor(),
        shape=expected.trajectory.x_T.shape[1:],
        peak=expected.peak,
        followed="plan" if _is_own(opened.scheduler_config) else "scheduler",
        graphs=graphs,
    )
    picture = None if plot is False else _picture(opened.manifest, report, expected, ran)
    if picture is not None and isinstance(plot, (str, Path)):
        with atomic_write(plot) as stream:
            stream.write(picture)
    if writes_parity(opened.root, write):
        _write(opened.root, report, picture)
    return report


def _phases(backends: Sequence[str], backward: Sequence[str]) -> list[str]:
    """Return the phases in their order: all of torch, then the bundle."""
    sides = [(side, phase) for side in ("torch", *backends) for phase in (CALLS, TRAJECTORY)]
    sides[2:2] = [("torch", name) for name in backward]
    return [f"{side}: {phase}" for side, phase in (*sides, *(("bundle", name) for name in backward))]


def writes_parity(bundle: Path, write: bool | None) -> bool:
    """Return whether a verification is kept in the bundle: as the caller says, or else unless dpmrt ships it."""
    return not is_shipped(bundle) if write is None else write


def _expected(
    opened: OpenBundle,
    find: Callable[[], Source],
    judge: ClassifierSource | None,
    tell: Progress,
    *,
    steps: int,
    batch: int,
    seed: int,
    shape: Sequence[int] | None,
    tolerance: float | None,
    guidance: float | None,
) -> tuple[Expected, str]:
    """Run all in torch, and return it with the hash of the weights; the network is let go when this returns."""
    manifest, scheduler = opened.manifest, opened.scheduler_config
    plan = plan_from_diffusers(scheduler, steps)
    source = find()
    sizes = sizes_of_shape(source.interface, shape)
    times = call_times(scheduler)
    cases = make_cases(manifest, source.interface, seed=seed, times=times, guidance=guidance, sizes=sizes)
    condition = make_condition(manifest, source.interface, batch=batch, seed=seed, guidance=guidance, sizes=sizes)
    outputs = run_calls(source, manifest, cases, lambda done, total: tell(f"torch: {CALLS}", done, total))
    start: dict[str, Any] = {"batch": batch, "seed": seed, "condition": condition, "sizes": sizes}
    start["progress"] = lambda done, total: tell(f"torch: {TRAJECTORY}", done, total)
    if _is_own(scheduler):
        trajectory = follow_with_torch(source, plan, **start)
    else:
        trajectory = sample_with_torch(source, scheduler, steps=steps, **start)
    peak = peak_of(manifest.data_range, trajectory.states[-1])
    folded = guidance if manifest.unet.folded_guidance else None
    limits = limits_of(manifest.unet.precision.kind, tolerance, folded_scale=folded)
    # Backward passes are fp32 in any bundle.
    with rounding_little("fp32"):
        backward = backward_in_torch(
            manifest, judge, source, seed=seed, times=times, tell=lambda name, *done: tell(f"torch: {name}", *done)
        )
    return Expected(cases, outputs, condition, trajectory, plan, peak, limits, backward), source.weights_sha256


def _is_own(scheduler: Mapping[str, Any]) -> bool:
    """Return whether diffusers has no scheduler for the bundle, as it does not know its schedule."""
    return scheduler.get("_class_name") == OWN_SCHEDULE


def _run(opened: OpenBundle, name: str, expected: Expected, tell: Progress) -> Ran:
    return run_backend(
        opened.root,
        opened.manifest,
        name,
        expected,
        lambda phase, done, total: tell(f"{name}: {phase}", done, total),
    )


def _picture(manifest: Manifest, report: ParityReport, expected: Expected, ran: Sequence[Ran]) -> bytes:
    from dpmrt.export.certificate.plot import draw_drift

    stream = io.BytesIO()
    sample = next((entry.sample for entry in reversed(ran) if entry.sample is not None), None)
    draw_drift(stream, report, manifest, expected.trajectory.states[-1], sample)
    return stream.getvalue()


def _write(root: Path, report: ParityReport, picture: bytes | None) -> None:
    try:
        write_parity(root, report)
        if picture is None:
            # One of an earlier verification would not be of this one.
            (root / DRIFT_NAME).unlink(missing_ok=True)
        else:
            with atomic_write(root / DRIFT_NAME) as stream:
                stream.write(picture)
    except OSError as error:
        raise OutputError(
            f"cannot write into {root}",
            got=getattr(error, "what", error),
            expected="a folder that takes parity.json and drift.png",
            fix="pass --no-write (write=False in Python)",
        ) from error


def _check_numbers(batch: int, steps: int | None, seed: int) -> None:
    check_batch(batch)
    if steps is not None and steps < 1:
        raise OptionError("steps is out of range", got=steps, expected="1 or more", fix="leave steps out")
    # The generator that the bundle is sampled with refuses what is no seed.
    TorchCPUNoise(seed)
