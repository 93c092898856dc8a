"""Which classifier in torch a bundle's gradient is held against."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dpmrt.engines import Manifest, Network
from dpmrt.errors import BundleError, ExportError, OptionError, VerificationError
from dpmrt.export.classifier import RECORD, ClassifierSource, load_classifier_source
from dpmrt.export.factory import is_factory

_FIX = "pass --classifier SOURCE (classifier=... in Python), or --no-classifier (classifier=False) to leave it out"


class _Config(msgspec.Struct, frozen=True):
    """What an export says of a classifier in its config.json."""

    kind: str
    sample_shape: tuple[int, ...]
    classes: int
    weights_sha256: str


def find_classifier(
    folder: Path, manifest: Manifest, wanted: str | Path | ClassifierSource | bool | None
) -> ClassifierSource | None:
    """Return the classifier that a bundle's gradient came from, or `wanted`; None if there is none, or for False."""
    network = manifest.classifier
    if network is None and wanted not in (None, False, True):
        raise OptionError(
            "the bundle has no classifier",
            got=wanted,
            expected="a bundle that was exported with one",
            fix="leave --classifier out, or export again: dpmrt export SOURCE -o BUNDLE --classifier CLASSIFIER",
        )
    if network is None or wanted is False:
        return None
    config = _read(folder, network)
    if isinstance(wanted, ClassifierSource):
        found = wanted
    elif isinstance(wanted, (str, Path)):
        found = _load(wanted, config)
    else:
        found = _original(folder, manifest, config)
    if (found.sample_shape, found.classes) != (config.sample_shape, config.classes):
        raise VerificationError(
            "the classifier in torch is another than the bundle's",
            got=f"{found.classes} classes of samples of {found.sample_shape}",
            expected=f"{config.classes} classes of samples of {config.sample_shape}",
            fix="pass --classifier with the one that was exported",
        )
    return found


def _original(folder: Path, manifest: Manifest, config: _Config) -> ClassifierSource:
    recorded = manifest.provenance.get(RECORD)
    if is_factory(config.kind):
        source = _load(config.kind, config)
    elif recorded is not None and (path := (folder / str(recorded)).resolve()).is_dir():
        source = _load(path, config)
    else:
        raise VerificationError(
            "the classifier in torch that the bundle's came from is not there",
            got=f"no folder {path}" if recorded is not None else f"no `{RECORD}` in the manifest's provenance",
            expected="the folder that was exported",
            fix=_FIX,
        )
    if source.weights_sha256 != config.weights_sha256:
        raise VerificationError(
            "the classifier in torch has changed since it was exported",
            got=f"SHA-256 {source.weights_sha256}",
            expected=f"SHA-256 {config.weights_sha256}",
            fix=f"export it again, or {_FIX}",
        )
    return source


def _load(source: str | Path, config: _Config) -> ClassifierSource:
    try:
        if is_factory(str(source)) and not Path(source).is_dir():
            return load_classifier_source(source, sample_shape=config.sample_shape, classes=config.classes)
        return load_classifier_source(source)
    except ExportError as error:
        raise VerificationError(error.what, got=error.got, expected=error.expected, fix=_FIX) from error


def _read(folder: Path, network: Network) -> _Config:
    try:
        return msgspec.json.decode((folder / (network.config or "")).read_bytes(), type=_Config)
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError(
            "the config of the bundle's classifier cannot be read",
            got=error,
            expected="what an export writes beside the classifier's graph",
            fix="export the bundle again, or leave the classifier out: --no-classifier (classifier=False)",
        ) from None
