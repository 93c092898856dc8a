"""Opening a bundle folder: manifest and configs, checked, with no network loaded yet."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmrt.engines import MANIFEST_NAME, PARITY_NAME, Manifest, hash_file, read_manifest, shipped_bundle
from dpmrt.errors import BundleError, DpmrtError, ManifestError, OptionError
from dpmrt.runtime.inferred import SCHEDULER, UNET, infer_manifest
from dpmrt.runtime.sizes import show
from dpmrt.solvers_np import prediction_from_diffusers

if TYPE_CHECKING:
    from dpmrt.solvers_np import NoiseSchedule


@dataclass(frozen=True)
class OpenBundle:
    """A bundle whose files were checked; `unet_config` is empty where the bundle has none."""

    root: Path
    manifest: Manifest
    scheduler_config: Mapping[str, Any]
    unet_config: Mapping[str, Any]

    @functools.cached_property
    def schedule(self) -> NoiseSchedule | None:
        """Return the schedule that the network was trained with, where dpmrt reads and inverts its config."""
        from dpmrt.solvers_np import schedule_from_diffusers

        try:
            return schedule_from_diffusers(self.scheduler_config)
        except OptionError:
            return None

    @property
    def inferred(self) -> bool:
        """Return whether there was no manifest, so that the inputs are the graph's and no file was checked."""
        return not self.manifest.files

    @property
    def classes(self) -> int | None:
        """Return how many class labels there are to choose from, if the bundle says so."""
        if self.manifest.guidance is not None:
            return self.manifest.guidance.classes
        count = self.unet_config.get("num_class_embeds")
        return count if isinstance(count, int) else None

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """Return the usual shape of one sample, or None where graph, axes and config leave it open."""
        size = self.unet_config.get("sample_size")
        sides = (size, size) if isinstance(size, int) else size if isinstance(size, list) else ()
        configured = (self.unet_config.get("in_channels"), *sides)
        declared = self.manifest.unet.sample_shape
        if len(configured) != len(declared):
            configured = (None,) * len(declared)
        axes = self.manifest.unet.axes
        usual = [axes[axis].opt if isinstance(axis, str) and axis in axes else axis for axis in declared]
        shape = [axis if isinstance(axis, int) else known for axis, known in zip(usual, configured)]
        return tuple(int(axis) for axis in shape if isinstance(axis, int)) if None not in shape else None


def find_bundle(bundle: str | Path) -> Path:
    """Return the folder of a bundle: a path, or the name of one that ships with dpmrt.

    >>> find_bundle("digits").name
    'digits'
    """
    if not isinstance(bundle, (str, os.PathLike)) or not str(bundle):
        raise BundleError(
            "this names no bundle",
            got=repr(bundle),
            expected="a folder, or the name of a bundle that ships with dpmrt",
            fix="give its path, or `digits`",
        )
    path = Path(bundle)
    if path.is_dir() or len(path.parts) != 1 or path.suffix:
        return path
    try:
        return shipped_bundle(str(bundle))
    except OptionError as error:
        raise BundleError(
            "no bundle here, and none of this name ships with dpmrt",
            got=str(bundle),
            expected=f"a folder, or one of: {error.expected}",
            fix="export one: dpmrt export SOURCE -o BUNDLE",
        ) from None


def open_bundle(
    bundle: str | Path, *, names: Mapping[str, str] | None = None, digest: Callable[[Path], str] = hash_file
) -> OpenBundle:
    """Open a bundle, or a folder that optimum or diffusers wrote, and check all that can be checked.

    `names` maps roles to the graph's names for a folder without a manifest; `digest` works out the hash of a file.

    >>> open_bundle("digits").manifest.name
    'digits'
    """
    root = find_bundle(bundle)
    # A manifest that is a dangling link counts as there: it is broken, not absent.
    foreign = (root / UNET).is_file() and not os.path.lexists(root / MANIFEST_NAME)
    if foreign:
        if (root / PARITY_NAME).exists():
            raise BundleError(
                f"{MANIFEST_NAME} is missing from what was a bundle of dpmrt",
                got=f"{PARITY_NAME} and no {MANIFEST_NAME} in {root}",
                expected=f"a folder that holds {MANIFEST_NAME}",
                fix="copy the bundle again, or export it anew: dpmrt export SOURCE -o BUNDLE",
            )
        scheduler_config = _read_json(root, SCHEDULER)
        manifest = infer_manifest(root, scheduler_config, names)
    else:
        if names is not None:
            raise OptionError(
                "names is for folders without a manifest", got=names, expected="None", fix=f"edit {MANIFEST_NAME}"
            )
        manifest = _read_manifest(root, digest)
        scheduler_config = _read_json(root, manifest.scheduler)
    unet_config = _read_json(root, manifest.unet.config) if manifest.unet.config else {}
    opened = OpenBundle(root, manifest, scheduler_config, unet_config)
    _check(opened)
    return opened


def _read_manifest(root: Path, digest: Callable[[Path], str]) -> Manifest:
    try:
        return read_manifest(root, digest=digest)
    except DpmrtError:
        raise
    except (OSError, RuntimeError) as error:
        # A link to itself is a RuntimeError up to Python 3.12.
        raise BundleError("the bundle cannot be read", got=error, expected=f"a readable folder {root}") from None


def _read_json(root: Path, name: str) -> dict[str, Any]:
    fix = "export the network again: dpmrt export SOURCE -o BUNDLE"
    try:
        value = json.loads((root / name).read_bytes())
    except FileNotFoundError:
        raise BundleError(
            "a file of the bundle is missing", got=f"no {name} in {root}", expected=name, fix=fix
        ) from None
    except OSError as error:
        raise BundleError(f"{name} cannot be read", got=error, expected="a readable file") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not JSON", got=error, expected="a JSON object", fix=fix) from None
    if not isinstance(value, dict):
        raise BundleError(f"{name} is not a JSON object", got=type(value).__name__, expected="a JSON object", fix=fix)
    return value


def _check(bundle: OpenBundle) -> None:
    manifest = bundle.manifest
    for field, network in (("unet", manifest.unet), ("classifier", manifest.classifier)):
        sample = None if network is None else network.input("sample")
        if network is not None and sample is not None and network.channel_axis >= len(sample.shape):
            raise ManifestError(
                f"`{field}.channel_axis` is no axis of the sample",
                got=network.channel_axis,
                expected=f"an axis of {show(sample.shape)}, behind the batch",
                fix="export the network again",
            )
    if manifest.guidance is not None and manifest.unet.input("class_labels") is None:
        raise ManifestError(
            "the manifest promises guidance by class, and the network takes no labels",
            got=", ".join(spec.role for spec in manifest.unet.inputs),
            expected="an input `class_labels`",
            fix="export the network again",
        )
    configured = _configured_prediction(bundle.scheduler_config)
    if configured != manifest.prediction:
        raise ManifestError(
            "manifest and scheduler disagree about what the network predicts",
            got=f"prediction_type {configured!r} in {manifest.scheduler}",
            expected=f"{manifest.prediction!r}, as in {MANIFEST_NAME}",
            fix="mend whichever is wrong",
        )


def _configured_prediction(scheduler_config: Mapping[str, Any]) -> object:
    """Return what the scheduler's config says that the network predicts; some classes mean it without saying so."""
    try:
        return prediction_from_diffusers(scheduler_config)
    except OptionError:
        return scheduler_config.get("prediction_type", "epsilon")
