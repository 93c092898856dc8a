"""Holding a bundle against the torch network it came from, over a whole trajectory."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import Manifest, hash_file, is_shipped
from dpmrt.engines.parity import PARITY_VERSION, ParityReport, StepDrift, write_parity
from dpmrt.errors import OptionError, OutputError, VerificationError
from dpmrt.export.provenance import library_versions, utc_date
from dpmrt.export.sources import Source, load_source
from dpmrt.export.torch_sampler import Condition, Trajectory, sample_with_torch

if TYPE_CHECKING:
    from dpmrt.runtime import Pipeline
    from dpmrt.solvers_np import StepEvent, StepPlan

Array = NDArray[np.float32]
# As many as CLIP's text encoder gives.
_TOKENS = 77

Progress = Callable[[str, int, int], None]


def verify(
    bundle: str | Path,
    *,
    against: str | Path | None = None,
    steps: int | None = None,
    batch: int = 2,
    seed: int = 0,
    tolerance: float = 1e-4,
    guidance: float | None = None,
    backend: str = "onnxruntime",
    write: bool | None = None,
    progress: Progress | None = None,
) -> ParityReport:
    """Sample from a bundle and from its torch network alike, and report how far the two are apart at every step.

    `against` is the torch network's folder, by default the one that the manifest names. The verdict is in
    `report.passed`: the RMS of the final difference is at most `tolerance` times the RMS of torch's sample.
    `write` says whether parity.json is written: by default into any bundle but those that ship with dpmrt.
    `progress` is called with "torch" or "bundle", the steps done and the steps in all.

        verify("bundles/digits").passed
    """
    from dpmrt.runtime import load, open_bundle
    from dpmrt.solvers_np import plan_from_diffusers

    _check_options(batch=batch, steps=steps, seed=seed, tolerance=tolerance, guidance=guidance)
    opened = open_bundle(bundle)
    manifest, scheduler = opened.manifest, opened.scheduler_config
    steps = manifest.defaults.steps if steps is None else steps
    plan = plan_from_diffusers(scheduler, steps)
    scale = _guidance_scale(manifest, guidance)
    source = _reference(opened.root, manifest, against)
    condition = _condition(manifest, source, batch, seed, scale)
    with load(opened.root, engine=backend) as pipeline:
        expected = sample_with_torch(
            source,
            scheduler,
            steps=steps,
            batch=batch,
            seed=seed,
            condition=condition,
            progress=_told(progress, "torch"),
        )
        times, states = _sample_bundle(pipeline, plan, expected, condition, _told(progress, "bundle"))
    rows = _compare(expected, times, states)
    report = ParityReport(
        format="dpmrt-parity",
        version=PARITY_VERSION,
        passed=rows[-1].drift <= tolerance,
        drift=rows[-1].drift,
        tolerance=tolerance,
        scheduler=str(scheduler["_class_name"]),
        backend=backend,
        options={"steps": steps, "batch": batch, "seed": seed, "guidance": scale},
        steps=rows,
        onnx_sha256=hash_file(opened.root / manifest.unet.path),
        weights_sha256=source.weights_sha256,
        date=utc_date(),
        versions=library_versions("torch", "diffusers", "numpy", backend),
    )
    if writes_parity(opened.root, write):
        try:
            write_parity(opened.root, report)
        except OutputError as error:
            raise OutputError(
                f"cannot write into {opened.root}",
                got=error.what,
                expected="a folder that takes parity.json",
                fix="pass --no-write (write=False in Python)",
            ) from error
    return report


def writes_parity(bundle: Path, write: bool | None) -> bool:
    """Return whether a verification is kept in the bundle: as the caller says, or else unless dpmrt ships it."""
    return not is_shipped(bundle) if write is None else write


def _check_options(*, batch: int, steps: int | None, seed: int, tolerance: float, guidance: float | None) -> None:
    from dpmrt.runtime.request import check_batch
    from dpmrt.solvers_np import TorchCPUNoise

    check_batch(batch)
    if steps is not None and steps < 1:
        raise OptionError("steps is out of range", got=steps, expected="1 or more", fix="leave steps out")
    # The generator that the bundle is sampled with refuses what is no seed.
    TorchCPUNoise(seed)
    if not 0 < tolerance < math.inf:
        raise OptionError(
            "tolerance is out of range",
            got=tolerance,
            expected="a finite number above 0",
            fix="pass --tolerance 1e-4 (tolerance=1e-4 in Python)",
        )
    if guidance is not None and not math.isfinite(guidance):
        raise OptionError(
            "guidance is not a scale", got=guidance, expected="a finite number", fix="leave the option out"
        )


def _guidance_scale(manifest: Manifest, guidance: float | None) -> float | None:
    if guidance is None:
        return manifest.guidance.scale if manifest.guidance else None
    if manifest.guidance is None and manifest.unet.input("encoder_hidden_states") is None:
        raise OptionError(
            "the bundle has no guidance", got=f"guidance = {guidance}", expected="none", fix="leave the option out"
        )
    return guidance


def _condition(manifest: Manifest, source: Source, batch: int, seed: int, guidance: float | None) -> Condition:
    """Make up conditions: labels in turn, and noise where a text encoder's output would be."""
    wanted: dict[str, NDArray[Any]] = {}
    null: dict[str, NDArray[Any]] = {}
    if source.interface.labels:
        setup = manifest.guidance
        wanted["class_labels"] = np.arange(batch) % (setup.classes if setup else source.interface.labels)
        null["class_labels"] = np.full(batch, setup.null_label) if setup else wanted["class_labels"]
    text = manifest.unet.input("encoder_hidden_states")
    if text is not None:
        shape = (2, batch, _TOKENS, int(text.shape[-1]))
        draws = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        wanted["encoder_hidden_states"], null["encoder_hidden_states"] = draws
    return Condition(wanted, null, guidance)


