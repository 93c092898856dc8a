"""Flags and targets, by what each TensorRT takes; those of a GPU by stand-ins for the module's names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dpmrt.engines.built import Flags, Library, Target
from dpmrt.errors import BackendError, OptionError
from dpmrt.export.tensorrt.flags import check_flags, parse_level, parse_pools
from dpmrt.export.tensorrt.targets import make_target
from dpmrt.runtime.gpu import Gpu
from dpmrt.runtime.tensorrt_library import TensorRT, load_library

L4 = Gpu("NVIDIA L4", "8.9", "12.8", 24 << 30)
PLATFORM = "linux-x86_64"


@pytest.fixture(scope="module")
def rtx() -> TensorRT:
    return load_library("tensorrt_rtx")


@pytest.fixture(scope="module")
def full(rtx: TensorRT) -> TensorRT:
    """Return what the code asks of TensorRT 10.3: flavour, version and the members of two enumerations."""
    flags = dict.fromkeys(("REFIT", "STRIP_PLAN", "WEIGHT_STREAMING", "VERSION_COMPATIBLE", "TF32"))
    module = SimpleNamespace(
        BuilderFlag=SimpleNamespace(__members__=flags),
        HardwareCompatibilityLevel=SimpleNamespace(__members__={"NONE": 0, "AMPERE_PLUS": 1}),
    )
    return TensorRT(module, Library("tensorrt", "10.3.0"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"refit": True}, "cannot honour --refit\n.*--refit: its compiler asks the CUDA driver, and there is no GPU"),
        ({"strip_weights": True}, "cannot honour --stripWeights"),
        ({"version_compatible": True}, "--versionCompatible: it would need a lean runtime"),
        ({"hardware_compatibility": "ampere_plus"}, "--hardwareCompatibilityLevel: the library ignores it"),
        ({"optimization_level": 6}, "--builderOptimizationLevel is out of range\n.*6\n.*0 to 5"),
        ({"optimization_level": -1}, "out of range"),
    ],
    ids=str,
)
def test_what_rtx_refuses_without_a_gpu(rtx: TensorRT, flags: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        check_flags(Flags(**flags), rtx, gpu=False)


def test_every_refusal_is_told_at_once(rtx: TensorRT) -> None:
    with pytest.raises(OptionError, match="cannot honour --refit and --versionCompatible and --timingCacheFile"):
        check_flags(Flags(refit=True, version_compatible=True), rtx, gpu=False, timing_cache=True)


def test_what_rtx_takes(rtx: TensorRT) -> None:
    check_flags(Flags(optimization_level=5, weight_streaming=True, tf32=False), rtx, gpu=False)
    check_flags(Flags(refit=True, strip_weights=True), rtx, gpu=True)


def test_what_tensorrt_takes(full: TensorRT) -> None:
    flags = Flags(refit=True, strip_weights=True, weight_streaming=True, version_compatible=True)
    check_flags(flags, full, gpu=True, timing_cache=True)
    check_flags(Flags(hardware_compatibility="ampere_plus"), full, gpu=True)
    with pytest.raises(OptionError, match="it does not know the level same_compute_capability"):
        check_flags(Flags(hardware_compatibility="same_compute_capability"), full, gpu=True)


@pytest.mark.parametrize(
    ("texts", "pools"),
    [
        (["workspace:1024"], {"workspace": 1 << 30}),
        (["workspace:2G,tacticSharedMem:48k"], {"workspace": 2 << 30, "tacticSharedMem": 48 << 10}),
        (["workspace:0.5", "tacticSharedMem:100B"], {"workspace": 1 << 19, "tacticSharedMem": 100}),
    ],
    ids=str,
)
def test_memory_pools(texts: list[str], pools: dict[str, int]) -> None:
    assert parse_pools(texts) == pools


NO_SIZES = ("", ":", ":x", ":0", ":-1", ":nan", ":inf", ":1,workspace:2")


@pytest.mark.parametrize("text", ["dlaSRAM:1", *(f"workspace{size}" for size in NO_SIZES)])
def test_memory_pools_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match=r"--memPoolSize[\s\S]*fix: +--memPoolSize=workspace:1024"):
        parse_pools([text])


def test_levels_of_hardware_compatibility() -> None:
    assert [parse_level(text) for text in ("none", "ampere+", "AMPERE_PLUS", "sameComputeCapability")] == [
        "none",
        "ampere_plus",
        "ampere_plus",
        "same_compute_capability",
    ]
    with pytest.raises(OptionError, match="unknown --hardwareCompatibilityLevel"):
        parse_level("hopper")


def test_targets_of_rtx(rtx: TensorRT) -> None:
    assert make_target(None, rtx, None) == Target("portable", PLATFORM)
    assert make_target("portable", rtx, None) == make_target(None, rtx, None)
    assert make_target("sm120, SM_89,sm89", rtx, None) == Target("portable", PLATFORM, capabilities=("8.9", "12.0"))
    assert make_target("device", rtx, L4) == Target("device", PLATFORM, "NVIDIA L4", "8.9")
    # With a GPU in sight the library would build for that alone, so that all are named.
    assert make_target("portable", rtx, L4).capabilities == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert make_target(None, rtx, L4).kind == "portable"


def test_a_gpu_that_portable_leaves_out_is_built_for_itself(rtx: TensorRT) -> None:
    h100 = Gpu("NVIDIA H100 80GB HBM3", "9.0", "13.0", 80 << 30)
    assert make_target(None, rtx, h100) == Target("device", PLATFORM, "NVIDIA H100 80GB HBM3", "9.0")
    assert make_target("portable", rtx, h100).kind == "portable"


@pytest.mark.parametrize("text", ["sm75", "sm90", "8.9", "hopper", "sm89,", ""])
def test_targets_that_rtx_does_not_know(rtx: TensorRT, text: str) -> None:
    if not text:
        assert make_target(text, rtx, None) == Target("portable", PLATFORM)
        return
    with pytest.raises(
        OptionError, match=r"--target names no compute capability[\s\S]*sm80, sm86, sm89, sm120, sm121"
    ):
        make_target(text, rtx, None)


def test_a_device_that_is_not_there(rtx: TensorRT) -> None:
    with pytest.raises(BackendError, match=r"there is no GPU to build for[\s\S]*--target portable"):
        make_target("device", rtx, None)


def test_targets_of_tensorrt(full: TensorRT) -> None:
    assert make_target(None, full, L4) == Target("device", PLATFORM, "NVIDIA L4", "8.9")
    with pytest.raises(BackendError, match=r"TensorRT 10.3.0 builds only on the GPU[\s\S]*dpmrt\[rtx\]"):
        make_target(None, full, None)
    with pytest.raises(OptionError, match=r"TensorRT 10.3.0 has no portable targets[\s\S]*ampere\+"):
        make_target("sm89", full, L4)
