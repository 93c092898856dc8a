"""Bundles with an engine for the fake TensorRT, and a GPU to run it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_tensorrt
import onnx

from dpmrt.engines import Network, read_manifest
from dpmrt.engines.built import (
    EngineTensor,
    Flags,
    Library,
    Range,
    Request,
    Target,
    engines_folder,
    source_hashes,
    this_platform,
    write_engine,
)
from dpmrt.runtime.gpu import Gpu

GPU = Gpu("Fake H100", "9.0", "13.0", 80 << 30, "580.65.06", 70 << 30)


def put_gpu(monkeypatch: Any, gpu: Gpu | None = GPU) -> None:
    """Let everything that asks find this GPU."""
    for module in ("devices.cupy_device", "backends.choice"):
        monkeypatch.setattr(f"dpmrt.runtime.{module}.current_gpu", lambda: gpu)
        monkeypatch.setattr(f"dpmrt.runtime.{module}.why_no_gpu", lambda: "no driver in this test")


def build(
    root: Path,
    *batches: tuple[int, int, int],
    flavour: str = "tensorrt",
    version: str = "10.3.0",
    flags: Flags = Flags(),  # noqa: B008
    plan: bytes | None = None,
) -> str:
    """Write an engine beside a bundle, with a profile for each (min, opt, max) of the batch; returns its key."""
    network: Network = read_manifest(root).unet
    profiles = []
    for low, opt, high in batches or ((1, 2, 8),):
        profiles.append(
            {
                spec.name: Range(*(tuple(_axis(axis, n) for axis in spec.shape) for n in (low, opt, high)))
                for spec in network.inputs
                if any(isinstance(axis, str) for axis in spec.shape)
            }
        )
    request = Request(
        "unet",
        source_hashes(root, network),
        network.precision.kind,
        Library(flavour, version),  # type: ignore[arg-type]
        Target("device", this_platform(), GPU.name, GPU.compute_capability),
        tuple(profiles),
        flags,
    )
    folder = engines_folder(root)
    folder.mkdir(exist_ok=True)
    scratch = folder / "scratch"
    # with the weights that lie beside the graph
    scratch.write_bytes(plan or fake_tensorrt.MAGIC + onnx.load(str(root / network.path)).SerializeToString())
    manifest, _ = write_engine(
        folder,
        request,
        scratch,
        inputs=tuple(EngineTensor(s.name, s.dtype, s.shape) for s in network.inputs),
        outputs=tuple(EngineTensor(s.name, s.dtype, s.shape) for s in network.outputs),
        facts={},
    )
    fake_tensorrt.state["settings"] = {
        "profiles": [{name: (r.min, r.opt, r.max) for name, r in profile.items()} for profile in profiles],
        "refit": flags.refit or flags.strip_weights,
        "streams": flags.weight_streaming,
    }
    return manifest.key


def _axis(axis: int | str, batch: int) -> int:
    return axis if isinstance(axis, int) else batch if axis in ("batch", "N") else 8
