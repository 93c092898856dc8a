"""From a bundle and wishes to a request: all that decides what is in the engine, settled before it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpmrt.engines import Network
from dpmrt.engines.built import Flags, Flavour, Request, engines_folder, remembered_hash, source_hashes
from dpmrt.engines.built.schema import NetworkName
from dpmrt.errors import OptionError
from dpmrt.export.tensorrt.flags import check_flags
from dpmrt.export.tensorrt.memory import check_loadable
from dpmrt.export.tensorrt.profiles import make_profiles
from dpmrt.export.tensorrt.targets import make_target
from dpmrt.runtime.bundle import OpenBundle, open_bundle
from dpmrt.runtime.gpu import current_gpu
from dpmrt.runtime.sizes import UNNAMED
from dpmrt.runtime.tensorrt_library import TensorRT, installed_flavours, load_library

#: the length that CLIP's text encoders give, for a folder that does not say how many tokens its network takes
_CLIP_TOKENS = 77


@dataclass(frozen=True)
class Prepared:
    """A build that can begin: what is asked for, from which graph, into which folder."""

    request: Request
    bundle: OpenBundle
    network: Network
    folder: Path
    trt: TensorRT

    @property
    def graph(self) -> Path:
        """Return the ONNX file."""
        return self.bundle.root / self.network.path

    @property
    def source_bytes(self) -> int:
        """Return the size of the graph and its weights."""
        return sum((self.bundle.root / name).stat().st_size for name in self.request.source)


def prepare(
    bundle: str | Path,
    *,
    network: NetworkName = "unet",
    flavour: Flavour | None = None,
    target: str | None = None,
    min_shapes: Sequence[str] = (),
    opt_shapes: Sequence[str] = (),
    max_shapes: Sequence[str] = (),
    flags: Flags | None = None,
    timing_cache: bool = False,
    engines: str | Path | None = None,
    names: Mapping[str, str] | None = None,
) -> Prepared:
    """Settle a build: check the bundle, find TensorRT, and refuse what cannot be honoured."""
    opened = open_bundle(bundle, names=names, digest=remembered_hash)
    graph = _network(opened, network)
    gpu = current_gpu()
    check_loadable()
    trt = load_library(_flavour(flavour, target, gpu is not None))
    aim = make_target(target, trt, gpu)
    wanted = flags or Flags()
    check_flags(wanted, trt, gpu=gpu is not None, timing_cache=timing_cache)
    profiles = make_profiles(graph, min_shapes, opt_shapes, max_shapes, sizes=_usual(opened, graph))
    request = Request(
        network=network,
        source=source_hashes(opened.root, graph, opened.manifest.files),
        precision=graph.precision.kind,
        library=trt.library,
        target=aim,
        profiles=profiles,
        flags=wanted,
    )
    return Prepared(request, opened, graph, engines_folder(opened.root, engines), trt)


def _flavour(flavour: Flavour | None, target: str | None, gpu: bool) -> Flavour | None:
    """Return the flavour that a build asks for: what is portable, or has no GPU, is TensorRT-RTX's."""
    if flavour is not None:
        return flavour
    portable = not gpu or target not in (None, "device")
    return "tensorrt_rtx" if portable and "tensorrt_rtx" in installed_flavours() else None


def _network(bundle: OpenBundle, name: NetworkName) -> Network:
    if name == "unet":
        return bundle.manifest.unet
    if name == "classifier" and bundle.manifest.classifier is not None:
        return bundle.manifest.classifier
    raise OptionError(
        f"the bundle has no network `{name}`",
        got=bundle.root,
        expected="unet" + " or classifier" * (bundle.manifest.classifier is not None),
        fix="export it with one: dpmrt export SOURCE -o BUNDLE --classifier FOLDER" if name == "classifier" else None,
    )


def _usual(bundle: OpenBundle, network: Network) -> dict[str, int]:
    """Return the sizes that configs give to axes of which the manifest says nothing."""
    sizes: dict[str, int] = {}
    sample, known = network.input("sample"), bundle.sample_shape
    if sample is not None and known is not None:
        sizes |= {axis: size for axis, size in zip(sample.shape[1:], known) if isinstance(axis, str)}
    hidden = network.input("encoder_hidden_states")
    width = bundle.unet_config.get("cross_attention_dim")
    if hidden is not None and len(hidden.shape) == 3:
        for axis, size in ((hidden.shape[1], _CLIP_TOKENS), (hidden.shape[2], width)):
            if isinstance(axis, str) and isinstance(size, int):
                sizes.setdefault(axis, size)
    return {axis: size for axis, size in sizes.items() if axis not in UNNAMED}
