"""Which TensorRT is found, and what is said where it is missing, broken or too old."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dpmrt.engines.built import Library
from dpmrt.errors import BackendError, MissingExtraError, OptionError
from dpmrt.runtime.tensorrt_library import installed_flavours, load_library


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in front of the path, with no TensorRT loaded from anywhere else."""
    for name in ("tensorrt", "tensorrt_rtx"):
        # Set before it is deleted, so that a stand-in does not outlive the test.
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name))
        monkeypatch.delitem(sys.modules, name)
    # Only the folder and the standard library are left to find modules in.
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(p for p in sys.path if "site-packages" not in p)])
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)


def test_none_installed(stand_ins: Path) -> None:
    assert installed_flavours() == ()
    with pytest.raises(MissingExtraError) as caught:
        load_library()
    assert str(caught.value) == (
        "TensorRT or TensorRT-RTX is not installed\n"
        "  got:      no module tensorrt or tensorrt_rtx\n"
        "  expected: TensorRT 10.3 or newer or TensorRT-RTX 1.4 or newer\n"
        "  fix:      pip install 'dpmrt[rtx]' or pip install 'dpmrt[tensorrt]'"
    )
    with pytest.raises(MissingExtraError, match=r"fix: +pip install 'dpmrt\[tensorrt\]'$"):
        load_library("tensorrt")


def test_the_one_that_is_there(stand_ins: Path) -> None:
    write(stand_ins, "tensorrt_rtx", "__version__ = '1.7.1.116'\nBuilder = object")
    assert installed_flavours() == ("tensorrt_rtx",)
    assert load_library().library == Library("tensorrt_rtx", "1.7.1.116")


def test_one_that_does_not_load_makes_way_for_the_other(stand_ins: Path) -> None:
    write(stand_ins, "tensorrt", "raise OSError('libnvinfer.so.11: cannot open shared object file')")
    with pytest.raises(
        BackendError, match=r"TensorRT is installed and cannot be loaded\n.*OSError: libnvinfer.so.11"
    ):
        load_library()
    write(stand_ins, "tensorrt_rtx", "__version__ = '1.7.1.116'\nBuilder = object")
    assert load_library().flavour == "tensorrt_rtx"
    with pytest.raises(BackendError, match="cannot be loaded"):
        load_library("tensorrt")


def test_a_package_without_its_native_part(stand_ins: Path) -> None:
    write(stand_ins, "tensorrt", "__version__ = '11.4.0'")
    with pytest.raises(BackendError, match="AttributeError: module 'tensorrt' has no attribute 'Builder'"):
        load_library()


@pytest.mark.parametrize(
    ("name", "version", "oldest"), [("tensorrt", "10.2.0", "10.3"), ("tensorrt_rtx", "1.3.9", "1.4")]
)
def test_too_old(stand_ins: Path, name: str, version: str, oldest: str) -> None:
    write(stand_ins, name, f"__version__ = '{version}'\nBuilder = object")
    with pytest.raises(BackendError, match=rf"is too old\n.*{version}\n.*{oldest} or newer\n.*--upgrade"):
        load_library()


def test_the_oldest_will_do(stand_ins: Path) -> None:
    write(stand_ins, "tensorrt", "__version__ = '10.3.0'\nBuilder = object")
    assert load_library().major == 10


def test_an_interrupt_is_no_broken_library(stand_ins: Path) -> None:
    write(
        stand_ins, "tensorrt", "try:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt:\n    raise ImportError"
    )
    with pytest.raises(KeyboardInterrupt):
        load_library()


def test_an_unknown_flavour() -> None:
    with pytest.raises(OptionError, match="unknown flavour"):
        load_library("tensorrt_llm")  # type: ignore[arg-type]
