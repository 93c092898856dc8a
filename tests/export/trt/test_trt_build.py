"""Building for real, with TensorRT-RTX's builder, on a machine without a GPU; and finding what was built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_bundles import write_bundle, write_onnx

from dpmrt.engines import read_manifest, record_file, write_manifest
from dpmrt.engines.built import (
    EngineTensor,
    Flags,
    Library,
    Machine,
    Range,
    find_engine,
    hashes,
    list_engines,
    source_hashes,
)
from dpmrt.engines.manifest import hash_file
from dpmrt.errors import BackendError, BundleError, IntegrityError, OptionError, OutputError
from dpmrt.export import build_engine
from dpmrt.export.tensorrt import build as building
from dpmrt.export.tensorrt import memory, request
from dpmrt.export.tensorrt.messages import Finished, Started, Stepped

L4 = Machine(Library("tensorrt_rtx", "1.7.1.116"), "NVIDIA L4", "8.9", "linux-x86_64")


def leftovers(folder: Path) -> list[str]:
    """Return every file of a folder of engines but the locks, which stay."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def rewrite(root: Path, model: onnx.ModelProto, **changes: Any) -> None:
    """Put another graph into a bundle, and its hash into the manifest."""
    onnx.save(model, str(root / "unet/model.onnx"))
    refresh(root)


def refresh(root: Path) -> None:
    import msgspec

    manifest = read_manifest(root, check=False)
    files = {name: record_file(root / name) for name in manifest.files}
    write_manifest(root, msgspec.structs.replace(manifest, files=files))


def test_the_shipped_bundle_is_built_and_found(digits: Path) -> None:
    events: list[Any] = []
    told: list[str] = []
    first = build_engine(digits, progress=events.append, say=told.append)
    manifest = first.manifest
    assert not first.found
    assert told == [f"building: no engine of the unet is in {digits / 'engines'}"]
    assert first.plan == digits / "engines" / f"{manifest.key}.plan"
    assert manifest.request.source == {"unet/model.onnx": hash_file(digits / "unet/model.onnx")}
    assert manifest.request.profiles[0]["sample"] == Range((1, 1, 16, 16), (2, 1, 16, 16), (8, 1, 16, 16))
    assert manifest.inputs == (
        EngineTensor("sample", "float32", ("batch", 1, 16, 16)),
        EngineTensor("timestep", "float32", ("batch",)),
        EngineTensor("class_labels", "int64", ("batch",)),
    )
    assert manifest.outputs == (EngineTensor("out_sample", "float32", ("batch", 1, 16, 16)),)
    # The weights are in the plan.
    assert manifest.plan.bytes > 5_000_000
    assert leftovers(digits / "engines") == [f"{manifest.key}.json", f"{manifest.key}.plan"]
    phases = [event.phase for event in events if isinstance(event, Started)]
    assert phases[0] == "Parsing the graph"
    assert "Building engine" in phases
    assert phases[-1] == "Writing the plan"
    assert [event.phase for event in events if isinstance(event, Finished)].count("Building engine") == 1
    assert any(isinstance(event, Stepped) for event in events)

    events.clear()
    second = build_engine(digits, progress=events.append, say=told.append)
    assert second.found
    assert events == []
    assert second.manifest == manifest
    assert len(told) == 1


def test_what_was_built_is_found_to_run(tiny: Path) -> None:
    built = build_engine(tiny)
    source = source_hashes(tiny, read_manifest(tiny).unet, read_manifest(tiny).files)
    shapes = {"sample": (3, 1, 8, 8), "timestep": (3,), "class_labels": (3,)}
    assert find_engine(tiny / "engines", "unet", source, L4, shapes) == (built.manifest, built.plan)


def test_large_files_are_not_hashed_twice(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_engine(digits)
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return hash_file(path)

    monkeypatch.setattr(hashes, "hash_file", counted)
    assert build_engine(digits).found
    assert hashed
    assert all(not name.endswith((".plan", ".onnx")) for name in hashed)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"flags": Flags(optimization_level=1)}, "  flags.optimization_level: none there, 1 wanted"),
        ({"flags": Flags(weight_streaming=True)}, "  flags.weight_streaming: False there, True wanted"),
        ({"flags": Flags(tf32=False)}, "  flags.tf32: True there, False wanted"),
        ({"flags": Flags(memory_pools={"workspace": 1 << 26})}, "flags.memory_pools.workspace: none there, 67108864"),
        ({"target": "sm89,sm120"}, "  target.capabilities: none there, 8.9, 12.0 wanted"),
        ({"max_shapes": ["timestep:4"]}, "  profiles: class_labels 1:2:8"),
    ],
    ids=str,
)
def test_another_wish_is_built_anew_and_says_why(tiny: Path, change: dict[str, Any], field: str) -> None:
    first = build_engine(tiny)
    told: list[str] = []
    second = build_engine(tiny, say=told.append, **change)
    assert not second.found
    assert told[0] == f"building anew: the nearest engine, {first.manifest.key}, differs"
    assert len(told) == 2
    assert field in told[1]
    assert build_engine(tiny).found
    assert build_engine(tiny, **change).found


