"""Bundles in bfloat16, which ONNX Runtime on the CPU cannot compute in: a second graph stands for the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_conditioned import write_conditioned, write_tiny_manifest

from dpmrt.engines import Pin, Precision, read_manifest
from dpmrt.errors import BackendError, OptionError
from dpmrt.runtime import load, open_bundle
from dpmrt.runtime.backends import BACKENDS, open_backend, plain_engines


def write(folder: Path, kind: Any, *, emulated: bool) -> Path:
    """Write a bundle whose graph cannot be loaded where it is in bf16, as is so in earnest."""
    root = write_conditioned(folder / "b", sample=("batch", 1, 8, 8), manifest=False)
    network = open_bundle(root).manifest.unet
    graph = root / "unet/model.onnx"
    if emulated:
        (root / "unet/emulated.onnx").write_bytes(graph.read_bytes())
    precision = Precision(kind, (Pin("/out/Conv", "drift 0.2 without"),), "unet/emulated.onnx" if emulated else None)
    write_tiny_manifest(root, type(network)(network.path, network.inputs, network.outputs, precision=precision))
    return root


def test_auto_runs_the_emulated_graph_of_a_bundle_in_bf16(tmp_path: Path) -> None:
    with load(write(tmp_path, "bf16", emulated=True)) as auto:
        samples = auto.sample(2)
        with load(auto.bundle.root, "emulated", threads=1) as named:
            np.testing.assert_allclose(samples, named.sample(2), rtol=1e-5)


def test_onnx_runtime_by_name_says_what_runs_bf16(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot compute in bfloat16") as caught:
        load(write(tmp_path, "bf16", emulated=True), "onnxruntime")
    assert caught.value.got == "unet/model.onnx in bf16"
    assert str(caught.value.fix).startswith("engine='emulated'")


@pytest.mark.parametrize(("kind", "fix"), [("bf16", "export the network again"), ("fp16", "engine='onnxruntime'")])
def test_a_bundle_without_an_emulated_graph_says_so(tmp_path: Path, kind: str, fix: str) -> None:
    root = write(tmp_path, kind, emulated=False)
    with pytest.raises(BackendError, match="no graph that emulates") as caught:
        load(root, "auto" if kind == "bf16" else "emulated")
    assert caught.value.got == f"unet/model.onnx in {kind}, and no `precision.emulated`"
    assert fix in str(caught.value.fix)


def test_auto_runs_the_graph_itself_in_other_precisions(tmp_path: Path) -> None:
    root = write(tmp_path, "fp16", emulated=True)
    network = read_manifest(root).unet
    (root / "unet/emulated.onnx").write_bytes(b"no onnx")
    open_backend("auto", root, network).close()
    with pytest.raises(BackendError, match="refuses the network"):
        open_backend("emulated", root, network)


def test_engines_are_listed_and_checked(tmp_path: Path) -> None:
    gpu = ["ort-cuda", "ort-tensorrt", "ort-tensorrt-rtx", "tensorrt", "tensorrt-rtx"]
    assert plain_engines() == ["auto", "emulated", "onnxruntime", *gpu]
    root = write(tmp_path, "bf16", emulated=True)
    with pytest.raises(OptionError, match="unknown engine") as caught:
        load(root, "tensorrtx")
    assert caught.value.expected == "auto, " + ", ".join(sorted(BACKENDS))
    with pytest.raises(OptionError, match="the engine `emulated` has no such option"):
        load(root, "emulated", thread=1)
