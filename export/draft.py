"""The manifest of a bundle before its graph is written: what the source, its scheduler and the caller say."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dpmrt.engines import FORMAT_VERSION, Defaults, Guidance, Manifest, Network, Precision, check_numbers
from dpmrt.errors import ExportError, OptionError
from dpmrt.export.network import Plan
from dpmrt.export.onnx_files import MODEL_NAME
from dpmrt.export.precision import BF16_OPSET
from dpmrt.export.provenance import library_versions, utc_date
from dpmrt.export.schedulers import SCHEDULER_NAME, check_scheduler
from dpmrt.export.sources import Source
from dpmrt.export.torch_onnx import OPSET
from dpmrt.solvers_np import plan_from_diffusers, prediction_from_diffusers

T = TypeVar("T")
_REFERENCE_SCALE = 2.0


def draft_manifest(
    plan: Plan,
    scheduler_config: Mapping[str, Any],
    target: Path,
    *,
    name: str | None = None,
    guidance: Guidance | None = None,
    defaults: Defaults | None = None,
) -> Manifest:
    """Return the manifest that an export will have, apart from its files."""
    source = plan.source
    training = source.training
    defaults = defaults or Defaults(steps=20)
    check_scheduler(scheduler_config)
    prediction: Any = _sampled_with(lambda: prediction_from_diffusers(scheduler_config))
    inputs, outputs = plan.interface.specs()
    manifest = Manifest(
        format="dpmrt-bundle",
        version=FORMAT_VERSION,
        name=name or target.name,
        unet=Network(
            path=f"unet/{MODEL_NAME}",
            inputs=inputs,
            outputs=outputs,
            config="unet/config.json",
            axes=plan.interface.free(),
            channel_axis=plan.interface.channel_axis,
            precision=Precision(plan.kind),
        ),
        scheduler=f"scheduler/{SCHEDULER_NAME}",
        prediction=prediction,
        files={},
        guidance=settle_guidance(source, guidance),
        data_range=training.data_range if training else (-1.0, 1.0),
        defaults=defaults,
        provenance=_provenance(plan, target),
    )
    check_numbers(manifest)
    _sampled_with(lambda: plan_from_diffusers(scheduler_config, manifest.defaults.steps))
    return manifest


def settle_guidance(source: Source, guidance: Guidance | None) -> Guidance | None:
    """Return the guidance by class that the caller asks for, or else the one that the network was trained for."""
    training = source.training
    if guidance is None and training is not None and training.null_class is not None:
        classes = training.null_class if training.num_classes is None else training.num_classes
        guidance = Guidance("classifier_free", classes, training.null_class, _REFERENCE_SCALE)
    labels = source.interface.labels
    if guidance and not (0 < guidance.classes <= labels and 0 <= guidance.null_label < labels):
        raise ExportError(
            "the guidance does not fit the network",
            got=f"{guidance.classes} classes, null label {guidance.null_label}",
            expected=f"labels below {labels}" if labels else "none, as the network takes no class labels",
            fix="mend num_classes and null_class in training.json, or num_class_embeds in config.json",
        )
    return guidance


def _sampled_with(ask: Callable[[], T]) -> T:
    """Return what the scheduler's config gives, or refuse a scheduler that the bundle could not be sampled with."""
    try:
        return ask()
    except OptionError as error:
        raise ExportError(
            f"dpmrt cannot sample with this scheduler: {error.what}",
            got=error.got,
            expected=error.expected,
            fix="pass --scheduler PATH (scheduler=... in Python) with another config, as of DDIMScheduler",
        ) from error


def relative_record(name: str, folder: Path, target: Path) -> dict[str, str]:
    """Return where a folder is as the manifest of the bundle at `target` names it: relative to that."""
    # Windows knows no relative path to another drive, and an absolute one is nobody's business.
    with contextlib.suppress(ValueError):
        return {name: Path(os.path.relpath(folder.resolve(), target)).as_posix()}
    return {}


def _provenance(plan: Plan, target: Path) -> dict[str, str | int | float]:
    source = plan.source
    facts: dict[str, str | int | float] = {"kind": source.kind}
    if source.folder is not None:
        facts.update(relative_record("source", source.folder, target))
    if source.subfolder is not None:
        facts["subfolder"] = Path(source.subfolder).as_posix()
    facts.update(
        weights_sha256=source.weights_sha256,
        parameters=source.parameters,
        precision=plan.kind,
        opset=BF16_OPSET if plan.kind == "bf16" else OPSET,
        date=utc_date(),
        **library_versions("torch", "diffusers", "onnx", "onnxscript"),
    )
    return facts
