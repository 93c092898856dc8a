"""What GPU is here: asked of a driver that is compiled for the test, in processes of their own, and of none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dpmrt.runtime.gpu import Gpu

COMPILER = shutil.which("gcc") or shutil.which("cc")

CUDA = r"""
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int value(const char *name, int otherwise) { const char *v = getenv(name); return v ? atoi(v) : otherwise; }
static int ready = 0;
int cuInit(unsigned flags) { int code = value("FAKE_INIT", 0); ready = !code && !flags; return code; }
int cuGetErrorString(int code, const char **text) {
    if (code == 100) { *text = "no CUDA-capable device is detected"; return 0; }
    *text = 0; return 1;
}
int cuDriverGetVersion(int *v) { *v = 13010; return 0; }
int cuDeviceGetCount(int *n) { *n = value("FAKE_COUNT", 2); return ready ? 0 : 3; }
int cuDeviceGet(int *d, int ordinal) { *d = 40 + ordinal; return 0; }
int cuDeviceGetName(char *name, int n, int d) { snprintf(name, n, "Fake GPU %d", d - 40); return 0; }
int cuDeviceGetPCIBusId(char *id, int n, int d) { snprintf(id, n, "0000:%02d:00.0", d); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int d) { *bytes = (size_t)(d - 39) << 34; return 0; }
int cuDeviceGetAttribute(int *v, int which, int d) {
    switch (which) {
        case 75: *v = 9; return 0;
        case 76: *v = d - 40; return 0;
        case 18: *v = value("FAKE_INTEGRATED", 0); return 0;
    }
    return 1;
}
"""

NVML = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static char chosen[32];
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *v, unsigned n) { snprintf(v, n, "580.65.06"); return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **handle) {
    snprintf(chosen, sizeof chosen, "%s", bus); *handle = chosen; return 0;
}
typedef struct { unsigned long long total, free, used; } Memory;
int nvmlDeviceGetMemoryInfo(void *handle, Memory *m) {
    if (getenv("FAKE_INTEGRATED")) return 3;
    m->total = 10; m->used = 3; m->free = strcmp((char *)handle, "0000:41:00.0") ? 7 : 5;
    return 0;
}
"""

ASK = """
import dataclasses, json, sys
from dpmrt.runtime.gpu import current_gpu, why_no_gpu
device = int(sys.argv[1])
gpu = current_gpu(device)
print(json.dumps({"gpu": gpu and dataclasses.asdict(gpu), "text": gpu and str(gpu), "why": why_no_gpu(device)}))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    for name, source in (("libcuda.so.1", CUDA), ("libnvidia-ml.so.1", NVML)):
        command = [COMPILER, "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", str(folder / name)]
        subprocess.run(command, input=source.encode(), check=True, timeout=120)
    return folder


def _ask(folder: Path | None, device: int = 0, **settings: object) -> Any:
    path = {} if folder is None else {"LD_LIBRARY_PATH": str(folder)}
    environment = {**os.environ, **path, **{f"FAKE_{k.upper()}": str(v) for k, v in settings.items()}}
    command = [sys.executable, "-c", ASK, str(device)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120, env=environment)
    return json.loads(done.stdout)


def test_the_driver_names_the_gpu(driver: Path) -> None:
    answer = _ask(driver)
    assert answer["gpu"] == {
        "name": "Fake GPU 0",
        "compute_capability": "9.0",
        "cuda": "13.1",
        "total_memory": 1 << 34,
        "driver": "580.65.06",
        "free_memory": 7,
        "integrated": False,
    }
    assert answer["text"] == "Fake GPU 0 (compute capability 9.0, driver 580.65.06, CUDA 13.1)"
    assert answer["why"] is None


def test_the_second_gpu_is_found_by_its_bus(driver: Path) -> None:
    gpu = _ask(driver, 1)["gpu"]
    assert (gpu["name"], gpu["compute_capability"], gpu["total_memory"], gpu["free_memory"]) == (
        "Fake GPU 1",
        "9.1",
        2 << 34,
        5,
    )


def test_a_device_that_is_not_there_is_said(driver: Path) -> None:
    assert _ask(driver, 2) == {
        "gpu": None,
        "text": None,
        "why": "there is no CUDA device 2: the driver sees 2 of them",
    }
    assert _ask(driver, count=0)["why"] == "there is no CUDA device 0: the driver sees 0 of them"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (100, "cuInit failed: no CUDA-capable device is detected (100)"),
        (999, "cuInit failed: unknown error (999)"),
    ],
)
def test_a_driver_that_fails_gives_its_reason(driver: Path, code: int, why: str) -> None:
    answer = _ask(driver, init=code)
    assert answer["gpu"] is None
    assert answer["why"] == why


def test_without_nvml_the_gpu_is_known_but_not_its_driver(driver: Path, tmp_path: Path) -> None:
    shutil.copy(driver / "libcuda.so.1", tmp_path)
    gpu = _ask(tmp_path)["gpu"]
    assert gpu["name"] == "Fake GPU 0"
    if not _real_nvml():
        assert (gpu["driver"], gpu["free_memory"]) == (None, None)


def test_an_integrated_gpu_shares_the_memory_of_the_processor(driver: Path) -> None:
    gpu = _ask(driver, integrated=1)["gpu"]
    assert gpu["integrated"] is True
    assert gpu["free_memory"] > 1 << 20


def test_a_library_that_is_no_driver_is_said(tmp_path: Path) -> None:
    if COMPILER is None:
        pytest.skip("no C compiler")
    command = [COMPILER, "-shared", "-fPIC", "-x", "c", "-", "-o", str(tmp_path / "libcuda.so.1")]
    subprocess.run(command, input=b"int other(void) { return 0; }", check=True, timeout=120)
    assert _ask(tmp_path)["why"].startswith("libcuda.so.1 is not a driver that dpmrt knows: ")
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    assert _ask(tmp_path)["why"].startswith("NVIDIA's driver cannot be loaded: ")


def test_there_is_a_gpu_or_a_reason() -> None:
    answer = _ask(None)
    assert (answer["gpu"] is None) == bool(answer["why"])


def test_what_is_unknown_is_left_out_of_the_text() -> None:
    assert str(Gpu("Orin", "8.7", "12.6", 1 << 33)) == "Orin (compute capability 8.7, CUDA 12.6)"


def _real_nvml() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True
