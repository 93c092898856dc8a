"""Building the C++ runtime for tests: as its users do, once for all workers of a test run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cpp_onnxruntime import adapter_options
from filelock import FileLock

SOURCE = Path(__file__).resolve().parents[2] / "runtime/cpp"
RELEASE = "-DCMAKE_BUILD_TYPE=Release"
THREADS = ("-DCMAKE_BUILD_TYPE=Debug", "-DDPMRT_SANITIZE=thread")
SANITIZED = ("-DCMAKE_BUILD_TYPE=Debug", "-DDPMRT_SANITIZE=address,undefined")
#: the builds that hold the ONNX Runtime adapter too, where its headers can be had
_WITH_ADAPTER = ("cpp", "cpp-sanitized", "cpp-threads")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command that has to succeed, and return what it printed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def build(folder: Path, *options: str) -> Path:
    """Configure and build, once for all workers of a test run."""
    with FileLock(f"{folder}.lock"):
        if not (folder / "built").exists():
            if folder.name in _WITH_ADAPTER:
                options += adapter_options(folder.parent)
            run("cmake", "-S", SOURCE, "-B", folder, "-DCMAKE_CXX_FLAGS=-Werror", *options)
            run("cmake", "--build", folder, "--parallel", "2")
            (folder / "built").touch()
    return folder


def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the workers of one test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base
