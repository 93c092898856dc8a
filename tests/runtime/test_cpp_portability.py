"""The C++ runtime elsewhere: files from anyone, Clang's warnings, another processor."""

from __future__ import annotations

import shutil
from pathlib import Path

import cpp_aarch64
import cpp_golden
import cpp_malformed
import pytest
from cpp_building import RELEASE, SANITIZED, build, run

from dpmrt.errors import PlanError
from dpmrt.solvers_np import StepPlan

CLANG = next(
    (found for name in ("clang++", "clang++-19", "clang++-16", "clang++-14") if (found := shutil.which(name))), None
)


def test_the_corpus_is_what_its_generator_writes(tmp_path: Path) -> None:
    cpp_malformed.write(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in cpp_malformed.CORPUS.iterdir()}


def test_every_malformed_file_is_refused_by_name(place: Path) -> None:
    shown = run(build(place / "cpp", RELEASE) / "dpmrt_malformed", cpp_malformed.CORPUS)
    said = {line.split("\t")[0]: line.split("\t")[1:] for line in shown.splitlines()}
    files = cpp_malformed.Malformed().files
    assert said.keys() == files.keys()
    for name, (_, status, text) in files.items():
        assert said[name][0] == status, name
        assert text in said[name][1], name


@pytest.mark.parametrize("name", sorted(path.stem for path in cpp_malformed.CORPUS.glob("*.steps")))
def test_python_refuses_the_same_files(name: str) -> None:
    with pytest.raises(PlanError):
        StepPlan.load(cpp_malformed.CORPUS / f"{name}.steps")


def test_the_fuzzer_s_entry_takes_its_corpus_under_sanitizers(place: Path) -> None:
    shown = run(build(place / "cpp-sanitized", *SANITIZED) / "dpmrt_fuzz_stepfile", cpp_malformed.CORPUS)
    assert shown == f"{len(list(cpp_malformed.CORPUS.iterdir()))} files\n"


@pytest.mark.skipif(CLANG is None, reason="no Clang")
def test_clang_warns_of_nothing(place: Path, golden: Path) -> None:
    folder = build(place / "cpp-clang", f"-DCMAKE_CXX_COMPILER={CLANG}", "-DCMAKE_BUILD_TYPE=Debug")
    assert run(folder / "dpmrt_golden", golden).count(" ok ") == 4 * len(cpp_golden.CASES)


@pytest.mark.skipif(cpp_aarch64.emulator() is None, reason="no qemu-aarch64; `make aarch64` fetches one")
@pytest.mark.skipif(
    shutil.which(cpp_aarch64.CROSS) is None, reason=f"no {cpp_aarch64.CROSS}; `make aarch64` fetches Clang"
)
def test_aarch64_gives_the_same_under_emulation(place: Path, golden: Path) -> None:
    folder = cpp_aarch64.build(place / "cpp-aarch64", [f"-DCMAKE_CXX_COMPILER={cpp_aarch64.CROSS}"])
    shown = cpp_aarch64.replay(folder, cpp_aarch64.emulator() or "", golden)
    assert shown.count(" ok ") == 4 * len(cpp_golden.CASES)
