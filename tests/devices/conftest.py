from __future__ import annotations

from typing import Any

import fake_cupy
import pytest
from cuda_shim import COMPILER


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A CuPy without a GPU, whose kernels compute on the host."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    return fake_cupy.install(monkeypatch)
