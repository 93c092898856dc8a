"""The built engines of a bundle, held against this machine field by field."""

from __future__ import annotations

from pathlib import Path

from dpmrt.engines import Manifest, Network
from dpmrt.engines.built import (
    EngineManifest,
    Machine,
    engines_folder,
    list_engines,
    misfits,
    misfits_of_source,
    read_engine,
    remembered_hash,
)
from dpmrt.errors import BundleError
from dpmrt.runtime.doctor.schema import BuiltEngine, Misfit


def examine_built(root: Path, manifest: Manifest, machines: list[Machine], bundle: str) -> list[BuiltEngine]:
    """Return what there is to say of each built engine; `machines` are this one with each TensorRT that is here."""
    folder = engines_folder(root)
    found = []
    for entry in list_engines(folder):
        try:
            if entry.manifest is None:
                raise entry.problem or BundleError("the sidecar cannot be read")
            read_engine(folder, entry.key)
        except BundleError as error:
            says = "; ".join(str(part) for part in (error.what, error.got) if part is not None)
            found.append(_describe(entry.key, entry.manifest, bundle, problem=says))
            continue
        request = entry.manifest.request
        suits = [
            machine for machine in machines if machine.library and machine.library.flavour == request.library.flavour
        ]
        why = _of_source(root, manifest, entry.manifest)
        why += [Misfit(m.field, m.engine, m.here, m.fix) for m in misfits(request, (suits or machines)[0])]
        # A bundle's own name is what the reader can paste.
        fields = tuple(Misfit(m.field, m.engine, m.here, m.fix.replace("BUNDLE", bundle)) for m in why)
        found.append(_describe(entry.key, entry.manifest, bundle, fields=fields))
    return found


def _of_source(root: Path, manifest: Manifest, engine: EngineManifest) -> list[Misfit]:
    request = engine.request
    network = manifest.unet if request.network == "unet" else manifest.classifier
    if network is None:
        return [Misfit("network", request.network, "the bundle has none", "remove the engine")]
    found = misfits_of_source(request, request.network, _hashes(root, manifest, network))
    return [Misfit(m.field, m.engine, m.here, m.fix) for m in found]


def _hashes(root: Path, manifest: Manifest, network: Network) -> dict[str, str]:
    """Return the hashes of a network's files: those of the manifest, or where there is none, of the files."""
    names = (network.path, *network.data)
    return {
        name: manifest.files[name].sha256 if name in manifest.files else remembered_hash(root / name)
        for name in names
    }


def _describe(
    key: str,
    engine: EngineManifest | None,
    bundle: str,
    *,
    problem: str | None = None,
    fields: tuple[Misfit, ...] = (),
) -> BuiltEngine:
    request = engine.request if engine else None
    other = f" --network {request.network}" if request and request.network != "unet" else ""
    return BuiltEngine(
        key=key,
        network=request.network if request else None,
        library=str(request.library) if request else None,
        target=str(request.target) if request else None,
        problem=problem,
        misfits=fields,
        # Where all that is wrong is that there is no GPU, building helps nothing.
        rebuild=f"dpmrt build {bundle}{other}" if problem or any("build" in m.fix for m in fields) else None,
    )
