"""The tensorrt backend against onnxruntime, trajectory for trajectory, on devices that are simulated and compute."""

from __future__ import annotations

import json
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import device_bundles
import fake_cupy
import fake_tensorrt
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "runtime"))
from tiny_bundles import KERNEL, TABLE, write_bundle
from tiny_conditioned import write_conditioned

from dpmrt.engines import Guidance, read_manifest
from dpmrt.engines.built import Flags
from dpmrt.errors import ArrayError, BackendError, DpmrtError, MissingExtraError, NonFiniteError, OptionError
from dpmrt.runtime import load
from dpmrt.runtime.backends import choose_engine, open_backend
from dpmrt.runtime.backends.tensorrt import FarFromOptimum
from dpmrt.runtime.devices.safetensors import read_safetensors

SOLVERS: list[tuple[str | None, dict[str, Any]]] = [
    (None, {}),
    ("dpmsolver++", {"order": 2}),
    ("unipc", {}),
    ("ddim", {"eta": 0.6}),
    ("heun", {}),
    ("dpmsolver++", {"order": 2, "threshold": 0.95}),
]


@pytest.fixture
def gpu(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU with TensorRT, both of them fakes that compute; returns TensorRT's state."""
    device_bundles.put_gpu(monkeypatch)
    return fake_tensorrt.install(monkeypatch)


@pytest.fixture
def labelled(tmp_path: Path, gpu: Any) -> Path:
    root = write_bundle(tmp_path / "bundle", labels=True)
    device_bundles.build(root)
    return root


def _both(root: Path, engine: str = "tensorrt", runs: int = 3, **request: Any) -> None:
    with load(root, "onnxruntime") as host, load(root, engine) as device:
        expected = host.sample(**request)
        for _ in range(runs):
            got = device.sample(**request)
            assert isinstance(got, np.ndarray)
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * max(1, float(np.abs(expected).max())))


@pytest.mark.parametrize(("solver", "options"), SOLVERS)
@pytest.mark.parametrize("guidance", [None, 3.0])
def test_trajectories_are_those_of_onnxruntime(
    labelled: Path, solver: str | None, options: dict[str, Any], guidance: float | None
) -> None:
    _both(labelled, batch=2, seed=4, steps=6, solver=solver, label=[0, 2], guidance=guidance, **options)
    # the third run of a request is a captured trajectory
    assert [kind for kind, _ in fake_cupy.log].count("graph") == 2


@pytest.mark.parametrize("variant", [{"half": True}, {"time": "int64"}, {"scalar": True}, {"doubled_out": True}])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_every_interface_of_the_network(tmp_path: Path, gpu: Any, variant: Any, guidance: float) -> None:
    root = write_bundle(tmp_path / "bundle", labels=True, **variant)
    device_bundles.build(root)
    with load(root, "onnxruntime") as host, load(root, "tensorrt") as device:
        request: Any = {"batch": 3, "steps": 4, "label": 1, "guidance": guidance}
        expected = host.sample(**request)
        for _ in range(3):
            # half precision: what is rounded is what was combined in another order
            tolerance = 2e-3 if variant.get("half") else 2e-5
            np.testing.assert_allclose(device.sample(**request), expected, atol=tolerance)


def test_a_learned_variance_is_read_on_the_device(tmp_path: Path, gpu: Any) -> None:
    root = write_bundle(tmp_path / "bundle", labels=True, doubled_out=True)
    device_bundles.build(root)
    for guidance in (1.0, 2.0):
        _both(root, batch=2, steps=5, solver="ddpm", variance="learned_range", label=1, guidance=guidance)


def test_one_capture_serves_every_label_scale_and_seed(labelled: Path) -> None:
    with load(labelled, "onnxruntime") as host, load(labelled, "tensorrt") as device:
        for label, guidance, seed in [(0, 2.0, 0), (1, 3.5, 1), (2, 0.5, 2), ([0, 1], 7.0, 3)]:
            request: Any = {"batch": 2, "steps": 5, "label": label, "guidance": guidance, "seed": seed}
            np.testing.assert_allclose(device.sample(**request), host.sample(**request), atol=5e-5)
    assert [kind for kind, _ in fake_cupy.log].count("graph") == 3


