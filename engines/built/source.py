"""What an engine is made from: the graph and its weights, by hash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from dpmrt.engines.built.hashes import remembered_hash
from dpmrt.engines.onnx_external import external_locations
from dpmrt.engines.schema import FileRecord, Network
from dpmrt.errors import BundleError


def source_hashes(root: Path, network: Network, files: Mapping[str, FileRecord] | None = None) -> dict[str, str]:
    """Return the SHA-256 of the graph of a network and of its weights, by path within the bundle.

    `files` are the records of a manifest whose files were checked; without them, as in a folder that optimum wrote,
    the files themselves are hashed.
    """
    if files:
        return {name: files[name].sha256 for name in (network.path, *network.data)}
    graph = root / network.path
    try:
        beside = sorted(external_locations(graph))
        found = [(PurePosixPath(network.path).parent / name).as_posix() for name in beside]
        # A folder without a manifest says nothing of its weights but in the graph.
        return {name: remembered_hash(root / name) for name in (network.path, *network.data, *found)}
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{network.path} or its weights cannot be read",
            got=error,
            expected="an ONNX file, with its weights beside it",
            fix="export the network again: dpmrt export SOURCE -o BUNDLE",
        ) from None