def _reference(folder: Path, manifest: Manifest, against: str | Path | None) -> Source:
    source = load_source(against) if against is not None else _original(folder, manifest)
    ours, theirs = manifest.unet.sample_shape, source.interface.specs()[0][0].shape[1:]
    roles = {spec.role for spec in manifest.unet.inputs}, {spec.role for spec in source.interface.specs()[0]}
    if ours != theirs or roles[0] != roles[1]:
        raise VerificationError(
            "the torch network takes other inputs than the bundle",
            got=f"{', '.join(sorted(roles[1]))}; samples of {theirs}",
            expected=f"{', '.join(sorted(roles[0]))}; samples of {ours}",
            fix="pass --against with the network that was exported",
        )
    return source


def _original(folder: Path, manifest: Manifest) -> Source:
    fix = "pass --against SOURCE (against=... in Python) with the folder of the network"
    recorded = manifest.provenance.get("source")
    subfolder = manifest.provenance.get("subfolder")
    path = (folder / str(recorded)).resolve()
    if recorded is None or not path.is_dir():
        raise VerificationError(
            "the torch network that the bundle came from is not there",
            got=f"no folder {path}" if recorded else "no `source` in the manifest's provenance",
            expected="the folder that was exported",
            fix=fix,
        )
    source = load_source(path, str(subfolder) if subfolder is not None else None)
    if source.weights_sha256 != manifest.provenance.get("weights_sha256"):
        raise VerificationError(
            "the torch network has changed since it was exported",
            got=f"SHA-256 {source.weights_sha256} in {path}",
            expected=f"SHA-256 {manifest.provenance.get('weights_sha256')}",
            fix=f"export it again, or {fix}",
        )
    return source


def _sample_bundle(
    pipeline: Pipeline, plan: StepPlan, expected: Trajectory, condition: Condition, tell: Callable[[int, int], None]
) -> tuple[list[float], list[Array]]:
    times: list[float] = []
    states: list[Array] = []

    def keep(event: StepEvent) -> None:
        times.append(event.t)
        states.append(np.array(event.x, dtype=np.float32))
        tell(event.index + 1, event.total)

    text = "encoder_hidden_states"
    pipeline.sample(
        len(expected.x_T),
        plan=plan,
        x_T=expected.x_T,
        noise=expected.noise,
        callback=keep,
        guidance=condition.guidance,
        label=condition.wanted.get("class_labels"),
        encoder_hidden_states=condition.wanted.get(text),
        negative_hidden_states=condition.null.get(text) if condition.guidance is not None else None,
    )
    return times, states


def _compare(expected: Trajectory, times: list[float], states: list[Array]) -> tuple[StepDrift, ...]:
    if len(states) != len(expected.states) or not np.allclose(times, expected.times, atol=1e-3):
        raise VerificationError(
            "the bundle takes other steps than diffusers",
            got=f"{len(times)} steps at {_brief(times)}",
            expected=f"{len(expected.times)} steps at {_brief(expected.times)}",
            fix="report the bundle's scheduler_config.json",
        )
    return tuple(_drift(t, reference, state) for t, reference, state in zip(expected.times, expected.states, states))


def _drift(t: float, reference: Array, state: Array) -> StepDrift:
    difference = state.astype(np.float64) - reference
    rms = _rms(reference)
    return StepDrift(t=t, rms=rms, max_abs=float(np.abs(difference).max()), drift=_rms(difference) / rms)


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _brief(times: Any) -> str:
    shown = [f"{t:g}" for t in times]
    return ", ".join(shown if len(shown) <= 4 else [*shown[:2], "...", shown[-1]])


def _told(progress: Progress | None, side: str) -> Callable[[int, int], None]:
    return (lambda done, total: None) if progress is None else (lambda done, total: progress(side, done, total))
