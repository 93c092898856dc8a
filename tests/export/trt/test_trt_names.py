"""The names of TensorRT that the code uses are in the oldest API, in the newest, and in TensorRT-RTX's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tensorrt_rtx
from dump_api import names
from trt_names import names_in

from dpmrt.export.tensorrt.flags import POOLS

ROOT = Path(__file__).resolve().parents[3]
WHEELS = ROOT / "build/trt-names"
APIS = {"10.3": "tensorrt_cu12_bindings-10.3.0-*.whl", "11.4": "tensorrt_cu13_bindings-11.4.*.whl"}
FILES = [
    *sorted((ROOT / "export/tensorrt").glob("*.py")),
    *(ROOT / "runtime" / name for name in ("backends/tensorrt.py", "tensorrt_log.py")),
    *(ROOT / "runtime/devices" / name for name in ("refit.py", "runtime_cache.py", "tensorrt_engine.py")),
]
#: used where the flavour is TensorRT-RTX alone
RTX_ONLY = {
    ("", "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}


#: used where the object has it, which TensorRT's own has not
RTX_RUN = {
    ("", "DynamicShapesKernelSpecializationStrategy"),
    ("DynamicShapesKernelSpecializationStrategy", "EAGER"),
    ("ICudaEngine", "create_runtime_config"),
}


def is_rtx_run(name: tuple[str, str]) -> bool:
    return name in RTX_RUN or name[0] in ("IRuntimeConfig", "IRuntimeCache")


def used() -> set[tuple[str, str]]:
    return {name for path in FILES for name in names_in(path).names}


@pytest.fixture(scope="module", params=APIS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return the names in a wheel of TensorRT's bindings, which is loaded over libraries that are never called."""
    wheel = next(WHEELS.glob(APIS[request.param]), None)
    if wheel is None or shutil.which("cc") is None:
        pytest.skip("needs cc, and the wheels that `make test` puts into build/trt-names")
    folder = tmp_path_factory.mktemp(f"api-{request.param}")
    with zipfile.ZipFile(wheel) as archive:
        extension = archive.extract("tensorrt_bindings/tensorrt.so", folder)
    import tensorrt_rtx_libs

    libraries = Path(next(iter(tensorrt_rtx_libs.__path__)))
    major = request.param.partition(".")[0]
    stand_ins = {"nvinfer": "libtensorrt_rtx.so.1", "nvonnxparser": "libtensorrt_onnxparser_rtx.so.1"}
    for name, real in stand_ins.items():
        (folder / f"lib{name}.so.{major}").symlink_to(libraries / real)
    # Its address is taken when the extension is loaded, and TensorRT-RTX has no plugins.
    (folder / "plugin.c").write_text("int initLibNvInferPlugins(void *logger, const char *space) { return 1; }\n")
    plugin = str(folder / f"libnvinfer_plugin.so.{major}")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", plugin, str(folder / "plugin.c")], check=True)
    script = str(Path(__file__).with_name("dump_api.py"))
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{folder}:{libraries}"}
    done = subprocess.run(
        [sys.executable, script, extension], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def missing(api: dict[str, list[str]], wanted: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(owner, name) for owner, name in wanted if name not in api.get(owner, [])}


def test_every_object_of_tensorrt_is_followed() -> None:
    assert [line for path in FILES for line in names_in(path).unknown] == []
    # The heart of it; if following broke, it would be these that are lost.
    assert {
        ("", "Builder"),
        ("Builder", "build_serialized_network"),
        ("IBuilderConfig", "progress_monitor"),
        ("IOptimizationProfile", "set_shape"),
        ("IProgressMonitor", "step_complete"),
        ("ILogger", "log"),
        ("ITensor", "get_dimension_name"),
        ("ParserError", "node_operator"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("BuilderFlag", "STRIP_PLAN"),
        ("ITimingCache", "serialize"),
        ("Runtime", "deserialize_cuda_engine"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "set_device_memory"),
        ("IRuntimeConfig", "set_runtime_cache"),
        ("OnnxParserRefitter", "refit_from_file"),
    } <= used()


def test_no_other_file_of_the_runtime_touches_tensorrt() -> None:
    others = set((ROOT / "runtime").rglob("*.py")) - set(FILES) - {ROOT / "runtime/tensorrt_library.py"}
    assert [path.name for path in others if re.search(r"library\.module\b|\b_?trt\.", path.read_text())] == []


def test_the_names_are_in_the_api(api: dict[str, list[str]]) -> None:
    assert missing(api, {name for name in used() - RTX_ONLY if not is_rtx_run(name)}) == set()


def test_what_is_rtx_alone_is_not_in_the_oldest(api: dict[str, list[str]]) -> None:
    assert used() >= RTX_ONLY
    if "EXPLICIT_BATCH" in api["NetworkDefinitionCreationFlag"]:
        assert missing(api, RTX_ONLY) == RTX_ONLY


def test_memory_pools_are_in_the_api(api: dict[str, list[str]]) -> None:
    assert set(POOLS.values()) <= set(api["MemoryPoolType"])


def test_the_names_are_in_tensorrt_rtx() -> None:
    rtx = names(tensorrt_rtx)
    assert missing(rtx, used()) == set()
    assert set(POOLS.values()) <= set(rtx["MemoryPoolType"])


def test_a_name_that_is_nowhere_is_found(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(
        "def f(builder: Any) -> None:\n    config = builder.create_builder_config()\n    config.set_fp16()\n"
    )
    assert missing(names(tensorrt_rtx), names_in(path).names) == {("IBuilderConfig", "set_fp16")}
    path.write_text("def f(thing: Any) -> None:\n    thing.run()\n")
    assert names_in(path).unknown == ["wrong.py:2: thing.run"]