@pytest.mark.parametrize("folded", [False, True])
def test_conditions_and_extra_channels(tmp_path: Path, gpu: Any, folded: bool) -> None:
    conditions: Any = {"encoder_hidden_states": ("float32", ("batch", 7, 6)), "time_ids": ("float32", ("batch", 3))}
    root = write_conditioned(
        tmp_path / "bundle", sample=("batch", 9, 8, 8), channels=4, conditions=conditions, folded=folded
    )
    device_bundles.build(root)
    rng = np.random.default_rng(0)
    given = {
        "encoder_hidden_states": rng.standard_normal((2, 7, 6)).astype(np.float32),
        "time_ids": rng.standard_normal((2, 3)).astype(np.float32),
        "extra_channels": rng.standard_normal((2, 5, 8, 8)).astype(np.float32),
    }
    negative = {"encoder_hidden_states": rng.standard_normal((1, 7, 6)).astype(np.float32)}
    _both(root, batch=2, steps=4, conditions=given)
    if not folded:
        _both(root, batch=2, steps=4, conditions=given, negative=negative, guidance=2.0)


def test_channels_on_the_last_axis(tmp_path: Path, gpu: Any) -> None:
    guidance = Guidance("classifier_free", 3, 3, 2.0)
    root = write_conditioned(
        tmp_path / "bundle",
        sample=("batch", 8, 8, 5),
        channels=4,
        axis=3,
        conditions={"class_labels": ("int64", ("batch",))},
        guidance=guidance,
    )
    device_bundles.build(root)
    extra = np.random.default_rng(0).standard_normal((2, 8, 8, 1)).astype(np.float32)
    _both(root, batch=2, steps=4, label=1, conditions={"extra_channels": extra}, guidance=2.0)
    _both(root, batch=2, steps=4, label=1, conditions={"extra_channels": extra}, guidance=1.0)


def test_callbacks_see_every_state(labelled: Path) -> None:
    seen: dict[str, list[Any]] = {"onnxruntime": [], "tensorrt": []}
    for engine, states in seen.items():
        with load(labelled, engine) as pipeline:
            pipeline.sample(2, steps=5, label=1, callback=lambda e, to=states: to.append((e.t, np.array(e.x))))
    for (t, x), (s, y) in zip(seen["onnxruntime"], seen["tensorrt"], strict=True):
        assert t == s
        np.testing.assert_allclose(y, x, atol=2e-5)


def test_the_nearest_profile_is_used_and_the_distant_ones_are_told(tmp_path: Path, gpu: Any) -> None:
    root = write_bundle(tmp_path / "bundle")
    key = device_bundles.build(root, (1, 1, 2), (2, 8, 16))
    with load(root, "tensorrt") as pipeline:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pipeline.sample(1, steps=2)
            pipeline.sample(8, steps=2)
        with pytest.warns(FarFromOptimum) as told:
            pipeline.sample(3, steps=2)
    text = str(told[0].message)
    assert text.startswith(f"the engine {key} was tuned for sample:8x1x8x8, timestep:8, and runs sample:3x1x8x8")
    assert f"dpmrt build {root} --minShapes=sample:3x1x8x8,timestep:3 --optShapes=sample:3x1x8x8,timestep:3" in text


def test_a_second_engine_is_loaded_for_other_shapes(tmp_path: Path, gpu: Any) -> None:
    root = write_bundle(tmp_path / "bundle")
    device_bundles.build(root, (1, 1, 2))
    device_bundles.build(root, (5, 6, 8))
    fake_tensorrt.state["settings"]["profiles"] = [{}]
    with load(root, "onnxruntime") as host, load(root, "tensorrt") as device:
        for batch in (1, 6, 1, 2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FarFromOptimum)
                got = device.sample(batch, steps=3)
            np.testing.assert_allclose(got, host.sample(batch, steps=3), atol=2e-5)
        assert len(device._held.backend().manifests) == 2
        with pytest.raises(BackendError, match="TensorRT engines suits the unet here") as caught:
            device.sample(4, steps=3)
    assert "shape of sample" in str(caught.value)


def test_guidance_asks_for_twice_the_batch(tmp_path: Path, gpu: Any) -> None:
    root = write_bundle(tmp_path / "bundle", labels=True)
    device_bundles.build(root, (1, 2, 4))
    with load(root, "tensorrt") as pipeline:
        pipeline.sample(2, steps=2, label=1, guidance=2.0)
        with pytest.raises(BackendError, match="does not suit"):
            pipeline.sample(3, steps=2, label=1, guidance=2.0)


