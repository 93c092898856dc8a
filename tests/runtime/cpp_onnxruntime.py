"""ONNX Runtime for the C++ runtime's tests: its headers from a Debian package, its library from the wheel.

Debian 13 packages the headers. The package is fetched by apt with a configuration of its own, unpacked below
`build/`, and installed nowhere.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

_BUILD = Path(__file__).resolve().parents[2] / "build"
_PACKAGE = "libonnxruntime-dev"
#: holds, in the place of a test run, why there are no headers
MISSING = "onnxruntime-missing"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def _apt(folder: Path, *command: str) -> None:
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Acquire::Languages": "none",
        "Acquire::http::Timeout": "20",
        "APT::Sandbox::User": "",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", *options, *command], cwd=folder, check=True, capture_output=True, timeout=120)


def _mirror() -> str:
    """Return where this system has its packages from."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], check=True, capture_output=True, text=True
    ).stdout.split()
    found = next((address for address in listed if "security" not in address), None)
    if found is None:
        raise OSError("apt knows no mirror")
    return found


def _fetch(folder: Path) -> None:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={_KEYS}] {_mirror()} trixie main\n")
    _apt(folder, "update")
    _apt(folder, "download", _PACKAGE)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True, capture_output=True)


def headers() -> Path:
    """Return the folder of ONNX Runtime's C headers; they are fetched once for a checkout."""
    kept = _BUILD / "onnxruntime-headers"
    _BUILD.mkdir(exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            scratch = _BUILD / "onnxruntime-apt"
            shutil.rmtree(scratch, ignore_errors=True)
            _fetch(scratch)
            shutil.move(scratch / "unpacked/usr/include/onnxruntime", kept)
            shutil.rmtree(scratch)
    return kept


def _library(place: Path) -> Path:
    """Return the wheel's library by the name that programs look for."""
    found = importlib.util.find_spec("onnxruntime")
    assert found is not None
    assert found.origin is not None
    (library,) = (Path(found.origin).parent / "capi").glob("libonnxruntime.so.1.*")
    link = place / "onnxruntime-library/libonnxruntime.so.1"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(library)
    return link


def adapter_options(place: Path) -> tuple[str, ...]:
    """Return what CMake is to be told to build the adapter; nothing where the headers cannot be had."""
    with FileLock(place / "onnxruntime.lock"):
        missing = place / MISSING
        if missing.exists():
            return ()
        try:
            include = headers()
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error).encode()
            missing.write_bytes(said.strip()[-300:])
            return ()
        library = _library(place)
    return ("-DDPMRT_ONNXRUNTIME=ON", f"-DONNXRUNTIME_INCLUDE={include}", f"-DONNXRUNTIME_LIBRARY={library}")
