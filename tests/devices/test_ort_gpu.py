"""ONNX Runtime's GPU providers as backends: numbers through addresses, caches that cannot lie, no quiet fallback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import device_bundles
import fake_ort_gpu
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "runtime"))
from tiny_bundles import write_bundle

from dpmrt.engines import read_manifest
from dpmrt.errors import BackendError, MissingExtraError, OptionError
from dpmrt.runtime import load
from dpmrt.runtime.backends import open_backend
from dpmrt.runtime.gpu import Gpu

ALL = ("TensorrtExecutionProvider", "CUDAExecutionProvider")


@pytest.fixture
def expected(tmp_path: Path) -> Any:
    """What onnxruntime itself samples, before anything is faked."""
    root = write_bundle(tmp_path / "bundle", labels=True)
    with load(root, "onnxruntime") as pipeline:
        return root, pipeline.sample(2, steps=5, label=[0, 2], guidance=2.5)


@pytest.mark.parametrize("engine", ["ort-cuda", "ort-tensorrt", "ort-tensorrt-rtx"])
def test_every_provider_samples(expected: Any, cupy: Any, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    root, wanted = expected
    device_bundles.put_gpu(monkeypatch)
    state = fake_ort_gpu.install(monkeypatch, *ALL)
    with load(root, engine) as pipeline:
        for _ in range(3):
            got = pipeline.sample(2, steps=5, label=[0, 2], guidance=2.5)
            np.testing.assert_allclose(got, wanted, atol=2e-5)
        stream = pipeline._held.backend().place.stream.ptr
    assert state["settings"]["user_compute_stream"] == str(stream)
    assert state["settings"]["has_user_compute_stream"] == "1"
    folders = list((root / "engines").glob("ort-*")) if engine != "ort-cuda" else []
    caches = {key: value for key, value in state["settings"].items() if key.endswith("_path")}
    assert set(caches.values()) == {str(folder) for folder in folders}
    assert len(folders) == (engine != "ort-cuda")


def _cache(root: Path, state: Any) -> str:
    open_backend("ort-tensorrt", root, read_manifest(root).unet).close()
    return str(state["settings"]["trt_engine_cache_path"])


def test_what_is_compiled_is_kept_under_all_that_it_depends_on(
    tmp_path: Path, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_bundle(tmp_path / "bundle")
    device_bundles.put_gpu(monkeypatch)
    state = fake_ort_gpu.install(monkeypatch, *ALL)
    first = _cache(root, state)
    assert _cache(root, state) == first
    content = json.loads((Path(first) / "dpmrt-cache.json").read_text())
    assert content["gpu"] == "Fake H100"
    assert content["libraries"]["onnxruntime"] == "1.31.1"
    assert list(content["source"]) == ["unet/model.onnx"]
    assert "user_compute_stream" not in content["settings"]
    places = {first}
    monkeypatch.setattr(sys.modules["onnxruntime"], "__version__", "1.32.0")
    places.add(_cache(root, state))
    device_bundles.put_gpu(monkeypatch, Gpu("Other", "8.9", "13.0", 1 << 34, "580.65.06"))
    places.add(_cache(root, state))
    device_bundles.put_gpu(monkeypatch, Gpu("Other", "8.9", "13.0", 1 << 34, "590.1"))
    places.add(_cache(root, state))
    other = write_bundle(tmp_path / "other", half=True)
    places.add(_cache(other, state).replace(str(other), str(root)))
    assert len(places) == 5


def test_a_cache_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_bundle(tmp_path / "bundle")
    device_bundles.put_gpu(monkeypatch)
    state = fake_ort_gpu.install(monkeypatch, *ALL)
    folder = Path(_cache(root, state))
    sidecar = folder / "dpmrt-cache.json"
    content = json.loads(sidecar.read_text())
    for text in (json.dumps({**content, "gpu": "another"}), "no json"):
        sidecar.write_text(text)
        with pytest.raises(BackendError, match="a cache of compiled engines is not what its name says") as caught:
            _cache(root, state)
        assert caught.value.fix == f"delete it: rm -r {folder}"
    sidecar.unlink()
    (folder / "engine.bin").write_bytes(b"of whom?")
    with pytest.raises(BackendError, match="is not what its name says"):
        _cache(root, state)


def test_the_processor_is_never_used_quietly(
    tmp_path: Path, cupy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_bundle(tmp_path / "bundle")
    device_bundles.put_gpu(monkeypatch)
    state = fake_ort_gpu.install(monkeypatch, *ALL)
    state["falls_back"] = True
    with pytest.raises(BackendError, match="ONNX Runtime does not use CUDAExecutionProvider") as caught:
        load(root, "ort-cuda")
    assert caught.value.got == "CPUExecutionProvider"
    state["falls_back"] = False
    state["provider_fails"] = "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"
    for engine in ("ort-cuda", "ort-tensorrt-rtx"):
        with pytest.raises(BackendError, match="ONNX Runtime cannot open the network with") as caught:
            load(root, engine)
        assert caught.value.got == state["provider_fails"]
    assert capsys.readouterr().out == ""
    state["provider_fails"] = None
    with load(root, "ort-cuda") as pipeline:
        state["fail"] = True
        with pytest.raises(BackendError, match="the network failed in ONNX Runtime"):
            pipeline.sample(1, steps=2)


def test_what_is_missing_is_told(tmp_path: Path, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_bundle(tmp_path / "bundle")
    device_bundles.put_gpu(monkeypatch, None)
    for engine in ("ort-cuda", "ort-tensorrt", "ort-tensorrt-rtx"):
        with pytest.raises(BackendError, match=f"the engine `{engine}` needs an NVIDIA GPU"):
            load(root, engine)
    device_bundles.put_gpu(monkeypatch)
    state = fake_ort_gpu.install(monkeypatch, devices=0)
    with pytest.raises(BackendError, match="this ONNX Runtime has no CUDAExecutionProvider") as caught:
        load(root, "ort-cuda")
    assert "onnxruntime-gpu" in str(caught.value.fix)
    with pytest.raises(BackendError, match="finds no GPU that it supports"):
        load(root, "ort-tensorrt-rtx")
    state["broken"] = True
    with pytest.raises(BackendError, match="cannot load the TensorRT-RTX provider"):
        load(root, "ort-tensorrt-rtx")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match="needs a plugin that is not installed") as missing:
        load(root, "ort-tensorrt-rtx")
    assert missing.value.fix == "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13"
    with pytest.raises(OptionError, match="the engine `ort-cuda` has no such option"):
        load(root, "ort-cuda", threads=2)


def test_the_network_as_a_function_computes_on_the_device_for_states_of_the_host(
    expected: Any, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = expected
    x = np.random.default_rng(1).standard_normal((2, *load(root, "onnxruntime").sample_shape())).astype(np.float32)
    with load(root, "onnxruntime") as pipeline:
        model = pipeline.model(2, label=[0, 2], guidance=2.5)
        wanted = [model(x, t) for t in (999, 10, 500)]
    device_bundles.put_gpu(monkeypatch)
    fake_ort_gpu.install(monkeypatch, *ALL)
    with load(root, "ort-cuda") as pipeline:
        model = pipeline.model(2, label=[0, 2], guidance=2.5)
        for t, value in zip((999, 10, 500), wanted):
            np.testing.assert_allclose(model(x, t), value, atol=1e-5)