def test_contexts_share_their_working_memory(labelled: Path, gpu: Any) -> None:
    with load(labelled, "tensorrt") as pipeline:
        for batch in (1, 2, 4):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FarFromOptimum)
                pipeline.sample(batch, steps=2, label=1)
        assert gpu["contexts"] == 3
        # a context serves all slots of a binding
        assert len({id(b._scratch) for b in pipeline._held.backend()._contexts.values()}) == 1


def test_memory_is_looked_at_before_it_is_exhausted(labelled: Path, gpu: Any) -> None:
    fake_cupy.memory["free"] = 100
    with pytest.raises(BackendError, match="the device's memory does not suffice for the engine's weights") as caught:
        load(labelled, "tensorrt")
    assert caught.value.got == "100 bytes free"
    fake_cupy.memory["free"] = 1 << 30
    gpu["scratch"] = 1 << 31
    with load(labelled, "tensorrt") as pipeline:
        with pytest.raises(BackendError, match="does not suffice for the engine's working memory") as caught:
            pipeline.sample(2, steps=2, label=1)
        assert (caught.value.got, caught.value.expected) == ("1.00 GiB free", "2.00 GiB")
        gpu["scratch"] = 4096
        pipeline.sample(2, steps=2, label=1)


def test_a_network_that_fails_is_named(labelled: Path, gpu: Any) -> None:
    with load(labelled, "tensorrt") as pipeline:
        gpu["fail_at"] = 3
        with pytest.raises(BackendError, match="the network failed in TensorRT") as caught:
            pipeline.sample(2, steps=5, label=1)
        assert "an illegal memory access was encountered" in str(caught.value.got)
        gpu["fail_at"] = 0
        assert np.isfinite(pipeline.sample(2, steps=5, label=1)).all()
        with pytest.raises(NonFiniteError, match=r"the network returned NaN or infinity|the state became NaN"):
            pipeline.sample(2, steps=5, label=1, x_T=np.full((2, 1, 8, 8), 3e38, np.float32), guidance=1e30)
        assert np.isfinite(pipeline.sample(2, steps=5, label=1)).all()


def test_a_device_that_is_lost_ends_in_one_error(labelled: Path, gpu: Any) -> None:
    # After a fault every call to CUDA fails, those that close things too.
    gpu["lose_at"] = 3
    with pytest.raises(BackendError, match="the network failed in TensorRT"), load(labelled, "tensorrt") as pipeline:
        pipeline.sample(2, steps=5, label=1)


def test_a_driver_too_old_for_tensorrt(labelled: Path, gpu: Any) -> None:
    gpu["old_driver"] = True
    with pytest.raises(BackendError, match="TensorRT cannot be started") as caught:
        load(labelled, "tensorrt")
    assert "CUDA initialization failure with error: 35" in str(caught.value.got)
    assert "update the driver" in str(caught.value.fix)


def test_shapes_that_the_graph_itself_refuses(labelled: Path, gpu: Any) -> None:
    with load(labelled, "tensorrt") as pipeline:
        gpu["at_odds"] = True
        with pytest.raises(BackendError, match="TensorRT finds the inputs' shapes at odds") as caught:
            pipeline.sample(2, steps=2, label=1)
        assert "broadcast dimensions must be conformable" in str(caught.value.got)


@pytest.mark.parametrize(
    ("what", "text", "fix"),
    [
        ("too old", "12.3.0", "pip install --upgrade"),
        ("no compiler", "CuPy failed to load libnvrtc.so.13", "cupy-cuda13x[ctk]"),
        ("no headers", "Failed to find CUDA headers", "CUDA_PATH"),
    ],
)
def test_a_cupy_that_will_not_do(
    labelled: Path, cupy: Any, monkeypatch: pytest.MonkeyPatch, what: str, text: str, fix: str
) -> None:
    if what == "too old":
        monkeypatch.setattr(cupy, "__version__", text)
    else:
        fake_cupy.device["compiler"] = f"{text}: no such file"
    with pytest.raises(BackendError, match=r"CuPy is too old|CuPy cannot compile kernels") as caught:
        load(labelled, "tensorrt")
    assert text in str(caught.value.got)
    assert fix in str(caught.value.fix)
    # Two packages of CuPy at once overwrite one another: the one that is there is the one to mend.
    module = "dpmrt.runtime.devices.cupy_device.packages_distributions"
    monkeypatch.setattr(module, lambda: {"cupy": ["cupy-cuda12x"]})
    with pytest.raises(BackendError) as caught:
        load(labelled, "tensorrt")
    assert "cupy-cuda12x[ctk]" in str(caught.value.fix)


