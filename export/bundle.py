"""A diffusers network to a bundle on disk: traced, checked, described, and in place only when whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from dpmrt.engines import (
    DRIFT_NAME,
    FORMAT_VERSION,
    MANIFEST_NAME,
    PARITY_NAME,
    Defaults,
    Guidance,
    Manifest,
    Network,
    check_numbers,
    record_file,
    write_manifest,
)
from dpmrt.errors import ExportError, OptionError
from dpmrt.export.folders import check_target, new_folder
from dpmrt.export.interfaces import Sizes
from dpmrt.export.onnx_files import EXTERNAL_ABOVE, MODEL_NAME, check_onnx, write_onnx
from dpmrt.export.provenance import library_versions, utc_date
from dpmrt.export.schedulers import SCHEDULER_NAME, scheduler_class
from dpmrt.export.sources import Source, find_scheduler, load_source, read_json_object, source_of_model
from dpmrt.export.tracing import OPSET, trace
from dpmrt.solvers_np import plan_from_diffusers, prediction_from_diffusers

T = TypeVar("T")
PHASES = ("load", "trace", "write", "check", "hash")
PRECISIONS = ("fp32",)
REFERENCE_GUIDANCE_SCALE = 2.0
# What is built for one machine from a bundle goes below this folder of it.
ENGINES = "engines/"


def export_bundle(
    source: Any,
    out: str | Path,
    *,
    precision: str = "fp32",
    name: str | None = None,
    subfolder: str | None = None,
    scheduler: str | Path | None = None,
    guidance: Guidance | None = None,
    defaults: Defaults | None = None,
    force: bool = False,
    sizes: Sizes | None = None,
    external_above: int = EXTERNAL_ABOVE,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Export a model folder, a loaded Source or a diffusers network in memory to a bundle, and return its path.

    `progress` is called with the name of each of PHASES as it begins. The bundle appears at `out` when all of
    it is written and its graph agrees with torch; on any failure what stood there before is untouched. With `force`
    a bundle is replaced whole, with the engines that were built in it, and never a folder that holds anything else.

        export_bundle("checkpoints/digits-unet", "bundles/digits", name="digits")
    """
    tell = progress or (lambda phase: None)
    target = check_request(out, precision=precision, name=name, force=force)
    tell("load")
    source = _as_source(source, subfolder).shaped(sizes)
    scheduler_config = read_scheduler(source, scheduler)
    draft = draft_manifest(source, scheduler_config, target, name=name, guidance=guidance, defaults=defaults)
    tell("trace")
    graph = trace(source.skeleton, source.interface, source.weights)
    with new_folder(target, marker=MANIFEST_NAME, written=bundle_files, force=force) as folder:
        tell("write")
        (folder / "unet").mkdir()
        (folder / "scheduler").mkdir()
        written = write_onnx(graph, folder / "unet", external_above=external_above)
        _write_config(folder / "unet/config.json", source.config)
        _write_config(folder / draft.scheduler, scheduler_config)
        tell("check")
        error = check_onnx(
            written.graph, lambda tensors: source.interface.call(source.model, tensors), source.interface
        )
        tell("hash")
        data = (written.data.relative_to(folder).as_posix(),) if written.data else ()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        write_manifest(
            folder,
            msgspec.structs.replace(
                draft,
                unet=msgspec.structs.replace(draft.unet, data=data),
                files={path.relative_to(folder).as_posix(): record_file(path) for path in paths},
                provenance={**draft.provenance, "relative_error": float(f"{error:.3g}")},
            ),
        )
    return target


def check_request(out: str | Path, *, precision: str, name: str | None, force: bool) -> Path:
    """Refuse what cannot be exported before anything is loaded; return the target's resolved path."""
    if precision not in PRECISIONS:
        raise OptionError(
            "unknown precision",
            got=precision,
            expected=" or ".join(PRECISIONS),
            fix=f"pass {PRECISIONS[0]}, or leave the option out",
        )
    target = Path(out).resolve()
    if name is not None and not name.strip():
        raise OptionError("the bundle's name is empty", got=repr(name), expected="a short name", fix="leave it out")
    check_target(target, marker=MANIFEST_NAME, written=bundle_files, force=force)
    return target


