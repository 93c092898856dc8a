"""The torch side: which network a bundle is held against, and what it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpmrt.engines import NEGATIVE, Manifest, TensorSpec
from dpmrt.errors import ExportError, OptionError, VerificationError
from dpmrt.export.bundle import open_source
from dpmrt.export.certificate.cases import Case
from dpmrt.export.certificate.runners import TorchRunner
from dpmrt.export.factory import is_factory
from dpmrt.export.sources import Source, load_source
from dpmrt.export.torch_sampler import predict_guided

Tell = Callable[[int, int], None]


def find_source(
    folder: Path,
    manifest: Manifest,
    against: str | Path | None,
    spec: Path | str | Mapping[str, Any] | None = None,
    weights: Path | None = None,
) -> Source:
    """Return the torch network that a bundle came from, or `against`, with its axes open as the bundle's are."""
    if against is None and spec is not None:
        against = str(manifest.provenance.get("kind"))
    source = open_source(against, None, spec, weights) if against is not None else _original(folder, manifest)
    try:
        source = source.shaped(_sizes(source, manifest), one_time=_one_time(manifest))
        theirs, ours = _described(source.interface.specs()[0]), _described(_told(manifest))
    except (OptionError, ExportError) as error:
        raise _another(str(error.got), str(error.expected)) from error
    if ours != theirs:
        raise _another(_listed(theirs), _listed(ours))
    return source


@contextmanager
def rounding_little(precision: str) -> Iterator[None]:
    """Have torch round as little as it can where the limits are of the size of rounding, in fp32.

    The convolutions of oneDNN, which torch takes on most processors, lose up to five times as much as its own: beside
    them a graph can look wrong that is nearer to the exact numbers than torch is.
    """
    before = torch.backends.mkldnn.enabled
    if precision == "fp32":
        torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def run_calls(source: Source, manifest: Manifest, cases: Sequence[Case], tell: Tell) -> list[NDArray[Any]]:
    """Return torch's output of each case."""
    outputs = []
    with TorchRunner(source, _predictor(source, manifest)) as runner:
        for number, case in enumerate(cases, start=1):
            output = runner.infer(case.tensors, check_inputs=False)["out_sample"]
            if not np.isfinite(output).all():
                raise VerificationError(
                    "torch's own output holds NaN or infinity",
                    got=f"call {number}: {case}",
                    expected="finite numbers",
                    fix="check the network's weights",
                )
            outputs.append(output)
            tell(number, len(cases))
    return outputs


def _predictor(source: Source, manifest: Manifest) -> Callable[[Mapping[str, torch.Tensor]], torch.Tensor]:
    """Return the network as the graph computes it: by itself, or guided."""
    if not manifest.unet.folded_guidance:
        return source.predict

    def predict(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        wanted = {entry.role: tensors[entry.role] for entry in source.interface.inputs}
        null = {role: tensors.get(NEGATIVE + role, value) for role, value in wanted.items()}
        if manifest.guidance is not None and NEGATIVE + "class_labels" not in tensors:
            null["class_labels"] = torch.full_like(wanted["class_labels"], manifest.guidance.null_label)
        return predict_guided(source, wanted, null, float(tensors["guidance_scale"].flatten()[0]))

    return predict


def _original(folder: Path, manifest: Manifest) -> Source:
    fix = "pass --against SOURCE (against=... in Python) with the folder of the network"
    if is_factory(str(manifest.provenance.get("kind"))):
        raise VerificationError(
            "the torch network is made by a factory, which needs its spec again",
            got=manifest.provenance["kind"],
            expected="a spec, and weights where the export had them",
            fix="pass --spec FILE, and --weights FILE (spec=..., weights=... in Python)",
        )
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


def _sizes(source: Source, manifest: Manifest) -> dict[str, Any]:
    """Return, for the axes of the network, which sizes the bundle's graph takes."""
    sizes: dict[str, Any] = {}
    for entry in source.declared.inputs:
        spec = manifest.unet.input(entry.role)
        for axis, size in zip(entry.shape, spec.shape if spec else ()):
            if axis in source.declared.axes and isinstance(axis, str):
                sizes[axis] = size if isinstance(size, int) else manifest.unet.axes.get(size, "free")
    return sizes


def _one_time(manifest: Manifest) -> bool:
    spec = manifest.unet.input("timestep")
    return spec is not None and spec.shape == ()


def _told(manifest: Manifest) -> list[TensorSpec]:
    """Return the inputs that the network in torch has too; the others are those of guidance in the graph."""
    return [s for s in manifest.unet.inputs if s.role != "guidance_scale" and not s.role.startswith(NEGATIVE)]


def _described(specs: Sequence[TensorSpec]) -> dict[str, tuple[int | None, ...]]:
    return {s.role: tuple(axis if isinstance(axis, int) else None for axis in s.shape) for s in specs}


def _listed(described: Mapping[str, tuple[int | None, ...]]) -> str:
    roles = ", ".join(sorted(described))
    sample = ", ".join("any" if axis is None else str(axis) for axis in described.get("sample", ())[1:])
    return f"{roles}; samples of ({sample})"


def _another(got: str, expected: str) -> VerificationError:
    return VerificationError(
        "the torch network takes other inputs than the bundle",
        got=got,
        expected=expected,
        fix="pass --against with the network that was exported",
    )