@pytest.mark.parametrize("damage", ["truncated", "altered", "foreign"])
def test_a_damaged_engine_never_loads(tmp_path: Path, gpu: Any, damage: str) -> None:
    root = write_bundle(tmp_path / "bundle")
    key = device_bundles.build(root, plan=b"something that is no plan" if damage == "foreign" else None)
    plan = root / "engines" / f"{key}.plan"
    if damage == "truncated":
        plan.write_bytes(plan.read_bytes()[:-9])
    elif damage == "altered":
        data = bytearray(plan.read_bytes())
        data[100] ^= 1
        plan.write_bytes(data)
    with pytest.raises(BackendError) as caught:
        load(root, "tensorrt")
    expected = {"truncated": "is truncated", "altered": "was altered", "foreign": "Serialization assertion"}[damage]
    assert expected in str(caught.value)
    assert "dpmrt build" in str(caught.value.fix)


def test_an_engine_of_another_graph_never_loads(labelled: Path) -> None:
    other = write_bundle(labelled.parent / "other")
    (other / "engines").mkdir()
    for path in (labelled / "engines").iterdir():
        (other / "engines" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BackendError, match="does not suit the unet here") as caught:
        load(other, "tensorrt")
    assert "source unet/model.onnx: built for" in str(caught.value)


def _safetensors(path: Path, **tensors: np.ndarray[Any, Any]) -> Path:
    header, data = {}, b""
    for name, array in tensors.items():
        raw = array.tobytes()
        kind = {"float32": "F32", "float16": "F16", "uint16": "BF16"}[array.dtype.name]
        header[name.replace("__", ".")] = {
            "dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]
        }  # fmt: skip
        data += raw
    text = json.dumps({**header, "__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture
def refittable(tmp_path: Path, gpu: Any) -> Path:
    root = write_bundle(tmp_path / "bundle", labels=True, guidance=False)
    device_bundles.build(root, flags=Flags(refit=True))
    return root


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "onnx"])
def test_other_weights_without_another_build(refittable: Path, tmp_path: Path, kind: str) -> None:
    kernel, table = KERNEL.reshape(1, 1, 3, 3) * 2, TABLE[::-1].copy()
    if kind == "onnx":
        import onnx
        from onnx import numpy_helper

        model = onnx.load(str(refittable / "unet/model.onnx"))
        for one in model.graph.initializer:
            if one.name in ("kernel", "table"):
                one.CopyFrom(numpy_helper.from_array(kernel if one.name == "kernel" else table, one.name))
        weights = tmp_path / "other.onnx"
        onnx.save(model, str(weights))
    else:
        cast = {
            "F32": lambda a: np.asarray(a, np.float32),
            "F16": lambda a: np.asarray(a, np.float16),
            "BF16": lambda a: (np.asarray(a, np.float32).view(np.uint32) >> 16).astype(np.uint16),
        }[kind]
        slope = np.array(0.0005, np.float32)
        wide = {"BF16": lambda a: (a.astype(np.uint32) << 16).view(np.float32)}.get(
            kind, lambda a: a.astype(np.float32)
        )
        weights = _safetensors(tmp_path / "w.safetensors", unet__kernel=cast(kernel), table=cast(table), slope=slope)
        kernel, table = wide(cast(kernel)), wide(cast(table))
    request: Any = {"batch": 2, "steps": 4, "label": 1}
    with load(refittable, "tensorrt") as pipeline:
        before = [pipeline.sample(**request) for _ in range(3)]
        pipeline.refit(weights)
        after = [pipeline.sample(**request) for _ in range(3)]
    with load(refittable, "tensorrt", refit=weights) as pipeline:
        np.testing.assert_array_equal(pipeline.sample(**request), after[0])
    assert np.abs(after[0] - before[0]).max() > 0.1
    for one in after[1:]:
        np.testing.assert_array_equal(one, after[0])
    # and what is right is a bundle that has these weights
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(refittable / "unet/model.onnx"))
    for one in model.graph.initializer:
        if one.name in ("kernel", "table"):
            one.CopyFrom(numpy_helper.from_array(kernel if one.name == "kernel" else table, one.name))
    other = write_bundle(tmp_path / "other", labels=True, manifest=False)
    onnx.save(model, str(other / "unet/model.onnx"))
    with load(other, "onnxruntime") as host:
        expected = host.sample(**request)
    np.testing.assert_allclose(after[0], expected, atol=2e-5)