class _Files(msgspec.Struct):
    """What names the files of a bundle in the manifest of any version."""

    format: Literal["dpmrt-bundle"]
    files: dict[str, Any] = {}


def bundle_files(bundle: Path) -> tuple[str, ...]:
    """Return the files of a bundle by its manifest, and what may stand beside them; none, if it is no manifest."""
    try:
        named = msgspec.json.decode((bundle / MANIFEST_NAME).read_bytes(), type=_Files).files
    except (msgspec.DecodeError, RecursionError):
        return ()
    return (*(name for name in named if not name.endswith("/")), MANIFEST_NAME, PARITY_NAME, DRIFT_NAME, ENGINES)


def read_scheduler(source: Source, scheduler: str | Path | None = None) -> dict[str, Any]:
    """Return the config of the scheduler that the caller names, or else of the source's own."""
    path = source.scheduler if scheduler is None else find_scheduler(Path(scheduler))
    if path is None:
        raise ExportError(
            "the scheduler is missing",
            got=f"no {SCHEDULER_NAME} {f'at {scheduler}' if scheduler else 'in the source'}",
            expected=f"a {SCHEDULER_NAME} that diffusers wrote",
            fix="pass --scheduler PATH (scheduler=... in Python) with a scheduler_config.json or its folder",
        )
    return read_json_object(path)


def draft_manifest(
    source: Source,
    scheduler_config: Mapping[str, Any],
    target: Path,
    *,
    name: str | None = None,
    guidance: Guidance | None = None,
    defaults: Defaults | None = None,
) -> Manifest:
    """Return the manifest that an export of `source` will have, apart from its files."""
    training = source.training
    defaults = defaults or Defaults(steps=20)
    scheduler_class(scheduler_config)
    prediction: Any = _sampled_with(lambda: prediction_from_diffusers(scheduler_config))
    inputs, outputs = source.interface.specs()
    manifest = Manifest(
        format="dpmrt-bundle",
        version=FORMAT_VERSION,
        name=name or target.name,
        unet=Network(
            path=f"unet/{MODEL_NAME}",
            inputs=inputs,
            outputs=outputs,
            config="unet/config.json",
            axes=source.interface.free(),
            channel_axis=source.interface.channel_axis,
        ),
        scheduler=f"scheduler/{SCHEDULER_NAME}",
        prediction=prediction,
        files={},
        guidance=_guidance(source, guidance),
        data_range=training.data_range if training else (-1.0, 1.0),
        defaults=defaults,
        provenance=_provenance(source, target),
    )
    check_numbers(manifest)
    _sampled_with(lambda: plan_from_diffusers(scheduler_config, manifest.defaults.steps))
    return manifest


def _as_source(source: Any, subfolder: str | None) -> Source:
    if isinstance(source, Source):
        return source
    if isinstance(source, (str, Path)):
        return load_source(source, subfolder)
    return source_of_model(source)


def _guidance(source: Source, guidance: Guidance | None) -> Guidance | None:
    training = source.training
    if guidance is None and training is not None and training.null_class is not None:
        classes = training.null_class if training.num_classes is None else training.num_classes
        guidance = Guidance("classifier_free", classes, training.null_class, REFERENCE_GUIDANCE_SCALE)
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


def _provenance(source: Source, target: Path) -> dict[str, str | int | float]:
    facts: dict[str, str | int | float] = {"kind": source.kind}
    if source.folder is not None:
        # Windows knows no relative path to another drive, and an absolute one is nobody's business.
        with contextlib.suppress(ValueError):
            facts["source"] = Path(os.path.relpath(source.folder.resolve(), target)).as_posix()
    if source.subfolder is not None:
        facts["subfolder"] = Path(source.subfolder).as_posix()
    facts.update(
        weights_sha256=source.weights_sha256,
        parameters=source.parameters,
        precision="fp32",
        opset=OPSET,
        date=utc_date(),
        **library_versions("torch", "diffusers", "onnx", "onnxscript"),
    )
    return facts


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    # Where the model lay on the exporting machine is nobody's business.
    kept = {key: value for key, value in config.items() if key != "_name_or_path"}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
