"""`dpmrt.json`: what a bundle holds, read strictly."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import msgspec

from dpmrt.engines.json_file import write_json
from dpmrt.engines.onnx_external import external_locations
from dpmrt.errors import BundleError, IntegrityError, ManifestError

FORMAT_VERSION = 1
MANIFEST_NAME = "dpmrt.json"

Role = Literal["sample", "timestep", "encoder_hidden_states", "class_labels", "out_sample"]
DType = Literal["float32", "float16", "bfloat16", "int64", "int32"]

MAX_STEPS = 10_000
MAX_LABEL = 2**31 - 1

_EXPORT_AGAIN = "export the network again: dpmrt export SOURCE -o BUNDLE"


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of a graph: what it is for, its name there, and its shape (a string is a free axis)."""

    role: Role
    name: str
    dtype: DType
    shape: tuple[int | str, ...]


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network as an ONNX file, with the tensors that it takes and gives."""

    path: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    data: tuple[str, ...] = ()
    config: str | None = None

    def input(self, role: Role) -> TensorSpec | None:
        """Return the input that plays `role`, if the network has one."""
        return next((spec for spec in self.inputs if spec.role == role), None)

    @property
    def sample_shape(self) -> tuple[int | str, ...]:
        """Return the shape of one sample, without the batch axis."""
        spec = self.input("sample")
        return spec.shape[1:] if spec else ()


class Guidance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Classifier-free guidance by class label: the label that stands for "no class", and the usual scale."""

    kind: Literal["classifier_free"]
    classes: int
    null_label: int
    scale: float = 1.0


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the bundle is sampled when the caller does not say."""

    steps: int = 20
    solver: str | None = None
    options: dict[str, bool | int | float | str | None] = {}


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and SHA-256 of one file of the bundle."""

    bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of `dpmrt.json`."""

    format: Literal["dpmrt-bundle"]
    version: int
    name: str
    unet: Network
    scheduler: str
    prediction: Literal["epsilon", "sample", "v_prediction", "flow", "score", "edm"]
    files: dict[str, FileRecord]
    guidance: Guidance | None = None
    data_range: tuple[float, float] = (-1.0, 1.0)
    defaults: Defaults = Defaults()
    provenance: dict[str, str | int | float] = {}


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


def read_manifest(bundle: Path, *, check: bool = True) -> Manifest:
    """Read `dpmrt.json` of a bundle folder; with `check`, hold every file against its size and hash.

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
    _check_roles(manifest.unet)
    check_numbers(manifest)
    if check:
        for name, record in manifest.files.items():
            _check_file(bundle, name, record)
        _check_weights(bundle, manifest.unet)
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


def _out_of_range(field: str, got: object, expected: str) -> ManifestError:
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
    if head.get("version") != FORMAT_VERSION:
        raise ManifestError(
            f"{MANIFEST_NAME}: unknown `version`",
            got=repr(head.get("version")),
            expected=FORMAT_VERSION,
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


def _used_paths(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "unet.path", manifest.unet.path
    for index, name in enumerate(manifest.unet.data):
        yield f"unet.data[{index}]", name
    if manifest.unet.config is not None:
        yield "unet.config", manifest.unet.config
    yield "scheduler", manifest.scheduler


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


def _check_roles(network: Network) -> None:
    for field, specs, needed in (
        ("unet.inputs", network.inputs, {"sample", "timestep"}),
        ("unet.outputs", network.outputs, {"out_sample"}),
    ):
        roles = [spec.role for spec in specs]
        if not needed <= set(roles) or len(roles) != len(set(roles)):
            raise ManifestError(
                f"{MANIFEST_NAME}: `{field}` has the wrong roles",
                got=", ".join(roles) or "none",
                expected=f"{' and '.join(sorted(needed))}, and each role once",
                fix=_EXPORT_AGAIN,
            )


def _check_file(bundle: Path, name: str, record: FileRecord) -> None:
    path = bundle / name
    fix = "copy the bundle again, or export it anew: dpmrt export SOURCE -o BUNDLE"
    if not path.is_file():
        raise BundleError("a file of the bundle is missing", got=f"no {name} in {bundle}", expected=name, fix=fix)
    size = path.stat().st_size
    if size != record.bytes:
        what = "is truncated" if size < record.bytes else "is longer than it was"
        raise IntegrityError(f"{name} {what}", got=f"{size} bytes", expected=f"{record.bytes} bytes", fix=fix)
    try:
        digest = hash_file(path)
    except OSError as error:
        raise BundleError(f"{name} cannot be read", got=error, expected="a readable file", fix=fix) from None
    if digest != record.sha256:
        raise IntegrityError(
            f"{name} was altered", got=f"SHA-256 {digest}", expected=f"SHA-256 {record.sha256}", fix=fix
        )


def _check_weights(bundle: Path, network: Network) -> None:
    """Refuse a graph that would load weights from a file whose hash was not looked at."""
    try:
        locations = external_locations(bundle / network.path)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{network.path} is not an ONNX model",
            got=error,
            expected="a file that torch.onnx wrote",
            fix=_EXPORT_AGAIN,
        ) from None
    for location in sorted(locations):
        name = (PurePosixPath(network.path).parent / location).as_posix()
        _check_inside(bundle, f"weights of {network.path}", name)
        if name not in network.data:
            raise ManifestError(
                f"{MANIFEST_NAME}: the graph keeps weights in a file that `unet.data` does not name",
                got=repr(name),
                expected=", ".join(network.data) or f"all weights within {network.path}",
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