def test_weights_that_do_not_cover_the_engine(refittable: Path, tmp_path: Path, gpu: Any) -> None:
    few = _safetensors(tmp_path / "few.safetensors", kernel=KERNEL)
    with load(refittable, "tensorrt") as pipeline:
        with pytest.raises(BackendError, match="the weights do not cover the engine's") as caught:
            pipeline.refit(few)
        assert "table" in str(caught.value.got)
        # part of the weights may have been replaced, so nothing runs any more
        with pytest.raises(BackendError, match="the backend is closed"):
            pipeline.sample(2, steps=2, label=1)
    for name in ("w.bin", "missing.onnx"):
        with pytest.raises(OptionError, match="these are no weights"):
            load(refittable, "tensorrt", refit=name)
    gpu["refuse_refit"] = True
    whole = _safetensors(tmp_path / "w.safetensors", kernel=KERNEL, table=TABLE, slope=np.array(0.1, np.float32))
    with pytest.raises(BackendError, match="TensorRT refuses the weights"):
        load(refittable, "tensorrt", refit=whole)


def test_an_engine_that_cannot_be_refitted_says_so(labelled: Path, tmp_path: Path) -> None:
    weights = _safetensors(tmp_path / "w.safetensors", kernel=KERNEL)
    with pytest.raises(BackendError, match="the engine cannot take other weights") as caught:
        load(labelled, "tensorrt", refit=weights)
    assert caught.value.fix == "dpmrt build BUNDLE --refit"
    with load(labelled, "onnxruntime") as pipeline, pytest.raises(BackendError, match="takes no other weights"):
        pipeline.refit(weights)


def test_a_stripped_engine_gets_the_weights_of_its_graph(tmp_path: Path, gpu: Any) -> None:
    import onnx

    root = write_bundle(tmp_path / "bundle", labels=True)
    model = onnx.load(str(root / "unet/model.onnx"))
    for one in model.graph.initializer:
        if one.name == "kernel":
            one.raw_data = bytes(len(one.raw_data))
    plan = fake_tensorrt.MAGIC + model.SerializeToString()
    device_bundles.build(root, flags=Flags(strip_weights=True), plan=plan)
    _both(root, batch=2, steps=4, label=1)


