"""A diffusers network to a bundle on disk: traced, checked, described, and in place only when whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from dpmrt.engines import (
    DRIFT_NAME,
    MANIFEST_NAME,
    PARITY_NAME,
    PRECISIONS,
    Defaults,
    Guidance,
    PrecisionName,
    record_file,
    write_manifest,
)
from dpmrt.errors import ExportError, OptionError
from dpmrt.export.classifier import (
    RECORD,
    ClassifierSource,
    check_fits,
    check_trained_times,
    export_classifier,
    load_classifier_source,
)
from dpmrt.export.draft import draft_manifest, relative_record, settle_guidance
from dpmrt.export.factory import is_factory, load_factory
from dpmrt.export.folders import check_target, new_folder
from dpmrt.export.folding import Forward, fold_guidance
from dpmrt.export.interfaces import Sizes
from dpmrt.export.network import Plan, trace_network, write_network
from dpmrt.export.onnx_files import EXTERNAL_ABOVE
from dpmrt.export.schedulers import SCHEDULER_NAME
from dpmrt.export.sources import Source, find_scheduler, load_source, read_json_object, source_of_model
from dpmrt.export.vjp import check_vjp, export_vjp

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
    sizes: Sizes | None = None,
    one_time: bool = False,
    fold: bool = False,
    spec: Path | str | Mapping[str, Any] | None = None,
    weights: Path | None = None,
    classifier: str | Path | ClassifierSource | None = None,
    classes: int | None = None,
    vjp: bool = False,
    guarded: bool = True,
    force: bool = False,
    external_above: int = EXTERNAL_ABOVE,
    progress: Callable[..., None] | None = None,
) -> Path:
    """Export a folder, a factory, a loaded Source or a diffusers network in memory to a bundle; return its path.

    `sizes` fixes axes or leaves them open, as {"height": "free", "batch": 1}; `one_time` gives the graph one timestep
    for the batch; `fold` makes classifier-free guidance a part of it. A factory, "package.module:function", needs a
    `spec`, and may have `weights`. The gradient of a noise-aware `classifier`, its folder or a factory of one for so
    many `classes`, goes into the bundle too, and with `vjp` the product of a vector with the network's Jacobian. Half
    precision is tried on trajectories and mended unless `guarded` is false.

    `progress` is called with the name of each of `phases(...)` as it begins, and with a text on how it goes. The
    bundle appears at `out` when all of it is written and its graph agrees with torch; on any failure what stood there
    before is untouched. With `force` a bundle is replaced whole, with the engines that were built in it, and never a
    folder that holds anything else.

        export_bundle("checkpoints/digits-unet", "bundles/digits", name="digits")
    """
    tell = progress or (lambda phase, text="": None)
    target = check_request(out, precision=precision, name=name, force=force)
    tell("load")
    opened = open_source(source, subfolder, spec, weights).shaped(sizes, one_time=one_time)
    scheduler_config = read_scheduler(opened, scheduler)
    if vjp:
        check_vjp(opened, precision, fold)
    judge = open_classifier(classifier, opened, classes)
    if judge is not None:
        check_trained_times(judge, scheduler_config)
    plan = make_plan(opened, precision, guidance, fold=fold, guarded=guarded, external_above=external_above)
    draft = draft_manifest(plan, scheduler_config, target, name=name, guidance=guidance, defaults=defaults)
    if judge is not None:
        check_fits(draft.unet, judge, draft.guidance)
    tell("trace")
    graph = trace_network(plan)
    with new_folder(target, marker=MANIFEST_NAME, written=bundle_files, force=force) as folder:
        (folder / "unet").mkdir()
        (folder / "scheduler").mkdir()
        written = write_network(plan, graph, draft.unet, folder, scheduler_config, draft.defaults.steps, tell)
        _write_config(folder / "unet/config.json", opened.config)
        _write_config(folder / draft.scheduler, scheduler_config)
        if judge is not None:
            tell("classifier")
            network = export_classifier(judge, folder)
            came_from = relative_record(RECORD, judge.folder, target) if judge.folder is not None else {}
            facts = {**draft.provenance, **came_from}
            draft = msgspec.structs.replace(draft, classifier=network, provenance=facts)
        if vjp:
            tell("vjp")
            draft = msgspec.structs.replace(draft, vjp=export_vjp(opened, folder, external_above=external_above))
        tell("hash")
        measured = {"relative_error": written.error, "calibration_psnr": written.psnr}
        facts = {key: float(f"{value:.3g}") for key, value in measured.items() if value is not None}
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        write_manifest(
            folder,
            msgspec.structs.replace(
                draft,
                unet=written.network,
                files={path.relative_to(folder).as_posix(): record_file(path) for path in paths},
                provenance={**draft.provenance, **facts},
            ),
        )
    return target


def phases(precision: str, guarded: bool = True, classifier: bool = False, vjp: bool = False) -> tuple[str, ...]:
    """Return the phases of an export, in order."""
    judge = ("classifier",) * classifier + ("vjp",) * vjp
    guard = ("guard",) if precision != "fp32" and guarded else ()
    return ("load", "trace", "write", "check", *guard, *judge, "hash")


def open_source(
    source: Any,
    subfolder: str | None = None,
    spec: Path | str | Mapping[str, Any] | None = None,
    weights: Path | None = None,
) -> Source:
    """Return the source that a folder, a factory's name or a network in memory stands for."""
    if isinstance(source, (str, Path)) and is_factory(str(source)) and not Path(source).exists():
        return load_factory(str(source), spec, weights)
    if spec is not None or weights is not None:
        raise OptionError(
            "a spec and weights are for a factory",
            got=str(source),
            expected="PACKAGE.MODULE:FACTORY",
            fix="leave them out: a diffusers folder says what its network takes",
        )
    if isinstance(source, Source):
        return source
    if isinstance(source, (str, Path)):
        return load_source(source, subfolder)
    return source_of_model(source)


def open_classifier(
    classifier: str | Path | ClassifierSource | None, source: Source, classes: int | None = None
) -> ClassifierSource | None:
    """Return the classifier that a folder or a factory's name stands for, for the samples of `source`."""
    if classifier is None or isinstance(classifier, ClassifierSource):
        return classifier
    shape = source.interface.state_shape() if is_factory(str(classifier)) else None
    return load_classifier_source(classifier, sample_shape=shape, classes=classes)


def make_plan(
    source: Source,
    precision: str,
    guidance: Guidance | None = None,
    *,
    fold: bool = False,
    guarded: bool = True,
    external_above: int = EXTERNAL_ABOVE,
) -> Plan:
    """Return how a source is exported."""
    interface = source.interface
    forward: Forward = interface.call
    if fold:
        labels = settle_guidance(source, guidance)
        interface, forward = fold_guidance(interface, labels.null_label if labels else None)
    return Plan(source, interface, forward, cast(PrecisionName, precision), guarded, external_above)


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


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    # Where the model lay on the exporting machine is nobody's business.
    kept = {key: value for key, value in config.items() if key != "_name_or_path"}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
