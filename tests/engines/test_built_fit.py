"""Which engine is found, and what is said, field by field, of those that do not suit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_built_store import own_memory, request_, written

from dpmrt.engines.built import (
    EngineManifest,
    Flags,
    Library,
    Machine,
    Range,
    Target,
    choose_profile,
    find_engine,
    misfits,
    misfits_of_request,
    misfits_of_shapes,
)
from dpmrt.errors import BackendError

__all__ = ["own_memory"]

L4 = Machine(Library("tensorrt_rtx", "1.7.1.116"), "NVIDIA L4", "8.9", "linux-x86_64")
SOURCE = {"unet/model.onnx": "a" * 64}
DEVICE = Target("device", "linux-x86_64", "NVIDIA L4", "8.9")


def said(request: Any, **here: Any) -> list[str]:
    fields = {name: getattr(L4, name) for name in ("library", "gpu", "compute_capability", "platform")}
    return [str(misfit) for misfit in misfits(request, Machine(**{**fields, **here}))]


SEVERAL = Target("portable", "linux-x86_64", capabilities=("8.9", "12.0"))


@pytest.mark.parametrize("target", [DEVICE, Target("portable", "linux-x86_64"), SEVERAL], ids=str)
def test_an_engine_that_suits(target: Target) -> None:
    assert said(request_(target=target)) == []


@pytest.mark.parametrize(
    ("here", "told"),
    [
        ({"library": None}, "library: built for TensorRT-RTX 1.7.1.116, here none installed"),
        (
            {"library": Library("tensorrt", "11.4.0")},
            "library.flavour: built for TensorRT-RTX 1.7.1.116, here TensorRT 11.4.0",
        ),
        ({"library": Library("tensorrt_rtx", "1.7.2")}, "library.version: built for 1.7.1.116, here 1.7.2"),
        ({"platform": "linux-aarch64"}, "platform: built for linux-x86_64, here linux-aarch64"),
        ({"compute_capability": "9.0"}, "compute_capability: built for 8.9, here 9.0"),
        ({"gpu": "NVIDIA L40"}, "gpu: built for NVIDIA L4, here NVIDIA L40"),
        ({"gpu": None}, "gpu: built for device: NVIDIA L4 (8.9), linux-x86_64, here no GPU"),
    ],
    ids=str,
)
def test_one_field_that_does_not_suit(here: dict[str, Any], told: str) -> None:
    assert said(request_(target=DEVICE), **here) == [told]


def test_several_fields_are_told_all() -> None:
    told = said(request_(target=DEVICE), library=None, platform="win32-AMD64", compute_capability="12.0", gpu="RTX")
    assert [line.partition(":")[0] for line in told] == ["library", "platform", "compute_capability", "gpu"]


def test_a_portable_engine_for_other_capabilities() -> None:
    request = request_(target=Target("portable", "linux-x86_64", capabilities=("8.6", "12.0")))
    (misfit,) = misfits(request, L4)
    assert str(misfit) == "target.capabilities: built for 8.6, 12.0, here 8.9"
    assert misfit.fix == "dpmrt build BUNDLE --target sm86,sm120,sm89"


def test_a_portable_engine_on_an_old_gpu() -> None:
    assert said(request_(), gpu="Tesla T4", compute_capability="7.5") == [
        "compute_capability: built for 8.0 or newer, here 7.5"
    ]
    assert said(request_(), gpu="NVIDIA B200", compute_capability="10.0") == []


def test_hardware_compatibility() -> None:
    ampere = request_(target=DEVICE, flags=Flags(hardware_compatibility="ampere_plus"))
    assert said(ampere, gpu="NVIDIA B200", compute_capability="10.0") == []
    assert said(ampere, gpu="Tesla T4", compute_capability="7.5") == [
        "compute_capability: built for 8.0 or newer, here 7.5"
    ]
    same = request_(target=DEVICE, flags=Flags(hardware_compatibility="same_compute_capability"))
    assert said(same, gpu="NVIDIA L40") == []
    assert said(same, gpu="NVIDIA H100", compute_capability="9.0") == ["compute_capability: built for 8.9, here 9.0"]


def test_version_compatibility_goes_upward_within_a_major_version() -> None:
    built = request_(library=Library("tensorrt", "10.3.0"), flags=Flags(version_compatible=True))
    assert said(built, library=Library("tensorrt", "10.13.0")) == []
    assert said(built, library=Library("tensorrt", "10.2.9"))
    assert said(built, library=Library("tensorrt", "11.0.0"))


def found(folder: Path, **asked: Any) -> EngineManifest:
    fields: dict[str, Any] = {"network": "unet", "source": SOURCE, "machine": L4, "shapes": None}
    return find_engine(folder, **{**fields, **asked})[0]


def test_tuned_goes_before_portable(tmp_path: Path) -> None:
    portable, _ = written(tmp_path)
    tuned, _ = written(tmp_path, request_(target=DEVICE))
    stripped, _ = written(tmp_path, request_(target=DEVICE, flags=Flags(strip_weights=True)))
    assert found(tmp_path) == tuned
    os.truncate(tmp_path / f"{tuned.key}.plan", 3)
    assert found(tmp_path) == portable
    os.truncate(tmp_path / f"{portable.key}.plan", 3)
    assert found(tmp_path) == stripped


def test_the_nearest_optimum_is_found(tmp_path: Path) -> None:
    far, _ = written(tmp_path, request_(profiles=({"sample": Range((1, 4), (8, 4), (8, 4))},)))
    near, _ = written(tmp_path, request_(profiles=({"sample": Range((1, 4), (1, 4), (2, 4))},)))
    assert found(tmp_path, shapes={"sample": (1, 4)}) == near
    assert found(tmp_path, shapes={"sample": (7, 4)}) == far


def test_profiles_are_chosen_by_distance(tmp_path: Path) -> None:
    profiles = tuple({"sample": Range((1, 4), (opt, 4), (16, 4))} for opt in (1, 4, 16))
    manifest, _ = written(tmp_path, request_(profiles=profiles))
    assert choose_profile(manifest, {"sample": (1, 4)}) == (0, 0)
    assert choose_profile(manifest, {"sample": (5, 4)}) == (1, pytest.approx(0.3219, abs=1e-4))
    assert choose_profile(manifest, {"sample": (16, 4)}) == (2, 0)
    assert choose_profile(manifest, {"sample": (17, 4)}) is None
    assert choose_profile(manifest, {"sample": (2, 5)}) is None
    assert choose_profile(manifest, {"other": (2, 4)}) is None


def test_shapes_outside_every_profile_are_told_with_the_flag(tmp_path: Path) -> None:
    manifest, _ = written(tmp_path)
    (misfit,) = misfits_of_shapes(manifest, {"sample": (9, 4)})
    assert str(misfit) == "shape of sample: built for 1x4:2x4:8x4, here 9x4"
    assert misfit.fix == "dpmrt build BUNDLE --minShapes=sample:… --optShapes=sample:9x4 --maxShapes=sample:…"


def test_no_engine_at_all(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"no TensorRT engine was built for the unet[\s\S]*dpmrt build mine$"):
        find_engine(tmp_path / "none", "unet", SOURCE, L4, bundle="mine")
    with pytest.raises(BackendError, match="dpmrt build BUNDLE --network classifier"):
        found(tmp_path, network="classifier")


def test_why_none_suits_is_told_engine_by_engine(tmp_path: Path) -> None:
    old, _ = written(tmp_path, request_(source={"unet/model.onnx": "b" * 64}))
    other, _ = written(tmp_path, request_(target=Target("device", "linux-x86_64", "NVIDIA H100", "9.0")))
    short, plan = written(tmp_path, request_(target=DEVICE))
    os.truncate(plan, 3)
    (tmp_path / ("0" * 16 + ".json")).write_text("{")
    with pytest.raises(BackendError) as caught:
        found(tmp_path)
    text = str(caught.value)
    assert "none of 4 TensorRT engines suits the unet here" in text
    assert f"{old.key}: source unet/model.onnx: built for bbbbbbbbbbbb…, here aaaaaaaaaaaa…" in text
    assert f"{other.key}: compute_capability: built for 9.0, here 8.9" in text
    assert "gpu: built for NVIDIA H100, here NVIDIA L4" in text
    assert f"{short.key}: {short.key}.plan is truncated (3 bytes, expected 1800000 bytes)" in text
    assert "0000000000000000: 0000000000000000.json is not JSON" in text
    assert "expected: an engine for TensorRT-RTX 1.7.1.116, NVIDIA L4 (8.9), linux-x86_64" in text
    assert text.endswith("fix:      dpmrt build BUNDLE")


def test_requests_are_compared_field_by_field() -> None:
    wanted = request_(
        source={"unet/model.onnx": "c" * 64, "unet/model.onnx_data": "d" * 64},
        library=Library("tensorrt_rtx", "1.8"),
        flags=Flags(memory_pools={"workspace": 7}),
        profiles=(),
    )
    assert [(m.field, m.engine, m.here) for m in misfits_of_request(request_(), wanted)] == [
        ("source.unet/model.onnx", "aaaaaaaaaaaa…", "cccccccccccc…"),
        ("library.version", "1.7.1.116", "1.8"),
        ("profiles", "sample 1x4:2x4:8x4", "none"),
        ("source.unet/model.onnx_data", "none", "dddddddddddd…"),
        ("flags.memory_pools.workspace", "none", "7"),
    ]
