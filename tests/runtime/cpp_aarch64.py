"""The C++ runtime for aarch64: cross-compiled, and its tests run by an emulator of the processor.

`make aarch64` fetches what is not there into build/aarch64: Clang and aarch64's libraries as the wheel `ziglang`, and
QEMU's user-mode emulator as Debian's package, unpacked and not installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

import cpp_golden

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build/aarch64"
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
CROSS = "aarch64-linux-gnu-g++"
#: tests whose program is one thread; under emulation the eight threads of the other take minutes
PROGRAMS = ("golden", "faults", "allocations")


def emulator() -> str | None:
    """Return the emulator that is installed."""
    return next((found for name in EMULATORS if (found := shutil.which(name))), None)


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command that has to succeed, and return what it printed."""
    given = None if env is None else {**os.environ, **env}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=given, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def fetch_emulator(folder: Path) -> str:
    """Return the emulator of Debian's package, unpacked in a folder."""
    unpacked = folder / "qemu/usr/bin" / EMULATORS[0]
    if not unpacked.exists():
        folder.mkdir(parents=True, exist_ok=True)
        run("apt-get", "download", "qemu-user-static", cwd=folder)
        run("dpkg", "-x", next(folder.glob("qemu-user-static_*.deb")), folder / "qemu")
    return str(unpacked)


def fetch_compiler(folder: Path) -> list[str]:
    """Return CMake's options for Clang from a wheel, with aarch64's standard libraries."""
    python = folder / "venv/bin/python"
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
        run(python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "ziglang")
    tools = {"c++": "c++ -target aarch64-linux-musl", "ar": "ar", "ranlib": "ranlib"}
    for name, command in tools.items():
        wrapper = folder / f"zig-{name}"
        wrapper.write_text(f'#!/bin/sh\nexec "{python}" -m ziglang {command} "$@"\n')
        wrapper.chmod(0o755)
    names = {"CMAKE_CXX_COMPILER": "c++", "CMAKE_AR": "ar", "CMAKE_RANLIB": "ranlib"}
    return [f"-D{option}={folder / f'zig-{name}'}" for option, name in names.items()]


def build(folder: Path, compiler: Sequence[str]) -> Path:
    """Cross-compile the library and its tests, linked statically, so that the emulator needs no system."""
    options = [
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
        "-DDPMRT_BUILD_EXAMPLES=OFF",
    ]
    run("cmake", "-S", ROOT / "runtime/cpp", "-B", folder, *compiler, *options)
    targets = [f"dpmrt_{name}" for name in PROGRAMS]
    run("cmake", "--build", folder, "--parallel", "2", "--target", *targets)
    return folder


def replay(folder: Path, machine: str, golden: Path) -> str:
    """Run the tests; returns what the replay of Python's trajectories printed."""
    shown = {name: run(machine, folder / f"dpmrt_{name}", golden) for name in PROGRAMS}
    return shown["golden"]


def main() -> None:
    machine = emulator() or fetch_emulator(FOLDER)
    compiler = [f"-DCMAKE_CXX_COMPILER={CROSS}"] if shutil.which(CROSS) else fetch_compiler(FOLDER)
    golden = FOLDER / "golden"
    cpp_golden.write_golden(golden)
    shown = replay(build(FOLDER / "cpp", compiler), machine, golden)
    print(f"aarch64: {shown.count(' ok ')} trajectories as Python's, and {', '.join(PROGRAMS[1:])}", file=sys.stderr)


if __name__ == "__main__":
    main()
