"""The C++ runtime: built as a user builds it, replaying Python's trajectories, installed and linked against."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cpp_golden
import numpy as np
import pytest
from filelock import FileLock

from dpmrt.solvers_np import compile_plan, randn

SOURCE = Path(__file__).resolve().parents[2] / "runtime/cpp"


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _build(folder: Path, *options: str) -> Path:
    """Configure and build, once for all workers of a test run."""
    with FileLock(f"{folder}.lock"):
        if not (folder / "built").exists():
            _run("cmake", "-S", SOURCE, "-B", folder, "-DCMAKE_CXX_FLAGS=-Werror", *options)
            _run("cmake", "--build", folder, "--parallel", "2")
            (folder / "built").touch()
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of one test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


@pytest.fixture(scope="session")
def golden(place: Path) -> Path:
    folder = place / "cpp-golden"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            cpp_golden.write_golden(folder)
    return folder


@pytest.fixture(scope="session")
def built(place: Path) -> Path:
    return _build(place / "cpp", "-DCMAKE_BUILD_TYPE=Release")


@pytest.fixture(scope="session")
def sanitized(place: Path) -> Path:
    return _build(place / "cpp-sanitized", "-DCMAKE_BUILD_TYPE=Debug", "-DDPMRT_SANITIZE=address,undefined")


@pytest.fixture(scope="session")
def shared(place: Path) -> Path:
    folder = _build(place / "cpp-shared", "-DBUILD_SHARED_LIBS=ON", "-DDPMRT_BUILD_TESTS=OFF")
    return folder / "libdpmrt.so"


def test_python_s_trajectories_are_replayed(built: Path, golden: Path) -> None:
    shown = _run(built / "dpmrt_golden", golden)
    assert shown.count(" ok ") == 4 * len(cpp_golden.CASES)


def test_what_differs_is_shown_side_by_side(built: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.golden"
    cpp_golden.write_case(path, cpp_golden.CASES["ddim"]())
    data = bytearray(path.read_bytes())
    data[-8:] = np.float64(12.5).tobytes()
    path.write_bytes(bytes(data))
    done = subprocess.run([built / "dpmrt_golden", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "OFF" in done.stdout
    assert "here" in done.stdout
    assert "Python" in done.stdout


@pytest.mark.parametrize("program", ["faults", "threads", "allocations"])
def test_programs(built: Path, golden: Path, program: str) -> None:
    _run(built / f"dpmrt_{program}", golden)


@pytest.mark.parametrize("program", ["golden", "faults", "allocations"])
def test_programs_under_address_and_undefined_sanitizers(sanitized: Path, golden: Path, program: str) -> None:
    _run(sanitized / f"dpmrt_{program}", golden)


def test_threads_under_the_thread_sanitizer(place: Path, golden: Path, tmp_path: Path) -> None:
    folder = _build(place / "cpp-threads", "-DCMAKE_BUILD_TYPE=Debug", "-DDPMRT_SANITIZE=thread")
    for name in ("euler-ancestral-float32", "dpmsolver++-2-float64"):
        shutil.copy(golden / f"{name}.golden", tmp_path)
    _run(folder / "dpmrt_threads", tmp_path)


def test_the_static_library_is_small(built: Path) -> None:
    stripped = built / "stripped.a"
    _run("strip", "--strip-debug", "-o", stripped, built / "libdpmrt.a")
    assert stripped.stat().st_size < 500_000


def test_only_the_api_is_seen_from_outside(shared: Path) -> None:
    names = {line.split()[-1] for line in _run("nm", "-D", "--defined-only", shared).splitlines()}
    header = (SOURCE / "include/dpmrt/dpmrt.h").read_text()
    assert names == {name for name in names if name.startswith("dpmrt_")}
    assert len(names) >= 15
    assert all(f"{name}(" in header for name in names)


def test_an_installed_library_is_found_by_cmake_and_pkg_config(built: Path, tmp_path: Path) -> None:
    prefix, project = tmp_path / "prefix", tmp_path / "project"
    _run("cmake", "--install", built, "--prefix", prefix)
    project.mkdir()
    shutil.copy(SOURCE / "examples/smallest.cpp", project)
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(mine CXX)\nfind_package(dpmrt REQUIRED)\n"
        "add_executable(mine smallest.cpp)\ntarget_link_libraries(mine dpmrt::dpmrt)\n"
    )
    _run("cmake", "-S", project, "-B", project / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    _run("cmake", "--build", project / "build")
    plan = compile_plan("ddim", "linear", 4)
    plan.save(tmp_path / "plan.steps")
    printed = _run(project / "build/mine", tmp_path / "plan.steps").split()
    x = randn((1, 1, 4, 4), 7)
    from dpmrt.solvers_np import run_plan

    expected = run_plan(plan, lambda x, t: x, x).ravel()
    np.testing.assert_allclose([float(value) for value in printed], expected, rtol=2e-5, atol=1e-6)
    config = next(prefix.rglob("dpmrt.pc")).read_text()
    assert "-ldpmrt" in config
    assert str(SOURCE) not in config


def test_the_smallest_program_says_what_is_wrong(built: Path, tmp_path: Path) -> None:
    (tmp_path / "none.steps").write_bytes(b"none")
    done = subprocess.run([built / "dpmrt_smallest", tmp_path / "none.steps"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not a step file" in done.stderr


@pytest.fixture(scope="session")
def library(shared: Path) -> Any:
    made = ctypes.CDLL(str(shared))
    made.dpmrt_version.restype = ctypes.c_char_p
    return made


@pytest.mark.parametrize("count", [1, 7, 15, 16, 17, 31, 100, 4096])
@pytest.mark.parametrize("seed", [0, 3, 2**32 + 5, 2**64 - 1])
def test_its_noise_is_torch_s(library: Any, count: int, seed: int) -> None:
    noise, out = ctypes.c_void_p(), np.zeros(2 * count, np.float32)
    assert library.dpmrt_noise_create(ctypes.c_uint64(seed), ctypes.byref(noise), None) == 0
    for half in (out[:count], out[count:]):
        assert (
            library.dpmrt_noise_normal(noise, half.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(count), None) == 0
        )
    library.dpmrt_noise_free(noise)
    from dpmrt.solvers_np import make_noise

    stream = make_noise("torch-cpu", seed)
    expected = np.concatenate([stream.normal((count,)), stream.normal((count,))])
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(out[:count], randn((count,), seed), rtol=0, atol=2e-6)