@pytest.mark.parametrize("data", [b"", b"\x05", struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 2) + b"[]"])
def test_a_broken_safetensors_file_is_told(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(DpmrtError, match=r"cannot be read|is no whole safetensors file"):
        read_safetensors(path)


def test_safetensors_are_read_as_the_package_writes_them(tmp_path: Path) -> None:
    save = pytest.importorskip("safetensors.numpy").save_file
    values = {"a.b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.ones(3, np.float16)}
    save(values, str(tmp_path / "w.safetensors"))
    read = read_safetensors(tmp_path / "w.safetensors")
    assert set(read) == set(values)
    for name, array in values.items():
        np.testing.assert_array_equal(read[name].values, array)
    entry = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}}
    text = json.dumps(entry).encode()
    (tmp_path / "bad.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(12))
    with pytest.raises(DpmrtError, match="is no whole safetensors file"):
        read_safetensors(tmp_path / "bad.safetensors")


def test_the_budget_of_streamed_weights(tmp_path: Path, gpu: Any) -> None:
    root = write_bundle(tmp_path / "bundle")
    device_bundles.build(root, flags=Flags(weight_streaming=True))
    load(root, "tensorrt").close()
    assert gpu["budget"] == 600
    load(root, "tensorrt", weight_streaming_budget=100).close()
    assert gpu["budget"] == 100
    with pytest.raises(BackendError, match="weight_streaming_budget is out of range"):
        load(root, "tensorrt", weight_streaming_budget=1001)
    other = write_bundle(tmp_path / "other")
    device_bundles.build(other)
    with pytest.raises(BackendError, match="the engine cannot stream its weights"):
        load(other, "tensorrt", weight_streaming_budget=100)


def test_what_rtx_compiles_is_kept(tmp_path: Path, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device_bundles.put_gpu(monkeypatch)
    state = fake_tensorrt.install(monkeypatch, "tensorrt_rtx", "1.7.1")
    root = write_bundle(tmp_path / "bundle", labels=True)
    key = device_bundles.build(root, flavour="tensorrt_rtx", version="1.7.1")
    _both(root, "tensorrt", batch=2, steps=4, label=1)
    assert state["config"].dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
    cache = root / "engines" / f"{key}.cache"
    assert not cache.exists()
    with load(root, "tensorrt-rtx") as pipeline:
        pipeline.sample(2, steps=2, label=1)
        state["config"].cache.blob = b"compiled kernels"
    assert cache.read_bytes() == b"compiled kernels"
    with load(root, "tensorrt-rtx") as pipeline:
        pipeline.sample(2, steps=2, label=1)
        assert state["config"].cache.blob == b"compiled kernels"
    cache.write_bytes(b"of another machine")
    with load(root, "tensorrt-rtx") as pipeline:
        pipeline.sample(2, steps=2, label=1)
        assert state["config"].cache.blob == b""


def test_without_gpu_library_or_engine_it_is_said_what_to_do(
    tmp_path: Path, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_bundle(tmp_path / "bundle")
    device_bundles.put_gpu(monkeypatch, None)
    with pytest.raises(BackendError, match="the engine `tensorrt` needs an NVIDIA GPU") as caught:
        load(root, "tensorrt")
    assert caught.value.got == "no driver in this test"
    device_bundles.put_gpu(monkeypatch)
    monkeypatch.setattr("dpmrt.runtime.backends.tensorrt.installed_flavours", lambda: ())
    monkeypatch.setattr("dpmrt.runtime.tensorrt_library.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="is not installed"):
        load(root, "tensorrt")
    monkeypatch.undo()
    device_bundles.put_gpu(monkeypatch)
    fake_cupy.install(monkeypatch)
    fake_tensorrt.install(monkeypatch)
    with pytest.raises(BackendError, match="no TensorRT engine was built for the unet") as caught:
        load(root, "tensorrt")
    assert caught.value.fix == f"dpmrt build {root}"
    device_bundles.build(root)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises((MissingExtraError, BackendError)) as missing:
        load(root, "tensorrt")
    assert "pip install" in str(missing.value.fix)
    assert "cupy-cuda13x[ctk]" in str(missing.value.fix)


def test_auto_takes_an_engine_that_fits(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = read_manifest(labelled).unet
    monkeypatch.setattr("dpmrt.runtime.backends.choice.find_spec", lambda name: name)
    assert choose_engine(labelled, network) == ("tensorrt", "an engine fits Fake H100")
    assert choose_engine(labelled, network, ["threads"]).engine == "onnxruntime"
    with load(labelled) as pipeline:
        assert type(pipeline._held.backend()).__name__ == "TensorRTBackend"
    monkeypatch.setattr("dpmrt.runtime.backends.choice._has_cuda_provider", lambda: True)
    other = write_bundle(labelled.parent / "other")
    assert choose_engine(other, read_manifest(other).unet) == ("ort-cuda", "Fake H100; no TensorRT engine was built")
    monkeypatch.setattr("dpmrt.runtime.backends.choice._has_cuda_provider", lambda: False)
    assert choose_engine(other, read_manifest(other).unet).engine == "onnxruntime"
    device_bundles.put_gpu(monkeypatch, None)
    assert choose_engine(labelled, network) == ("onnxruntime", "no driver in this test")


def test_the_classifier_and_host_buffers_stay_on_the_host(labelled: Path) -> None:
    network = read_manifest(labelled).unet
    backend = open_backend("tensorrt", labelled, network)
    x = backend.place.zeros((2, 1, 8, 8), np.float32)  # type: ignore[attr-defined]
    with pytest.raises(ArrayError, match="the input buffers are not those of the graph"):
        backend.bind({"sample": x}, {"out_sample": x})
    backend.close()
    with pytest.raises(BackendError, match="the backend is closed"):
        backend.bind({}, {})