def test_a_changed_graph_is_built_anew(tiny: Path) -> None:
    build_engine(tiny)
    model = onnx.load(str(tiny / "unet/model.onnx"))
    for weight in model.graph.initializer:
        if weight.name == "slope":
            weight.CopyFrom(numpy_helper.from_array(np.float32(0.25), "slope"))
    rewrite(tiny, model)
    told: list[str] = []
    assert not build_engine(tiny, say=told.append).found
    assert len(told) == 2
    assert told[1].startswith("  source.unet/model.onnx: ")
    assert len(list_engines(tiny / "engines")) == 2


def test_another_version_of_the_library_builds_anew(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_engine(tiny)
    real = request.load_library

    def newer(flavour: Any) -> Any:
        import dataclasses

        return dataclasses.replace(real(flavour), library=Library("tensorrt_rtx", "1.8.0.1"))

    monkeypatch.setattr(request, "load_library", newer)
    ready = request.prepare(tiny)
    assert building.find_built(ready.folder, ready.request) is None
    assert building.why_anew(ready.folder, ready.request)[1:] == (
        "  library.version: 1.7.1.116 there, 1.8.0.1 wanted",
    )
    # What the building process loads is not what was asked for, so that nothing is built under a wrong name.
    with pytest.raises(BackendError, match=r"TensorRT-RTX 1\.7\.1\.116 is loaded, and the request is for .* 1.8.0.1"):
        build_engine(tiny)


def test_another_gpu_builds_anew(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dpmrt.runtime.gpu import Gpu

    gpu = Gpu("NVIDIA L4", "8.9", "12.8", 24 << 30)
    monkeypatch.setattr(request, "current_gpu", lambda: gpu)
    first = request.prepare(tiny, target="device").request
    gpu = Gpu("NVIDIA L40", "8.9", "12.8", 48 << 30)
    assert request.prepare(tiny, target="device").request.key() != first.key()


def test_force_builds_again(tiny: Path) -> None:
    first = build_engine(tiny)
    before = first.plan.stat().st_ino
    told: list[str] = []
    second = build_engine(tiny, force=True, say=told.append)
    assert not second.found
    assert told == ["building again, as --force asks"]
    assert second.plan == first.plan
    assert second.plan.stat().st_ino != before
    assert build_engine(tiny).found


@pytest.mark.parametrize("damage", ["truncated", "altered", "foreign", "sidecar"])
def test_a_damaged_engine_is_neither_found_nor_used(tiny: Path, damage: str) -> None:
    built = build_engine(tiny)
    content = built.plan.read_bytes()
    sidecar = built.plan.with_suffix(".json")
    if damage == "truncated":
        built.plan.write_bytes(content[:-1])
        said = "is truncated"
    elif damage == "altered":
        built.plan.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        said = "was altered"
    elif damage == "foreign":
        built.plan.write_bytes(os.urandom(len(content)))
        said = "was altered"
    else:
        sidecar.write_text(sidecar.read_text().replace('"8.9"', "").replace('"fp32"', '"fp16"'))
        said = "`key` is not the key of its request"
    source = source_hashes(tiny, read_manifest(tiny).unet, read_manifest(tiny).files)
    with pytest.raises(
        BackendError, match=f"does not suit the unet here[\\s\\S]*{said}[\\s\\S]*fix: +dpmrt build mine"
    ):
        find_engine(tiny / "engines", "unet", source, L4, bundle="mine")
    told: list[str] = []
    again = build_engine(tiny, say=told.append)
    assert not again.found
    assert said in told[0]
    assert find_engine(tiny / "engines", "unet", source, L4)[0] == again.manifest


@pytest.mark.parametrize(
    "variant",
    [
        {"half": True, "labels": True},
        {"scalar": True, "time": "int64"},
        {"batch": 2, "labels": True},
        {"doubled_out": True},
        {"names": {"sample": "x.0", "timestep": "t/1", "out_sample": "eps:0"}},
    ],
    ids=str,
)
def test_every_kind_of_tiny_network(tmp_path: Path, variant: dict[str, Any]) -> None:
    root = write_bundle(tmp_path / "bundle", **variant)
    built = build_engine(root)
    unet = read_manifest(root).unet
    assert [(t.name, t.dtype, t.shape) for t in built.manifest.inputs] == [
        (spec.name, spec.dtype, spec.shape) for spec in unet.inputs
    ]
    assert [(t.name, t.dtype) for t in built.manifest.outputs] == [(spec.name, spec.dtype) for spec in unet.outputs]
    assert len(built.manifest.request.profiles) == (0 if variant.get("batch") == 2 else 1)


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "optimum", manifest=False)
    built = build_engine(root)
    assert built.manifest.request.source == {"unet/model.onnx": hash_file(root / "unet/model.onnx")}
    assert build_engine(root).found
    write_onnx(root / "unet/model.onnx", labels=True)
    assert not build_engine(root).found


def test_weights_beside_the_graph(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "optimum", manifest=False)
    model = onnx.load(str(root / "unet/model.onnx"))
    onnx.save(
        model, str(root / "unet/model.onnx"), save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    built = build_engine(root)
    assert sorted(built.manifest.request.source) == ["unet/model.onnx", "unet/model.onnx_data"]
    (root / "unet/model.onnx_data").unlink()
    with pytest.raises(BundleError, match=r"model.onnx or its weights cannot be read[\s\S]*model.onnx_data"):
        build_engine(root)


def test_a_graph_that_is_cut_off(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "optimum", manifest=False)
    content = (root / "unet/model.onnx").read_bytes()
    (root / "unet/model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match="is not an ONNX model"):
        build_engine(root)
    assert not (root / "engines").exists()


def test_a_graph_whose_weights_are_short(tiny: Path) -> None:
    """A graph that the checks of the manifest let through, and that TensorRT's own parser refuses."""
    model = onnx.load(str(tiny / "unet/model.onnx"))
    for weight in model.graph.initializer:
        if weight.name == "kernel":
            weight.raw_data = weight.raw_data[:8]
    rewrite(tiny, model)
    refused(tiny, "TensorRT's parser refused the graph")


def test_an_operator_that_tensorrt_does_not_know(tiny: Path) -> None:
    model = onnx.load(str(tiny / "unet/model.onnx"))
    model.graph.node[1].op_type = "Wavelet"
    model.graph.node[1].name = "the_wavelet"
    model.graph.node[1].domain = "mine"
    model.opset_import.append(helper.make_opsetid("mine", 1))
    rewrite(tiny, model)
    text = refused(tiny, "TensorRT's parser refused the graph")
    assert "node the_wavelet (Wavelet): " in text
    assert "fix:      export the network without this operator, or run it with engine='onnxruntime'" in text


def test_an_operator_that_is_used_wrongly(tiny: Path) -> None:
    model = onnx.load(str(tiny / "unet/model.onnx"))
    bad = helper.make_node("MatMul", ["x_", "column"], ["nonsense"], name="bad_product")
    model.graph.node.insert(1, bad)
    model.graph.output.append(helper.make_tensor_value_info("nonsense", TensorProto.FLOAT, None))
    rewrite(tiny, model)
    text = refused(tiny, "TensorRT's parser refused the graph")
    assert "bad_product (MatMul)" in text
    # What is wrong is the graph: that there is no driver the library mentions by the way.
    assert "cudaError 35" not in text
    assert "fix:      export the network again: dpmrt export SOURCE -o BUNDLE" in text


def refused(root: Path, what: str) -> str:
    """Return the text of the error that a build ends with; a log is kept, and nothing that loads."""
    with pytest.raises(BackendError) as caught:
        build_engine(root)
    text = str(caught.value)
    assert text.startswith(what)
    (log,) = leftovers(root / "engines")
    assert log.endswith(".log")
    assert f"log: {root / 'engines' / log}" in text
    assert (root / "engines" / log).stat().st_size > 0
    assert list_engines(root / "engines") == []
    return text


def test_too_small_a_workspace_names_the_flag(digits: Path) -> None:
    with pytest.raises(
        BackendError, match=r"could not build the engine[\s\S]*fix: +a larger --memPoolSize=workspace:MiB"
    ):
        build_engine(digits, flags=Flags(memory_pools={"workspace": 1024}))
    assert [name[-4:] for name in leftovers(digits / "engines")] == [".log"]


def test_a_crash_of_the_library_is_an_error(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The building process finds another tensorrt_rtx first: one that ends it, as the real one can on odd input.
    package = tmp_path / "crash/tensorrt_rtx.py"
    package.parent.mkdir()
    package.write_text("import os\nprint('last words', flush=True)\nos.kill(os.getpid(), 11)\n")
    ready = request.prepare(tiny)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with pytest.raises(BackendError, match=r"TensorRT crashed while it built the engine\n.*signal SIGSEGV") as caught:
        building.build_prepared(ready)
    log = Path(str(caught.value.got).rpartition("log: ")[2])
    assert "last words" in log.read_text()


def test_a_library_that_makes_no_builder(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # As the real one where the driver is too old for its CUDA: a word in the log, and nothing returned.
    package = tmp_path / "mute/tensorrt_rtx.py"
    package.parent.mkdir()
    package.write_text(
        f"__version__ = {request.prepare(tiny).request.library.version!r}\n"
        "class ILogger:\n"
        "    VERBOSE, ERROR, INTERNAL_ERROR = 'VERBOSE', 'ERROR', 'INTERNAL_ERROR'\n"
        "    def __init__(self): pass\n"
        "class Builder:\n"
        "    def __init__(self, logger):\n"
        "        logger.log('ERROR', 'CUDA initialization failure with error: 35')\n"
        "        raise TypeError('pybind11::init(): factory function returned nullptr')\n"
    )
    ready = request.prepare(tiny)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with pytest.raises(BackendError, match=r"failure with error: 35[\s\S]*fix: +a driver as new as"):
        building.build_prepared(ready)


def test_a_killed_process_speaks_of_memory(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "killed/tensorrt_rtx.py"
    package.parent.mkdir()
    package.write_text("import os\nos.kill(os.getpid(), 9)\n")
    ready = request.prepare(tiny)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with pytest.raises(BackendError, match=r"building process was killed[\s\S]*takes too much memory"):
        building.build_prepared(ready)


def test_a_graph_that_changes_meanwhile(tiny: Path) -> None:
    def meddle(event: Any) -> None:
        if isinstance(event, Started) and event.phase == "Writing the plan":
            with (tiny / "unet/model.onnx").open("ab") as stream:
                stream.write(b"\0")

    with pytest.raises(IntegrityError, match=r"model\.onnx changed while the engine was built"):
        build_engine(tiny, progress=meddle)
    assert list_engines(tiny / "engines") == []


def test_too_little_memory(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 100_000_000)
    with pytest.raises(BackendError, match=r"not enough memory to build the engine\n.*100.0 MB free"):
        build_engine(tiny)
    assert leftovers(tiny / "engines") == []


def test_free_memory_is_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = memory.free_memory()
    assert free is not None
    assert 1 << 20 < free < 1 << 50
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 9 kB\nMemAvailable:  1000 kB\nSwapFree:  24 kB\n")
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(memory, "_MEMINFO", info)
    monkeypatch.setattr(memory, "_LIMITS", ((limit, used),))
    assert memory.free_memory() == 1 << 20
    limit.write_text("500000")
    used.write_text("300000")
    (tmp_path / "memory.stat").write_text("inactive_file 1000\nactive_file 2000\n")
    assert memory.free_memory() == 203000
    limit.write_text("max")
    assert memory.free_memory() == 1 << 20
    monkeypatch.setattr(memory.resource, "getrlimit", lambda which: (400_000, 400_000))
    own = tmp_path / "statm"
    own.write_text(f"{100_000 // memory.resource.getpagesize() + 1} 5 6")
    monkeypatch.setattr(memory, "_OWN", own)
    assert 290_000 < memory.free_memory() <= 300_000  # type: ignore[operator]
    info.write_text("nonsense")
    assert memory.free_memory() is None


def test_too_few_addresses_for_the_library_do_not_end_the_interpreter(tiny: Path) -> None:
    code = (
        "import resource, sys\n"
        "from dpmrt.export import build_engine\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400_000_000, 400_000_000))\n"
        "build_engine(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "dpmrt.errors.BackendError: there is not enough memory to load TensorRT" in done.stderr
    assert "ulimit -v unlimited" in done.stderr


def test_too_little_disk_before_the_build(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr(memory.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match=r"not enough disk space for the engine[\s\S]*DPMRT_ENGINES"):
        build_engine(tiny)


def test_a_disk_that_fills_up(digits: Path) -> None:
    """The limit on a file's size stands for the disk: the plan is the only file that large."""
    code = (
        "import resource, signal, sys\n"
        "from dpmrt.export import build_engine\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, 8_000_000))\n"
        "build_engine(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(digits)], capture_output=True, text=True, timeout=120)
    assert "dpmrt.errors.OutputError: the engine cannot be written" in done.stderr
    assert "File too large" in done.stderr
    assert "free some disk space, or give another folder with --engines DIR" in done.stderr
    assert [name[-4:] for name in leftovers(digits / "engines")] == [".log"]


def test_a_folder_that_cannot_be_written(tiny: Path) -> None:
    (tiny / "engines").write_text("")
    with pytest.raises(OutputError, match="engines cannot be kept here"):
        build_engine(tiny)


@pytest.mark.parametrize("network", ["classifier", "vae"])
def test_a_network_that_is_not_there(tiny: Path, network: Any) -> None:
    with pytest.raises(OptionError, match=f"the bundle has no network `{network}`"):
        build_engine(tiny, network=network)
