"""The C++ TensorRT adapter: run on stand-ins for CUDA and TensorRT, and compiled against the real headers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cpp_golden
import cpp_guided
import pytest
from cpp_building import RELEASE, SANITIZED, SOURCE, build, run
from cpp_bundles import write_folder

from dpmrt.engines import read_manifest
from dpmrt.engines.built import (
    EngineTensor,
    Flags,
    Library,
    Machine,
    Range,
    Request,
    Target,
    engines_folder,
    find_engine,
    source_hashes,
    this_platform,
    write_engine,
)
from dpmrt.errors import BackendError

GOOD = (SOURCE / "tests/corpus/manifests/good.json").read_bytes()
SHAPE = (2, 1, 8, 8)
HERE = Machine(Library("tensorrt", "10.3.0"), "Fake H100", "9.0", this_platform())


@pytest.fixture(scope="session", params=["cpp", "cpp-sanitized"])
def built(place: Path, request: pytest.FixtureRequest) -> Path:
    return build(place / "cpp", RELEASE) if request.param == "cpp" else build(place / "cpp-sanitized", *SANITIZED)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cpp_golden, "SHAPE", SHAPE)
    cpp_golden.write_case(tmp_path / "case.golden", cpp_golden.CASES["euler-ancestral"]())
    return tmp_path / "case.golden"


def put_engine(root: Path, plan: bytes = b"fake", most: int = 8, **changes: Any) -> str:
    """Write an engine beside a bundle, as `dpmrt build` does; returns its key."""
    network = read_manifest(root).unet
    profile = {
        spec.name: Range(*(tuple(n if isinstance(a, str) else a for a in spec.shape) for n in (1, 2, most)))
        for spec in network.inputs
    }
    fields: dict[str, Any] = {
        "network": "unet",
        "source": source_hashes(root, network),
        "precision": network.precision.kind,
        "library": Library("tensorrt", "10.3.0"),
        "target": Target("device", this_platform(), "Fake H100", "9.0"),
        "profiles": (profile,),
    }
    request = Request(**{**fields, **changes})
    folder = engines_folder(root)
    folder.mkdir(exist_ok=True)
    (folder / "scratch").write_bytes(plan)
    manifest, _ = write_engine(
        folder,
        request,
        folder / "scratch",
        inputs=tuple(EngineTensor(s.name, s.dtype, s.shape) for s in network.inputs),
        outputs=tuple(EngineTensor(s.name, s.dtype, s.shape) for s in network.outputs),
        facts={},
    )
    return manifest.key


def test_the_device_s_executor_replays_python_s_trajectories(built: Path, golden: Path, guided: Path) -> None:
    shown = run(built / "dpmrt_device", golden, guided)
    assert shown.count(" ok ") == 2 * (len(cpp_golden.CASES) + len(cpp_guided.CASES))


def test_a_bundle_s_engine_is_found_loaded_and_sampled_from(built: Path, case: Path, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "bundle", GOOD)
    put_engine(root)
    put_engine(root, b"none", target=Target("portable", this_platform()))
    assert run(built / "dpmrt_tensorrt", root, case).startswith("ok ")


def _alter(folder: Path, name: str, data: bytes) -> None:
    next(folder.glob(name)).write_bytes(data)


CHANGES: dict[str, tuple[dict[str, Any], Callable[[Path], object]]] = {
    "version": ({"library": Library("tensorrt", "10.2.0")}, lambda folder: None),
    "flavour": ({"library": Library("tensorrt_rtx", "1.7.1")}, lambda folder: None),
    "gpu": ({"target": Target("device", this_platform(), "Other GPU", "9.0")}, lambda folder: None),
    "capability": ({"target": Target("device", this_platform(), "Other GPU", "8.6")}, lambda folder: None),
    "portable": ({"target": Target("portable", this_platform(), capabilities=("8.6", "8.9"))}, lambda folder: None),
    "platform": ({"target": Target("device", "linux-riscv", "Fake H100", "9.0")}, lambda folder: None),
    "source": ({"source": {"unet/model.onnx": "0" * 64}}, lambda folder: None),
    "upward": (
        {"library": Library("tensorrt", "9.9.9"), "flags": Flags(version_compatible=True)},
        lambda folder: None,
    ),
    "altered": ({}, lambda folder: _alter(folder, "*.plan", b"FAKE")),
    "truncated": ({}, lambda folder: _alter(folder, "*.plan", b"fak")),
    "no-plan": ({}, lambda folder: next(folder.glob("*.plan")).unlink()),
    "not-json": ({}, lambda folder: _alter(folder, "*.json", b"{")),
    "renamed": ({}, lambda folder: next(folder.glob("*.json")).rename(folder / f"{0:016x}.json")),
    "none": ({}, lambda folder: next(folder.glob("*.json")).unlink()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_suit_is_said_in_python_s_words(place: Path, case: Path, tmp_path: Path, change: str) -> None:
    root = write_folder(tmp_path / "bundle", GOOD)
    fields, alter = CHANGES[change]
    put_engine(root, **fields)
    alter(engines_folder(root))
    shown = run(build(place / "cpp", RELEASE) / "dpmrt_tensorrt", root, case)
    status, text = shown.split("\n", 1)
    assert status == "DPMRT_ERROR_ENGINE"
    network = read_manifest(root).unet
    with pytest.raises(BackendError) as refused:
        find_engine(engines_folder(root), "unet", source_hashes(root, network), HERE, {"sample": SHAPE}, bundle=root)
    assert text.split("\n")[0] == refused.value.what
    for line in str(refused.value.got).split("\n"):
        if ": built for " in line:
            assert line in text


def test_shapes_beyond_the_profile_and_plans_that_are_none_are_refused(
    place: Path, case: Path, tmp_path: Path
) -> None:
    program = build(place / "cpp", RELEASE) / "dpmrt_tensorrt"
    root = write_folder(tmp_path / "small", GOOD)
    put_engine(root, most=2, profiles=({"sample": Range((4, 1, 8, 8), (4, 1, 8, 8), (8, 1, 8, 8))},))
    assert "shapes: built for profiles none of which has them together, here sample:2x1x8x8" in run(
        program, root, case
    )
    root = write_folder(tmp_path / "none", GOOD)
    put_engine(root, b"no plan")
    assert "TensorRT refuses the engine\n  got:      magic tag does not match" in run(program, root, case)


HEADERS = [Path(part) for part in os.environ.get("TENSORRT_INCLUDE", "").split(os.pathsep) if part]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.skipif(not HEADERS, reason="no TensorRT headers: TENSORRT_INCLUDE names their folders")
def test_the_adapter_compiles_against_tensorrt_s_headers(tmp_path: Path) -> None:
    for number, headers in enumerate(HEADERS):
        options = ["-DDPMRT_TENSORRT=ON", f"-DTENSORRT_INCLUDE={headers}", "-DDPMRT_BUILD_TESTS=OFF"]
        folder = build(tmp_path / str(number), RELEASE, *options, "-DDPMRT_BUILD_EXAMPLES=OFF")
        assert "T dpmrt_tensorrt_session_create" in run("nm", folder / "libdpmrt.a")
