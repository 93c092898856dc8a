from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from dpmrt.runtime.gpu import current_gpu, why_no_gpu
from dpmrt.runtime.tensorrt_library import installed_flavours

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / "runtime"), str(TESTS / "export"), str(TESTS / "devices")]


@pytest.fixture(scope="session")
def cupy() -> Any:
    """The real CuPy, on a real GPU."""
    if current_gpu() is None:
        pytest.skip(f"no GPU: {why_no_gpu()}")
    module = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
    module.zeros(1)
    return module


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def flavour(request: pytest.FixtureRequest, cupy: Any) -> str:
    """A flavour of TensorRT that is installed here."""
    if request.param not in installed_flavours():
        pytest.skip(f"{request.param} is not installed")
    importlib.import_module(request.param)
    return str(request.param)
