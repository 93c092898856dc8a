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
from cpp_building import RELEASE, SANITIZED, SOURCE, THREADS, build, run

from dpmrt.solvers_np import compile_plan, randn


@pytest.fixture(scope="session")
def built(place: Path) -> Path:
    return build(place / "cpp", RELEASE)


@pytest.fixture(scope="session")
def sanitized(place: Path) -> Path:
    return build(place / "cpp-sanitized", *SANITIZED)


@pytest.fixture(scope="session")
def shared(place: Path) -> Path:
    folder = build(place / "cpp-shared", "-DBUILD_SHARED_LIBS=ON", "-DDPMRT_BUILD_TESTS=OFF")
    return folder / "libdpmrt.so"


def test_python_s_trajectories_are_replayed(built: Path, golden: Path) -> None:
    shown = run(built / "dpmrt_golden", golden)
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
    run(built / f"dpmrt_{program}", golden)


@pytest.mark.parametrize("program", ["golden", "faults", "allocations"])
def test_programs_under_address_and_undefined_sanitizers(sanitized: Path, golden: Path, program: str) -> None:
    run(sanitized / f"dpmrt_{program}", golden)


@pytest.mark.parametrize("program", ["golden", "faults", "allocations", "threads"])
def test_programs_under_the_thread_sanitizer(place: Path, golden: Path, program: str) -> None:
    run(build(place / "cpp-threads", *THREADS) / f"dpmrt_{program}", golden)


def test_the_static_library_is_small(built: Path) -> None:
    stripped = built / "stripped.a"
    run("strip", "--strip-debug", "-o", stripped, built / "libdpmrt.a")
    assert stripped.stat().st_size < 500_000


def test_only_the_api_is_seen_from_outside(shared: Path) -> None:
    names = {line.split()[-1] for line in run("nm", "-D", "--defined-only", shared).splitlines()}
    header = "".join(path.read_text() for path in (SOURCE / "include/dpmrt").glob("*.h"))
    assert names == {name for name in names if name.startswith("dpmrt_")}
    assert len(names) >= 15
    assert all(f"{name}(" in header for name in names)


def test_an_installed_library_is_found_by_cmake(built: Path, tmp_path: Path) -> None:
    prefix, project = tmp_path / "prefix", tmp_path / "project"
    run("cmake", "--install", built, "--prefix", prefix)
    project.mkdir()
    shutil.copy(SOURCE / "examples/smallest.cpp", project)
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(mine CXX)\nfind_package(dpmrt REQUIRED)\n"
        "add_executable(mine smallest.cpp)\ntarget_link_libraries(mine dpmrt::dpmrt)\n"
    )
    run("cmake", "-S", project, "-B", project / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", project / "build")
    plan = compile_plan("ddim", "linear", 4)
    plan.save(tmp_path / "plan.steps")
    printed = run(project / "build/mine", tmp_path / "plan.steps").split()
    x = randn((1, 1, 4, 4), 7)
    from dpmrt.solvers_np import run_plan

    expected = run_plan(plan, lambda x, t: x, x).ravel()
    np.testing.assert_allclose([float(value) for value in printed], expected, rtol=2e-5, atol=1e-6)
    config = next(prefix.rglob("dpmrt.pc")).read_text()
    assert "-ldpmrt" in config
    assert "prefix=${pcfiledir}/" in config
    assert str(SOURCE) not in config


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="no pkg-config")
def test_a_c_program_finds_it_by_pkg_config_wherever_it_was_installed(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "elsewhere"
    run("cmake", "--install", built, "--prefix", prefix)
    monkeypatch.setenv("PKG_CONFIG_PATH", str(next(prefix.rglob("dpmrt.pc")).parent))
    (tmp_path / "mine.c").write_text(
        "#include <dpmrt/dpmrt.h>\n#include <stdio.h>\n"
        "int main(void) {\n  dpmrt_plan *plan = NULL;\n  dpmrt_error error;\n"
        '  if (dpmrt_plan_load("none.steps", &plan, &error)) printf("%s\\n", error.text);\n  return 0;\n}\n'
    )
    flags = run("pkg-config", "--cflags", "--libs", "dpmrt").split()
    run("cc", "-o", tmp_path / "mine", tmp_path / "mine.c", *flags)
    assert "none.steps" in run(tmp_path / "mine", cwd=tmp_path)


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
