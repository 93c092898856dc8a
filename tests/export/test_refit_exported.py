"""An engine of an exported network takes another checkpoint's safetensors, and is then that checkpoint's network."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "devices"))
import device_bundles
import fake_cupy
import fake_tensorrt
from cuda_shim import COMPILER
from tiny_networks import labelled_unet, save_checkpoint

from dpmrt.engines import ORIGINS_NAME
from dpmrt.engines.built import Flags
from dpmrt.errors import BackendError
from dpmrt.export import export_bundle
from dpmrt.export.sources import load_source
from dpmrt.export.tracing import trace
from dpmrt.runtime import load

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
REQUEST: Any = {"batch": 2, "steps": 3, "label": 1, "guidance": 1.0}


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Any]]:
    """Two checkpoints of one network, and their graphs."""
    folders = [save_checkpoint(labelled_unet(seed), tmp_path_factory.mktemp("checkpoint")) for seed in (0, 1)]
    sources = [load_source(folder) for folder in folders]
    return [(one.folder, trace(one.skeleton, one.interface, one.weights)) for one in sources]


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def bundles(
    request: pytest.FixtureRequest, traces: list[tuple[Path, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Their bundles, each beside its checkpoint."""
    folder = tmp_path_factory.mktemp(request.param)
    for number, (checkpoint, graph) in enumerate(traces):
        shutil.copytree(checkpoint, folder / f"checkpoint{number}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dpmrt.export.network.trace", lambda *given, graph=graph, **options: graph.clone())
            export_bundle(checkpoint, folder / f"bundle{number}", precision=request.param, guarded=False)
    return folder / "bundle0", folder / "bundle1"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, bundles: tuple[Path, Path]) -> Any:
    fake_cupy.install(monkeypatch)
    device_bundles.put_gpu(monkeypatch)
    state = fake_tensorrt.install(monkeypatch)
    device_bundles.build(bundles[0], flags=Flags(refit=True))
    return state


def _checkpoint(bundle: Path) -> Path:
    return bundle.parent / bundle.name.replace("bundle", "checkpoint") / "unet/diffusion_pytorch_model.safetensors"


def test_it_gives_what_the_other_s_own_export_gives(bundles: tuple[Path, Path], gpu: Any) -> None:
    first, second = bundles
    with load(second, "onnxruntime") as host:
        expected = host.sample(**REQUEST)
    with load(first, "tensorrt") as pipeline:
        before = pipeline.sample(**REQUEST)
        pipeline.refit(_checkpoint(second))
        after = pipeline.sample(**REQUEST)
        pipeline.refit(_checkpoint(first))
        np.testing.assert_array_equal(pipeline.sample(**REQUEST), before)
    assert np.abs(before - expected).max() > 0.1
    np.testing.assert_allclose(after, expected, atol=2e-5 if "fp32" in str(first) else 5e-3)


def test_a_tensor_that_is_missing_or_of_another_size_is_named(
    bundles: tuple[Path, Path], gpu: Any, tmp_path: Path
) -> None:
    for change in ("missing", "size"):
        tensors = load_file(_checkpoint(bundles[1]))
        if change == "missing":
            del tensors["mid_block.resnets.0.conv1.weight"]
        else:
            tensors["mid_block.resnets.0.conv1.weight"] = torch.zeros(3)
        path = tmp_path / f"{change}.safetensors"
        save_file(tensors, path)
        with load(bundles[0], "tensorrt") as pipeline, pytest.raises(BackendError, match="do not cover") as caught:
            pipeline.refit(path)
        assert "mid_block.resnets.0.conv1.weight" in str(caught.value.got)


def test_a_number_beyond_the_engine_s_precision_is_refused(
    bundles: tuple[Path, Path], gpu: Any, tmp_path: Path
) -> None:
    tensors = load_file(_checkpoint(bundles[1]))
    tensors["mid_block.resnets.0.conv1.weight"][0, 0, 0, 0] = 1e6
    save_file(tensors, tmp_path / "large.safetensors")
    with load(bundles[0], "tensorrt") as pipeline:
        if "fp32" in str(bundles[0]):
            pipeline.refit(tmp_path / "large.safetensors")
            return
        with pytest.raises(BackendError, match="holds a number that the engine's precision cannot") as caught:
            pipeline.refit(tmp_path / "large.safetensors")
        assert "mid_block.resnets.0.conv1.weight" in caught.value.what


def test_weights_that_the_engine_keeps_are_named(bundles: tuple[Path, Path], gpu: Any) -> None:
    gpu["fixed_weights"] = ["mid_block.resnets.0.conv1.weight"]
    with load(bundles[0], "tensorrt") as pipeline:
        with pytest.raises(BackendError, match="cannot be replaced, as they were worked") as caught:
            pipeline.refit(_checkpoint(bundles[1]))
        assert caught.value.got == "mid_block.resnets.0.conv1.weight"


def test_without_the_list_names_have_to_be_the_graph_s(bundles: tuple[Path, Path], gpu: Any) -> None:
    hidden = bundles[0] / f"unet/{ORIGINS_NAME}"
    kept = hidden.read_bytes()
    with load(bundles[0], "tensorrt") as pipeline:
        hidden.unlink()
        try:
            with pytest.raises(BackendError, match="do not cover"):
                pipeline.refit(_checkpoint(bundles[1]))
        finally:
            hidden.write_bytes(kept)
