"""Engines that were built here, on a real GPU: against ONNX Runtime and against torch, trajectory for trajectory."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpmrt.errors import BackendError
from dpmrt.runtime import Guidance, load

pytestmark = pytest.mark.gpu

REQUESTS: list[dict[str, Any]] = [
    {"batch": 2, "steps": 10, "label": [3, 7]},
    {"batch": 1, "steps": 10, "label": 5, "guidance": 3.0},
    {"batch": 2, "steps": 10, "label": [3, 7], "guidance": Guidance([4.0, 1.0], interval=(0.2, 0.8), rescale=0.7)},
    {"batch": 4, "steps": 12, "label": 1, "solver": "dpmsolver++", "order": 2},
    {"batch": 2, "steps": 10, "label": 2, "solver": "ddim", "eta": 0.7},
    {"batch": 2, "steps": 10, "label": 2, "solver": "unipc"},
]


def _engine(flavour: str) -> str:
    return "tensorrt-rtx" if flavour == "tensorrt_rtx" else "tensorrt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


def _build(bundle: str | Path, flavour: str, folder: Path | None, **options: Any) -> None:
    from dpmrt.export import build_engine

    build_engine(
        bundle,
        flavour=flavour,
        engines=folder,
        min_shapes=["sample:1x1x16x16"],
        opt_shapes=["sample:2x1x16x16"],
        max_shapes=["sample:16x1x16x16"],
        **options,
    )


@pytest.mark.parametrize("request_", REQUESTS)
def test_trajectories_are_those_of_onnxruntime(flavour: str, folder: Path, request_: dict[str, Any]) -> None:
    _build("digits", flavour, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with load("digits", "onnxruntime") as host, load("digits", _engine(flavour), folder=folder) as device:
            expected = host.sample(seed=1, **request_)
            for _ in range(3):
                # TensorRT may compute in TF32 unless it is told otherwise
                np.testing.assert_allclose(device.sample(seed=1, **request_), expected, rtol=0, atol=5e-2)
            (bound,) = device._held.bound.values()
            assert bound[1].trajectory.refused is None  # type: ignore[union-attr]
            assert bound[1].trajectory.captured  # type: ignore[union-attr]


def test_the_engine_is_held_against_torch(flavour: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tiny_networks import labelled_unet, save_checkpoint

    from dpmrt.export import build_engine, export_bundle, verify

    source = save_checkpoint(labelled_unet(), tmp_path / "source")
    bundle = tmp_path / "bundle"
    export_bundle(source, bundle)
    build_engine(bundle, flavour=flavour)
    report = verify(bundle, against=source, backends=[_engine(flavour)], tolerance=2e-2, write=False, plot=False)
    assert report.backends[0].drift is not None
    assert report.backends[0].drift < 2e-2


def test_callbacks_and_plain_runs_agree(flavour: str, folder: Path) -> None:
    _build("digits", flavour, folder)
    states: list[Any] = []
    with load("digits", _engine(flavour), folder=folder) as pipeline:
        request: Any = {"batch": 2, "seed": 3, "steps": 8, "label": 4, "guidance": 1.0}
        followed = pipeline.sample(callback=lambda event: states.append(event.x), **request)
        for _ in range(3):
            np.testing.assert_allclose(pipeline.sample(**request), followed, atol=1e-5)
    assert len(states) == 8


def test_other_weights_without_another_build(flavour: str, tmp_path: Path) -> None:
    from dpmrt.engines.built import Flags

    _build("digits", flavour, tmp_path, flags=Flags(refit=True))
    with load("digits", _engine(flavour), folder=tmp_path) as pipeline:
        request: Any = {"batch": 2, "seed": 3, "steps": 6, "label": 4}
        before = pipeline.sample(**request)
        pipeline.refit(pipeline.bundle.root / pipeline.manifest.unet.path)
        np.testing.assert_allclose(pipeline.sample(**request), before, atol=1e-3)


def test_a_checkpoint_s_weights_without_another_export(flavour: str, tmp_path: Path) -> None:
    from diffusers import DDIMScheduler, UNet2DModel

    from dpmrt.engines.built import Flags
    from dpmrt.export import build_engine, export_bundle

    bundles = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = UNet2DModel(
            sample_size=16,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(32, 32),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )
        network.save_pretrained(str(tmp_path / f"checkpoint{seed}/unet"))
        DDIMScheduler().save_pretrained(str(tmp_path / f"checkpoint{seed}/scheduler"))
        bundles.append(export_bundle(tmp_path / f"checkpoint{seed}", tmp_path / f"bundle{seed}"))
    build_engine(bundles[0], flavour=flavour, flags=Flags(refit=True))
    request: Any = {"batch": 1, "seed": 3, "steps": 4}
    with load(bundles[1], "onnxruntime") as host:
        expected = host.sample(**request)
    with load(bundles[0], _engine(flavour)) as pipeline:
        assert np.abs(pipeline.sample(**request) - expected).max() > 0.1
        pipeline.refit(tmp_path / "checkpoint1/unet/diffusion_pytorch_model.safetensors")
        np.testing.assert_allclose(pipeline.sample(**request), expected, atol=5e-2)


def test_shapes_that_no_profile_covers_are_refused(flavour: str, folder: Path) -> None:
    _build("digits", flavour, folder)
    with (
        load("digits", _engine(flavour), folder=folder) as pipeline,
        pytest.raises(BackendError, match=r"does not suit|suits"),
    ):
        pipeline.sample(17, steps=2, label=1, guidance=1.0)


@pytest.mark.parametrize("engine", ["ort-cuda", "ort-tensorrt", "ort-tensorrt-rtx"])
def test_onnxruntime_s_providers(cupy: Any, engine: str, tmp_path: Path) -> None:
    try:
        pipeline = load("digits", engine, folder=tmp_path)
    except (BackendError, ImportError) as error:
        pytest.skip(f"{engine} is not to be had here: {error}")
    with pipeline, load("digits", "onnxruntime") as host:
        request: Any = {"batch": 2, "seed": 3, "steps": 8, "label": 4, "guidance": 2.0}
        np.testing.assert_allclose(pipeline.sample(**request), host.sample(**request), atol=5e-2)
