"""Where ONNX Runtime's providers keep what they compile: one folder for each set of things that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from dpmrt.engines import Network
from dpmrt.engines.built import engines_folder, remembered_hash
from dpmrt.errors import BackendError, OutputError
from dpmrt.files import atomic_write
from dpmrt.runtime.gpu import Gpu

_FORMAT = "dpmrt-provider-cache"
SIDECAR = "dpmrt-cache.json"
#: where in this process something lies decides nothing
_FLEETING = frozenset({"user_compute_stream"})


def provider_cache(
    root: Path,
    network: Network,
    provider: str,
    gpu: Gpu,
    versions: Mapping[str, str],
    settings: Mapping[str, str],
    folder: str | Path | None = None,
) -> Path:
    """Return the folder for what a provider compiles of a network here; another graph, GPU or version has another.

    The folder says in its sidecar what it is for, and one that says something else is refused.
    """
    content = {
        "format": _FORMAT,
        "version": 1,
        "provider": provider,
        "source": {name: remembered_hash(root / name) for name in (network.path, *network.data)},
        "precision": network.precision.kind,
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "driver": gpu.driver,
        "cuda": gpu.cuda,
        "libraries": dict(versions),
        "settings": {name: value for name, value in settings.items() if name not in _FLEETING},
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    place = engines_folder(root, folder) / f"ort-{provider}-{key}"
    sidecar = place / SIDECAR
    try:
        if place.is_dir() and any(place.iterdir()):
            _check(sidecar, content)
            return place
        place.mkdir(parents=True, exist_ok=True)
        with atomic_write(sidecar) as stream:
            stream.write(json.dumps(content, sort_keys=True, indent=2).encode() + b"\n")
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            "there is no place to keep what the provider compiles",
            got=error,
            expected=f"a folder {place}",
            fix="set DPMRT_ENGINES to a folder that may be written to",
        ) from None
    return place


def _check(sidecar: Path, content: Mapping[str, object]) -> None:
    try:
        found = json.loads(sidecar.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        found = str(error)
    if found != content:
        raise BackendError(
            "a cache of compiled engines is not what its name says",
            got=found if isinstance(found, str) else f"another description in {sidecar}",
            expected="the description that its name was made from",
            fix=f"delete it: rm -r {sidecar.parent}",
        )
