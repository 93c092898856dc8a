"""What `dpmrt inspect` says about a network: size, precision, axes, and its last verification."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dpmrt.errors import BundleError

if TYPE_CHECKING:
    from dpmrt.engines import Network
    from dpmrt.runtime.bundle import OpenBundle


def network_facts(bundle: OpenBundle, network: Network) -> Iterator[tuple[str, str]]:
    """Yield what there is to know about a network in one line each."""
    yield "parameters", _parameters(bundle, network)
    yield "on disk", f"{sum(path.stat().st_size for path in _files(bundle, network)):,} bytes"
    precision = network.precision
    pins = len(precision.pinned)
    yield "precision", precision.kind + (f", {pins} node{'s' * (pins != 1)} pinned to fp32" if pins else "")
    if precision.emulated is not None:
        yield "emulated by", precision.emulated
    if network.extra_channels:
        yield "extra channels", f"{network.extra_channels}, given as the condition extra_channels"
    if network.learned_channels:
        yield "learned variance", f"the last {network.learned_channels} channels of the output"
    if network.channel_axis != 1:
        yield "channels", f"on axis {network.channel_axis}"


def network_axes(network: Network) -> Iterator[tuple[str, str]]:
    """Yield the free axes whose sizes the manifest limits, or names the usual one of."""
    for name, axis in network.axes.items():
        yield name, f"{axis}; {axis.opt} mostly"


def network_pins(network: Network) -> Iterator[tuple[str, str]]:
    """Yield the nodes that compute in fp32, and why."""
    for pin in network.precision.pinned:
        yield pin.node, pin.why


def engine_auto(bundle: OpenBundle) -> str:
    """Return what runs the network here unless an engine is named, and why."""
    from dpmrt.runtime.backends import choose_engine

    choice = choose_engine(bundle.root, bundle.manifest.unet)
    return f"{choice.engine}: {choice.why}"


def last_verification(bundle: OpenBundle) -> str:
    """Return how the last verification of a bundle ended, and when."""
    from dpmrt.engines import read_parity

    try:
        report = read_parity(bundle.root)
    except BundleError as error:
        return f"unknown: {error.what}"
    return "not yet" if report is None else f"{'passed' if report.passed else 'failed'}, {report.date}"


def built_engines(bundle: OpenBundle) -> Iterator[tuple[str, str]]:
    """Yield the TensorRT engines of a bundle, each with its target and profiles, or what is wrong with it."""
    from dpmrt.engines.built import engines_folder, list_engines, misfits_of_source, read_engine, source_hashes

    folder = engines_folder(bundle.root)
    for entry in list_engines(folder):
        if entry.manifest is None:
            yield entry.key, f"cannot be used: {entry.problem.what if entry.problem else 'unreadable'}"
            continue
        request = entry.manifest.request
        network = bundle.manifest.classifier if request.network == "classifier" else bundle.manifest.unet
        text = f"{request.network}, {request.library}, {request.target}, {entry.manifest.plan.bytes:,} bytes"
        try:
            read_engine(folder, entry.key, check=False)
        except BundleError as error:
            text += f"; cannot be used: {error.what}"
        if network is None or misfits_of_source(
            request, request.network, source_hashes(bundle.root, network, bundle.manifest.files)
        ):
            text += "; of another graph"
        yield entry.key, text
        for number, profile in enumerate(request.profiles):
            yield "", f"profile {number}: " + ", ".join(f"{name} {sizes}" for name, sizes in profile.items())


def _files(bundle: OpenBundle, network: Network) -> list[Path]:
    """Return the graph and its weights, where these are files of their own."""
    from dpmrt.engines.onnx_external import external_locations

    graph = bundle.root / network.path
    if not bundle.inferred:
        return [graph, *(bundle.root / name for name in network.data)]
    beside = (graph.parent / name for name in sorted(external_locations(graph)))
    return [graph, *(path for path in beside if path.is_file())]


def _parameters(bundle: OpenBundle, network: Network) -> str:
    counted = bundle.manifest.provenance.get("parameters")
    if network is bundle.manifest.unet and isinstance(counted, int):
        return f"{counted:,}"
    from dpmrt.runtime.onnx_header import read_graph_header

    return f"{read_graph_header(bundle.root / network.path).numbers:,}, counted in the graph"
