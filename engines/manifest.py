"""`dpmrt.json`: what a bundle holds, read strictly."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import msgspec

from dpmrt.engines.json_file import write_json
from dpmrt.engines.onnx_external import external_locations
from dpmrt.engines.schema import MAX_LABEL, MAX_STEPS, Axis, FileRecord, Manifest, Network
from dpmrt.errors import BundleError, IntegrityError, ManifestError

FORMAT_VERSION = 3
#: what this dpmrt reads; version 1 had no axes, no precision and no classifier, version 2 no statistic and no vjp
READ_VERSIONS = (1, 2, 3)
MANIFEST_NAME = "dpmrt.json"

_EXPORT_AGAIN = "export the network again: dpmrt export SOURCE -o BUNDLE"


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def record_file(path: Path) -> FileRecord:
    """Return the size and the hash of a file, as a manifest lists them."""
    return FileRecord(bytes=path.stat().st_size, sha256=hash_file(path))


def read_manifest(bundle: Path, *, check: bool = True, digest: Callable[[Path], str] = hash_file) -> Manifest:
    """Read `dpmrt.json` of a bundle folder; with `check`, hold every file against its size and hash.

    `digest` works a hash out; one that remembers (`dpmrt.engines.built.remembered_hash`) spares hashing gigabytes.

    Raises ManifestError for a manifest that does not follow the schema, holds a number out of range, names a path
    outside the folder or uses a file that it does not record, be it only for the graph's weights; BundleError for
    what is missing, IntegrityError for what differs.
    """
    bundle = Path(bundle)
    path = bundle / MANIFEST_NAME
    if not bundle.is_dir():
        raise BundleError(
            "no bundle folder here", got=bundle, expected="a folder that `dpmrt export` wrote", fix=_EXPORT_AGAIN
        )
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(
            f"{MANIFEST_NAME} is missing",
            got=bundle,
            expected=f"a folder that holds {MANIFEST_NAME}",
            fix=_EXPORT_AGAIN,
        ) from None
    except OSError as error:
        raise BundleError(f"{MANIFEST_NAME} cannot be read", got=error, expected="a readable file") from None
    manifest = _decode(raw)
    for field, name in (*_used_paths(manifest), *((f"files[{name!r}]", name) for name in manifest.files)):
        _check_inside(bundle, field, name)
    _check_recorded(manifest)
    _check_roles("unet", manifest.unet, {"sample", "timestep"}, {"out_sample"})
    if manifest.classifier is not None:
        _check_roles("classifier", manifest.classifier, {"sample", "timestep", "class_labels"}, {"gradient"})
    if manifest.vjp is not None:
        _check_roles("vjp", manifest.vjp, {"sample", "timestep", "cotangent"}, {"vjp"})
        _check_same_inputs(manifest.unet, manifest.vjp)
    check_numbers(manifest)
    if check:
        for name, record in manifest.files.items():
            _check_file(bundle, name, record, digest)
        for network in _networks(manifest).values():
            _check_weights(bundle, network)
        _check_labels(bundle, manifest)
    return manifest


def write_manifest(bundle: Path, manifest: Manifest) -> Path:
    """Write `dpmrt.json`, readable by people, into a bundle folder; an older one is replaced whole."""
    return write_json(Path(bundle) / MANIFEST_NAME, manifest)


def check_numbers(manifest: Manifest) -> None:
    """Raise ManifestError for a number that no bundle can mean, wherever the manifest comes from."""
    low, high = manifest.data_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise _out_of_range("data_range", f"[{low}, {high}]", "finite numbers, the lower one first")
    whole = [("defaults.steps", manifest.defaults.steps, 1, MAX_STEPS)]
    if manifest.guidance is not None:
        whole.append(("guidance.classes", manifest.guidance.classes, 1, MAX_LABEL))
        whole.append(("guidance.null_label", manifest.guidance.null_label, 0, MAX_LABEL))
        if not math.isfinite(manifest.guidance.scale):
            raise _out_of_range("guidance.scale", manifest.guidance.scale, "a finite number")
    for field, value, least, most in whole:
        if not least <= value <= most:
            raise _out_of_range(field, value, f"{least} to {most}")
    for field, network in _networks(manifest).items():
        free = {axis for spec in (*network.inputs, *network.outputs) for axis in spec.shape if isinstance(axis, str)}
        for name, axis in network.axes.items():
            _check_axis(f"{field}.axes[{name!r}]", name, axis, free)


def _check_axis(field: str, name: str, axis: Axis, free: set[str]) -> None:
    if name not in free:
        raise _out_of_range(field, "an axis that no tensor has", f"one of {', '.join(sorted(free)) or 'none'}")
    if axis.max is not None and axis.max < axis.min:
        raise _out_of_range(field, f"min {axis.min}, max {axis.max}", "the smaller one first")
    if not axis.takes(axis.opt):
        raise _out_of_range(f"{field}.opt", axis.opt, axis)


def _out_of_range(field: str, got: object, expected: object) -> ManifestError:
    return ManifestError(
        f"{MANIFEST_NAME}: `{field}` is out of range",
        got=got,
        expected=expected,
        fix="export the network again, or mend the field by hand",
    )


def _decode(raw: bytes) -> Manifest:
    fix = "export the network again, or mend the field by hand"
    try:
        head = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{MANIFEST_NAME} is not JSON", got=error, expected="a JSON object", fix=fix) from None
    if not isinstance(head, dict) or head.get("format") != "dpmrt-bundle":
        got = head.get("format") if isinstance(head, dict) else type(head).__name__
        raise ManifestError(
            f"{MANIFEST_NAME}: `format` is not dpmrt's", got=repr(got), expected="'dpmrt-bundle'", fix=fix
        )
    if head.get("version") not in READ_VERSIONS or isinstance(head.get("version"), (bool, float)):
        raise ManifestError(
            f"{MANIFEST_NAME}: unknown `version`",
            got=repr(head.get("version")),
            expected=" or ".join(str(version) for version in READ_VERSIONS),
            fix="update dpmrt, or export the network again with this version",
        )
    try:
        return msgspec.json.decode(raw, type=Manifest)
    except msgspec.DecodeError as error:
        raise ManifestError(
            f"{MANIFEST_NAME} does not follow the schema",
            got=error,
            expected=f"the fields of version {FORMAT_VERSION}",
            fix=fix,
        ) from None


def _networks(manifest: Manifest) -> dict[str, Network]:
    found = {"unet": manifest.unet, "classifier": manifest.classifier, "vjp": manifest.vjp}
    return {field: network for field, network in found.items() if network is not None}


def _used_paths(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for field, network in _networks(manifest).items():
        yield f"{field}.path", network.path
        for index, name in enumerate(network.data):
            yield f"{field}.data[{index}]", name
        if network.config is not None:
            yield f"{field}.config", network.config
        if network.precision.emulated is not None:
            yield f"{field}.precision.emulated", network.precision.emulated
    yield "scheduler", manifest.scheduler
    if manifest.eps_power is not None:
        yield "eps_power", manifest.eps_power


def _check_inside(bundle: Path, field: str, name: str) -> None:
    pure = PurePosixPath(name)
    leaves = pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or not pure.parts
    if leaves or not (bundle / name).resolve().is_relative_to(bundle.resolve()):
        raise ManifestError(
            f"{MANIFEST_NAME}: a path leaves the bundle",
            got=f"{field} = {name!r}",
            expected="a relative path inside the folder",
            fix=_EXPORT_AGAIN,
        )


def _check_recorded(manifest: Manifest) -> None:
    for field, name in _used_paths(manifest):
        if name not in manifest.files:
            raise ManifestError(
                f"{MANIFEST_NAME}: `{field}` names a file without a record",
                got=repr(name),
                expected=f"one of `files`: {', '.join(manifest.files) or 'none'}",
                fix=_EXPORT_AGAIN,
            )


def _check_roles(kind: str, network: Network, inputs: set[str], outputs: set[str]) -> None:
    for field, specs, needed in (
        (f"{kind}.inputs", network.inputs, inputs),
        (f"{kind}.outputs", network.outputs, outputs),
    ):
        roles = [spec.role for spec in specs]
        if not needed <= set(roles) or len(roles) != len(set(roles)):
            raise ManifestError(
                f"{MANIFEST_NAME}: `{field}` has the wrong roles",
                got=", ".join(roles) or "none",
                expected=f"{' and '.join(sorted(needed))}, and each role once",
                fix=_EXPORT_AGAIN,
            )


def _check_same_inputs(unet: Network, vjp: Network) -> None:
    """Refuse a vector-Jacobian graph that takes anything but what the network takes, and a cotangent."""
    own = {spec.role for spec in unet.inputs}
    roles = {spec.role for spec in vjp.inputs} - {"cotangent"}
    if roles != own:
        raise ManifestError(
            f"{MANIFEST_NAME}: `vjp.inputs` are not those of the network",
            got=", ".join(sorted(roles)),
            expected=f"{', '.join(sorted(own))} and cotangent",
            fix=_EXPORT_AGAIN,
        )


def _check_file(bundle: Path, name: str, record: FileRecord, digest_of: Callable[[Path], str]) -> None:
    path = bundle / name
    fix = "copy the bundle again, or export it anew: dpmrt export SOURCE -o BUNDLE"
    if not path.is_file():
        raise BundleError("a file of the bundle is missing", got=f"no {name} in {bundle}", expected=name, fix=fix)
    size = path.stat().st_size
    if size != record.bytes:
        what = "is truncated" if size < record.bytes else "is longer than it was"
        raise IntegrityError(f"{name} {what}", got=f"{size} bytes", expected=f"{record.bytes} bytes", fix=fix)
    try:
        digest = digest_of(path)
    except OSError as error:
        raise BundleError(f"{name} cannot be read", got=error, expected="a readable file", fix=fix) from None
    if digest != record.sha256:
        raise IntegrityError(
            f"{name} was altered", got=f"SHA-256 {digest}", expected=f"SHA-256 {record.sha256}", fix=fix
        )


def _check_weights(bundle: Path, network: Network) -> None:
    """Refuse a graph that would load weights from a file whose hash was not looked at."""
    for path in (network.path, network.precision.emulated):
        if path is not None:
            _check_graph_weights(bundle, path, network.data)


def _check_graph_weights(bundle: Path, path: str, data: tuple[str, ...]) -> None:
    try:
        locations = external_locations(bundle / path)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} is not an ONNX model",
            got=error,
            expected="a file that torch.onnx wrote",
            fix=_EXPORT_AGAIN,
        ) from None
    for location in sorted(locations):
        name = (PurePosixPath(path).parent / location).as_posix()
        _check_inside(bundle, f"weights of {path}", name)
        if name not in data:
            raise ManifestError(
                f"{MANIFEST_NAME}: the graph keeps weights in a file that `data` does not name",
                got=repr(name),
                expected=", ".join(data) or f"all weights within {path}",
                fix=_EXPORT_AGAIN,
            )


def _check_labels(bundle: Path, manifest: Manifest) -> None:
    labels = _labels(bundle / manifest.unet.config) if manifest.unet.config is not None else None
    if labels is None or manifest.guidance is None:
        return
    # Classes are labelled from 0, so that the last one is classes - 1.
    for field, last in (("classes", manifest.guidance.classes - 1), ("null_label", manifest.guidance.null_label)):
        if last >= labels:
            raise _out_of_range(
                f"guidance.{field}",
                getattr(manifest.guidance, field),
                f"labels below {labels}, the num_class_embeds in {manifest.unet.config}",
            )


def _labels(config: Path) -> int | None:
    """Return how many labels the network's config says it knows; a damaged config says nothing here."""
    try:
        count = json.loads(config.read_bytes())["num_class_embeds"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return count if isinstance(count, int) and not isinstance(count, bool) else None
